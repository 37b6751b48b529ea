"""A part of the simulated runs that every change must pass (tests/sim/gate.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.gate import CHUNKS, Gate

GATE = Gate(1)


@pytest.fixture(scope="module", autouse=True)
def the_simulation() -> Iterator[None]:
    with GATE.prepared():
        yield


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_is_kept(chunk: int) -> None:
    GATE.run(chunk)


def test_every_fault_and_every_outcome_was_reached() -> None:
    GATE.reached()
