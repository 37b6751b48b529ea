"""The bound of a queue's length on Kafka, kept by each caller: what a look said, and what was sent since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prpc.brokers.awaiting import background
from prpc.brokers.base import QueueState, queue_full
from prpc.exceptions import BrokerUnavailableError

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
        #: The look that is under way.
        self._looking: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Future[Any]] = set()

    async def send(self, send: Callable[[], asyncio.Future[Any]]) -> None:
        """Send one call when it may be. Raises QueueFullError, and BrokerUnavailableError also where it cannot be told."""
        age = time.monotonic() - self._looked
        if self._looking is not None or age > HOLDS or (self._length >= self._most and age > HOLDS_FULL):
            await self._look_together()
        if self._length >= self._most:
            raise queue_full(self._queue, self._length)
        self._length += 1
        sent = send()
        self._under_way.add(sent)
        sent.add_done_callback(self._under_way.discard)
        await sent

    async def close(self) -> None:
        """Whoever waits for a look fails. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look_together(self) -> None:
        """Wait for one look, which all share who want one: one after another they would wait for a silent Kafka in turn."""
        if self._looking is None:
            self._looking = background(self._look_anew(), "prpc-kafka-look")
            self._looking.add_done_callback(self._looked_anew)
        looking = self._looking
        await asyncio.wait([looking])
        if looking.cancelled():
            raise BrokerUnavailableError("the connection was closed")
        looking.result()

    async def _look_anew(self) -> None:
        if self._under_way:  # a look does not tell which of them it has seen
            await asyncio.wait(self._under_way)
        state = await self._look()
        self._length, self._looked = state.waiting + state.taken, time.monotonic()

    def _looked_anew(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # nobody may be left to be told
