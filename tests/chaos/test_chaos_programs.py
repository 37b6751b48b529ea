"""Servers, workers and clients that are killed, paused and stopped under load, or whose clocks jump."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.real_redis, pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = (
    "servers-killed",
    "server-killed",
    "servers-paused",
    "workers-killed",
    "clients-killed",
    "rolling-restart",
    "hurried-restart",
    "clocks-jump",
)


@pytest.mark.parametrize("name", NAMES)
def test_promises_hold(name: str, keeps_its_promises: Callable[[str], None]) -> None:
    keeps_its_promises(name)
