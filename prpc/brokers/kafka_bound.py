"""The bound of a queue's length on Kafka, kept by each caller: what a look said, and what was sent since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from prpc.brokers.base import QueueState, queue_full

__all__ = ["QueueBound"]

#: Seconds for which a look holds while there is room, and where there seems to be none.
HOLDS = 0.5
HOLDS_FULL = 0.05


class QueueBound:
    """Kafka itself takes every record: who sends looks before, and counts what it sends between two looks.

    What other callers send meanwhile is not seen, so a queue can become longer than its bound by what all of them send in
    half a second. Bound to one event loop.
    """

    def __init__(self, queue: str, most: int, look: Callable[[], Awaitable[QueueState]]) -> None:
        self._queue, self._most, self._look = queue, most, look
        self._length, self._looked = 0, float("-inf")
        self._lock = asyncio.Lock()

    async def enter(self) -> None:
        """Wait for the right to send one call. Raises QueueFullError, and BrokerUnavailableError where it cannot be told."""
        async with self._lock:
            age = time.monotonic() - self._looked
            if age > HOLDS or (self._length >= self._most and age > HOLDS_FULL):
                state = await self._look()
                self._length, self._looked = state.waiting + state.taken, time.monotonic()
            if self._length >= self._most:
                raise queue_full(self._queue, self._length)
            self._length += 1
