"""A client of aiokafka's that several use: opened when the first of them needs it, closed once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from prpc.brokers.awaiting import background
from prpc.exceptions import BrokerUnavailableError

__all__ = ["Shared"]

T = TypeVar("T")


class Shared(Generic[T]):
    """Whoever waits for it may be cancelled; the opening goes on for the others, until `drop` or `close` ends it."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]], stop: Callable[[T], Awaitable[None]], url: str) -> None:
        """`start` leaves nothing open where it is cancelled. `url`: for errors, without the password."""
        self._start, self._stop, self._url = start, stop, url
        self._opening: asyncio.Task[T] | None = None
        self._closed = False

    async def get(self) -> T:
        """It, open. Raises what `start` raises, and BrokerUnavailableError once it is closed."""
        opening = self._opening
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            if self._closed:
                raise self._gone()
            opening = self._opening = background(self._start(), "prpc-kafka-open")
            opening.add_done_callback(_look_at)
        await asyncio.wait([opening])
        if opening.cancelled():
            raise self._gone()
        return opening.result()

    async def drop(self) -> None:
        """Close what is open, or is being opened; the next `get` opens anew. Idempotent."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await self._stop(opening.result())

    async def close(self) -> None:
        """Close it for good. Idempotent."""
        self._closed = True
        await self.drop()

    def _gone(self) -> BrokerUnavailableError:
        return BrokerUnavailableError("the connection was closed", url=self._url)


def _look_at(opening: asyncio.Task[Any]) -> None:
    if not opening.cancelled():
        opening.exception()  # nobody may be left to be told
