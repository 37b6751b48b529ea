"""Servers, workers, clients and nodes of a real Kafka killed, paused and stopped under load, and records that are doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.real_kafka, pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = (
    "kafka-servers-killed",
    "kafka-servers-paused",
    "kafka-workers-killed",
    "kafka-clients-killed",
    "kafka-rolling-restart",
    "kafka-restarted",
    "kafka-coordinator-killed",
    "kafka-records-doubled",
)


@pytest.mark.parametrize("name", NAMES)
def test_promises_hold(name: str, keeps_its_promises: Callable[[str], None]) -> None:
    keeps_its_promises(name)
