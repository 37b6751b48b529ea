"""A clock that is moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """A Clock that stands still until it is moved: no test has to wait for a timeout. For any thread."""

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0
        self._lock = threading.RLock()
        #: Called with the seconds before the clock moves, and without anything after it.
        self._before: list[Callable[[float], object]] = []
        self._after: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._passed

    def now(self) -> datetime:
        """The start plus what was advanced."""
        return self._start + timedelta(seconds=self._passed)

    def advance(self, seconds: float) -> None:
        """Move on; never back (ValueError).

        Calls of `running(app, clock=clock)` whose deadline comes by it get their outcome: wait for that as for any other.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot be moved back by {-seconds:g} s")
        with self._lock:
            for before in list(self._before):
                before(seconds)
            self._passed += seconds
            for after in list(self._after):
                after()

    @contextmanager
    def watched(self, before: Callable[[float], object], after: Callable[[], object]) -> Iterator[None]:
        """For PRPC's own use: within the block call `before(seconds)` and `after()` around each move."""
        self._before.append(before)
        self._after.append(after)
        try:
            yield
        finally:
            self._before.remove(before)
            self._after.remove(after)
