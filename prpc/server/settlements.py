"""Settlements under way: what a broker was asked to do with deliveries, and whether it did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from prpc.server.logs import logger

__all__ = ["Settlements"]


class Settlements:
    """The broker works on them whether or not anybody waits; this sees what becomes of them."""

    def __init__(self) -> None:
        self._open: set[asyncio.Future[bool]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def watch(self, settling: Awaitable[bool]) -> None:
        """See what becomes of a settlement."""
        future = asyncio.ensure_future(settling)
        self._open.add(future)
        future.add_done_callback(self._settled)

    def hold(self, asking: asyncio.Future[bool]) -> None:
        """Count a question to the broker whose answer somebody else looks at."""
        self._open.add(asking)
        asking.add_done_callback(self._open.discard)

    async def finish(self, seconds: float) -> int:
        """Wait for all of them; returns how many the broker had not decided after so many seconds."""
        if self._open:
            _, unsettled = await asyncio.wait(self._open, timeout=seconds)
            if unsettled:
                logger.error("%d outcomes could not be handed over before the end: the broker does not answer", len(unsettled))
        return len(self._open)

    def _settled(self, future: asyncio.Future[bool]) -> None:
        self._open.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            logger.error("an outcome could not be handed over: %s", error)
        elif not future.result():
            logger.warning("an outcome was dropped: another server had taken the call over")
