"""Calls that were taken but may not start yet, because enough of their function run here already."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["MOST_WAITING", "SECONDS_IN_LINE", "Line"]

T = TypeVar("T")

#: Seconds after which a call that waits here goes back to the queue, where another server may take it.
SECONDS_IN_LINE = 1.0
#: Calls that wait in one server; with so many it takes no further ones.
MOST_WAITING = 100


class Line(Generic[T]):
    """Counts the runs of limited functions and holds those that came on top, each for a bounded time.

    `start` begins a call whose turn it is, with the seconds that it waited here; `give_back` returns one to the queue.
    Bound to one event loop. Why it is so: docs/decisions/0013-concurrency-limits.md.
    """

    def __init__(self, start: Callable[[T, float], None], give_back: Callable[[T], None]) -> None:
        self._start = start
        self._give_back = give_back
        self._running: Counter[str] = Counter()
        #: Function -> its waiting calls, oldest first, each with its timer and when it came (loop time).
        self._waiting: dict[str, OrderedDict[T, tuple[asyncio.TimerHandle, float]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def is_full(self) -> bool:
        """Whether no further call fits in."""
        return self._length >= MOST_WAITING

    def has_room(self, function: str, limit: int | None) -> bool:
        """Whether one more call of the function may start."""
        return limit is None or self._running[function] < limit

    def begin(self, function: str) -> None:
        """One more runs."""
        self._running[function] += 1

    def end(self, function: str) -> None:
        """One has ended and let go of its worker; the next in line begins."""
        self._running[function] -= 1
        waiting = self._waiting.get(function)
        while waiting:  # a call that has expired meanwhile ends at once and leaves the room to the next
            before = self._running[function]
            call = next(iter(waiting))
            waited = self._take_out(function, call)
            self._start(call, waited)
            if self._running[function] > before:
                return

    def wait(self, function: str, call: T) -> None:
        """Hold the call until its turn, for SECONDS_IN_LINE at most."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(SECONDS_IN_LINE, self._leave, function, call)
        self._waiting.setdefault(function, OrderedDict())[call] = timer, loop.time()
        self._length += 1

    def clear(self) -> None:
        """Give back every call that waits."""
        for function, waiting in list(self._waiting.items()):
            for call in list(waiting):
                self._leave(function, call)

    def _leave(self, function: str, call: T) -> None:
        self._take_out(function, call)
        self._give_back(call)

    def _take_out(self, function: str, call: T) -> float:
        """Seconds that it waited."""
        waiting = self._waiting[function]
        timer, since = waiting.pop(call)
        timer.cancel()
        if not waiting:
            del self._waiting[function]
        self._length -= 1
        return asyncio.get_running_loop().time() - since
