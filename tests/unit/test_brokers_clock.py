"""The broker's clock, learnt from the answers of brokers."""

from __future__ import annotations

import random
import time

import pytest

from prpc.brokers.clock import LEARNT_HOLDS, BrokersClock


class Machine:
    """This process's clock, and the broker's clock as it learns of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.learnt = BrokersClock(lambda: self.now)

    def trip(self, offset: float, there: float, back: float) -> None:
        """A question goes there, is answered by a clock of milliseconds that is ahead by `offset`, and the answer comes back."""
        asked = self.now
        stamp = int((asked + there + offset) * 1000)
        self.now += there + back
        self.learnt.learn(stamp / 1000, (stamp + 1) / 1000, asked)


#: Seconds that floating point may lose.
ROUNDING = 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_the_brokers_clock_stays_within_what_was_learnt_of_it(seed: int) -> None:
    rng, machine = random.Random(seed), Machine()
    clock, offset = machine.learnt, 1.7e9 + rng.uniform(-100, 100)
    width = float("inf")
    for _ in range(200):
        machine.trip(offset, rng.expovariate(20), rng.expovariate(20))
        assert clock.earliest() - ROUNDING <= machine.now + offset <= clock.latest() + ROUNDING
        assert clock.earliest() <= clock.now() <= clock.latest()
        held = clock.latest() - clock.earliest()
        assert held <= width + ROUNDING  # the looks are close together: each can only tell more
        width = held
        machine.now += rng.expovariate(20)


def test_of_a_slow_first_look_no_age_is_told_too_small() -> None:
    machine, offset = Machine(), 1.7e9
    clock = machine.learnt
    machine.trip(offset, 0.5, 0.0)
    sent, born = clock.earliest(), machine.now
    machine.trip(offset, 0.0, 0.3)
    assert clock.latest() - sent >= machine.now - born - ROUNDING


@pytest.mark.parametrize("jump", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_brokers_clock_that_was_set_is_believed(jump: float) -> None:
    machine, offset = Machine(), 1.7e9
    clock = machine.learnt
    for ahead, there, back in ((0.0, 0.01, 0.01), (jump, 0.1, 0.1), (jump, 0.02, 0.02)):
        machine.trip(offset + ahead, there, back)
        assert clock.earliest() - ROUNDING <= machine.now + offset + ahead <= clock.latest() + ROUNDING


def test_a_good_look_at_the_brokers_clock_counts_for_a_while() -> None:
    machine, offset = Machine(), 1.7e9
    clock = machine.learnt
    machine.trip(offset, 0.01, 0.01)
    machine.trip(offset, 1.0, 1.0)
    assert clock.latest() - clock.earliest() < 0.1
    machine.now += LEARNT_HOLDS
    machine.trip(offset, 1.0, 1.0)
    assert clock.latest() - clock.earliest() > 1.0


def test_a_look_over_which_this_process_stood_still_says_little() -> None:
    machine, offset = Machine(), 1.7e9
    for there, back in ((0.0, 6.0), (0.01, 0.01), (6.0, 0.0)):
        machine.trip(offset, there, back)
    assert abs(machine.learnt.now() - machine.now - offset) < 0.02


def test_without_a_look_the_machines_own_clock_counts() -> None:
    clock, before = BrokersClock(), time.time()
    assert before - ROUNDING <= clock.earliest() <= clock.now() <= clock.latest() <= time.time() + ROUNDING
