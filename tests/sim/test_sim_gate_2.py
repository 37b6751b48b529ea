"""A part of the simulated runs that every change must pass (tests/sim/gate.py)."""

from __future__ import annotations

import pytest

from tests.sim.gate import CHUNKS, Gate

GATE = Gate(1)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_is_kept(chunk: int) -> None:
    GATE.run(chunk)


def test_every_fault_and_every_outcome_was_reached() -> None:
    GATE.reached()
