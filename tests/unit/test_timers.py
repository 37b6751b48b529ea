"""The timer wheel, on a loop whose time stands in the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prpc.timers import TICK, TimerWheel


class Handle:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of a loop as the wheel asks for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[[], None]) -> Handle:
        self.handles.append(Handle(at, callback))
        return self.handles[-1]

    @property
    def open(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.cancelled]

    def advance(self, seconds: float) -> None:
        """Move on and run what became due."""
        self.now += seconds
        while due := [handle for handle in self.open if handle.at <= self.now]:
            handle = min(due, key=lambda handle: handle.at)
            self.handles.remove(handle)
            handle.callback()


def wheel() -> tuple[Loop, TimerWheel[str], list[str]]:
    loop = Loop()
    due: list[str] = []
    made: Any = loop
    return loop, TimerWheel(made, due.append), due


def test_moments_come_in_their_order_and_never_early() -> None:
    loop, timers, due = wheel()
    timers.add("late", 103.0)
    timers.add("early", 101.0)
    timers.add("middle", 102.0)
    loop.advance(0.999)
    assert due == []
    loop.advance(0.001 + 2 * TICK)
    assert due == ["early"]
    loop.advance(5)
    assert due == ["early", "middle", "late"]
    assert loop.open == []


def test_a_removed_moment_does_not_come() -> None:
    loop, timers, due = wheel()
    tick = timers.add("gone", 101.0)
    timers.add("stays", 101.0)
    timers.remove("gone", tick)
    loop.advance(2)
    assert due == ["stays"]
    timers.remove("stays", tick)  # came already


def test_one_timer_of_the_loop_stands_for_any_number_of_moments() -> None:
    loop, timers, due = wheel()
    for number in range(1000):
        timers.add(str(number), 101.0 + number / 1000)
    assert len(loop.open) == 1
    loop.advance(3)
    assert len(due) == 1000


def test_an_idle_wheel_does_not_turn() -> None:
    loop, timers, _ = wheel()
    ticks = [(str(number), timers.add(str(number), 101.0 + number)) for number in range(10)]
    for key, tick in ticks:
        timers.remove(key, tick)
    loop.advance(2)
    assert loop.open == []


def test_a_moment_in_the_past_comes_at_once() -> None:
    loop, timers, due = wheel()
    timers.add("past", 50.0)
    loop.advance(0)
    assert due == ["past"]


def test_cleared_moments_do_not_come() -> None:
    loop, timers, due = wheel()
    timers.add("gone", 101.0)
    timers.clear()
    timers.clear()
    assert loop.open == []
    timers.add("new", 101.0)
    loop.advance(2)
    assert due == ["new"]
