"""Calls that are taken before there is a worker for them, so that a worker that is done needs not wait for the broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["MOST_AHEAD", "SECONDS_AHEAD", "SECONDS_UNTIL_BACK", "SHORT", "Ahead"]

T = TypeVar("T")

#: Seconds of work that are taken ahead at most, as the calls before them tell.
SECONDS_AHEAD = 0.005
#: Calls that are taken ahead at most.
MOST_AHEAD = 100
#: Seconds after which a call that waits here goes back to the queue: what runs takes longer than what ran before.
SECONDS_UNTIL_BACK = 0.05
#: Seconds that calls take on the average, below which they are short.
SHORT = 0.001
#: What a call is thought to take before anything is known, in seconds, and by how much each one that ends changes that.
AT_FIRST, WEIGHT = 1.0, 0.1


class Ahead(Generic[T]):
    """The calls that wait for a worker, in their order; none where calls take long, as other servers would have them sooner.

    `start` begins a call whose turn it is, with the seconds that it waited here; `give_back` returns one to the queue.
    Bound to one event loop. Why it is so: docs/decisions/0023-calls-taken-ahead.md.
    """

    def __init__(self, slots: int, start: Callable[[T, float], None], give_back: Callable[[T], None]) -> None:
        self._slots, self._start, self._give_back = slots, start, give_back
        #: Each with the loop time at which it came.
        self._waiting: deque[tuple[T, float]] = deque()
        #: What a call takes, on the average of the last ones.
        self.seconds = AT_FIRST
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more may be taken now."""
        work = self._slots * SECONDS_AHEAD
        most = MOST_AHEAD if work >= MOST_AHEAD * self.seconds else int(work / self.seconds)
        return max(0, most - len(self._waiting))

    def note(self, seconds: float) -> None:
        """A call ran for so long. A very long one counts as a long one: it is forgotten again after some thirty short ones."""
        self.seconds += (min(seconds, AT_FIRST) - self.seconds) * WEIGHT

    def wait(self, call: T) -> None:
        """Hold the call until its turn, for SECONDS_UNTIL_BACK at most."""
        loop = asyncio.get_running_loop()
        self._waiting.append((call, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(SECONDS_UNTIL_BACK, self._look)

    @property
    def are_short(self) -> bool:
        """Whether calls take so little that the way to a worker and back is what they cost."""
        return self.seconds < SHORT

    @property
    def first(self) -> T:
        """The one that waits longest, of at least one."""
        return self._waiting[0][0]

    def doubt(self) -> None:
        """A call took longer than those before it: nothing is known of the next ones."""
        self.seconds = AT_FIRST

    def start_next(self) -> None:
        """There is a worker for the one that waits longest, if any."""
        if self._waiting:
            call, since = self._waiting.popleft()
            self._start(call, asyncio.get_running_loop().time() - since)

    def clear(self) -> None:
        """Give back every call that waits."""
        waiting, self._waiting = self._waiting, deque()
        for call, _ in waiting:
            self._give_back(call)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        until = self._waiting[0][1] + SECONDS_UNTIL_BACK
        if until > loop.time():
            self._timer = loop.call_at(until, self._look)
        else:
            self.doubt()
            self.clear()
