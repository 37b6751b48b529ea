"""A Redis that goes, forgets, freezes and refuses, and a network that breaks, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from prpc.dev_broker import DevBroker
from tests.chaos.scenarios import run_scenario

pytestmark = [pytest.mark.real_redis, pytest.mark.chaos, pytest.mark.timeout(180)]

#: Known to draw the faults that their scenario is for; `make chaos` draws new ones.
SEED = 20


@pytest.mark.parametrize(
    "name",
    [
        "redis-restarted",
        "redis-emptied",
        "redis-frozen",
        "redis-refuses",
        "connections-cut",
        "network-slow",
        "everything",
    ],
)
def test_promises_hold(name: str, tmp_path: Path, private_redis: Callable[..., DevBroker]) -> None:
    private_redis().close()  # skips where there is no real one
    report = asyncio.run(run_scenario(name, SEED, tmp_path))
    assert not report.violations, str(report)
