"""A Redis that goes, forgets, freezes and refuses, whose clock jumps, and whose entries are doubled and moved, under load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.real_redis, pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = (
    "redis-restarted",
    "redis-emptied",
    "redis-frozen",
    "redis-frozen-long",
    "redis-refuses",
    "redis-clock-jumps",
    "entries-doubled",
    "entries-moved-blindly",
)


@pytest.mark.parametrize("name", NAMES)
def test_promises_hold(name: str, keeps_its_promises: Callable[[str], None]) -> None:
    keeps_its_promises(name)
