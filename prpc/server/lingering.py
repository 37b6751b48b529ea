"""Outcomes of short calls, gathered for a moment: a message to the broker costs it, and the callers, more than the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prpc.brokers.base import Delivery, Reply

__all__ = ["MOST_GATHERED", "SECONDS_GATHERED", "Lingering"]

#: Outcomes that go out together at the latest, and seconds after which they do.
MOST_GATHERED, SECONDS_GATHERED = 32, 0.002


class Lingering:
    """Holds outcomes while others are about to come. Bound to one event loop.

    `settle` hands one over. Why it is so: docs/decisions/0023-calls-taken-ahead.md.
    """

    def __init__(self, settle: Callable[[Delivery, Reply], object]) -> None:
        self._settle = settle
        self._gathered: list[tuple[Delivery, Reply]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delivery: Delivery, reply: Reply, *, more: bool) -> None:
        """Hand an outcome over: soon where `more` are about to come, else now, with all that wait."""
        if not more and not self._gathered:
            self._settle(delivery, reply)
            return
        self._gathered.append((delivery, reply))
        if not more or len(self._gathered) >= MOST_GATHERED:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS_GATHERED, self.flush)

    def flush(self) -> None:
        """Hand over all that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        for delivery, reply in gathered:
            self._settle(delivery, reply)
