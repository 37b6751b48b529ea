"""Settlements under way: what a broker was asked to do with deliveries, and whether it did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from prpc.server.logs import logger

__all__ = ["Settlements"]


class Settlements:
    """The broker works on them whether or not anybody waits; this sees what becomes of them."""

    def __init__(self) -> None:
        #: What the broker was asked, and of how many deliveries: it may answer once for all of a tick.
        self._open: dict[asyncio.Future[bool], int] = {}

    def __len__(self) -> int:
        return sum(self._open.values())

    def watch(self, settling: Awaitable[bool]) -> None:
        """See what becomes of a settlement."""
        future = settling if isinstance(settling, asyncio.Future) else asyncio.ensure_future(settling)
        known = self._open.get(future)
        if known is None:
            self._open[future] = 1
            future.add_done_callback(self._settled)
        else:
            self._open[future] = known + 1

    def hold(self, asking: asyncio.Future[bool]) -> None:
        """Count a question to the broker whose answer somebody else looks at."""
        self._open[asking] = 1
        asking.add_done_callback(self._open.pop)

    async def finish(self, seconds: float) -> int:
        """Wait for all of them; returns how many deliveries the broker had not decided after so many seconds."""
        if self._open:
            _, unsettled = await asyncio.wait(self._open, timeout=seconds)
            if unsettled:
                logger.error("%d outcomes could not be handed over before the end: the broker does not answer", len(self))
        return len(self)

    def _settled(self, future: asyncio.Future[bool]) -> None:
        count = self._open.pop(future)
        if future.cancelled():
            return
        of = "an outcome" if count == 1 else f"{count} outcomes"
        error = future.exception()
        if error is not None:
            logger.error("%s could not be handed over: %s", of, error)
        elif not future.result():
            logger.warning("%s dropped: another server had taken the call over", of + (" was" if count == 1 else " were"))
