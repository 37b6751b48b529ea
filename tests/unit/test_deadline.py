from datetime import UTC, timedelta

import pytest

from prpc.deadline import Deadline, SystemClock


class ManualClock(SystemClock):
    def __init__(self):
        self.seconds = 100.0

    def monotonic(self):
        return self.seconds


def test_a_deadline_counts_down_and_expires():
    clock = ManualClock()
    deadline = Deadline.after(clock, 5)
    assert deadline == Deadline(105.0)
    assert deadline.remaining(clock) == 5 and not deadline.expired(clock)
    clock.seconds = 104.5
    assert deadline.remaining(clock) == 0.5 and not deadline.expired(clock)
    clock.seconds = 105.0
    assert deadline.remaining(clock) == 0 and deadline.expired(clock)
    clock.seconds = 200.0
    assert deadline.remaining(clock) == 0 and deadline.expired(clock)


def test_no_deadline_never_expires():
    clock = ManualClock()
    deadline = Deadline.after(clock, None)
    assert deadline.at is None and deadline.remaining(clock) is None and not deadline.expired(clock)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_deadline_that_is_over_from_the_start(seconds):
    clock = ManualClock()
    deadline = Deadline.after(clock, seconds)
    assert deadline.expired(clock) and deadline.remaining(clock) == 0


def test_the_machines_clock():
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    now = clock.now()
    assert now.tzinfo is UTC and now.utcoffset() == timedelta(0)
