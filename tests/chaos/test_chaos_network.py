"""A network that breaks, at every byte, and is slow; and everything at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.real_redis, pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = (
    "connections-cut",
    "every-byte-cut",
    "network-slow",
    "everything",
)


@pytest.mark.parametrize("name", NAMES)
def test_promises_hold(name: str, keeps_its_promises: Callable[[str], None]) -> None:
    keeps_its_promises(name)
