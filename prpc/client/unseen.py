"""Calls that failed while nobody waited for them: somebody may come in a moment; where nobody does, a log says it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from prpc.client.call import Call

__all__ = ["PATIENCE", "Unseen"]

logger = logging.getLogger("prpc.client")

#: Seconds in which whoever made a call may still come for its failure.
PATIENCE = 1.0


class Unseen:
    """The failed calls of one pump. Belongs to its loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: str) -> None:
        """`place`: queue and broker, for the log."""
        self._loop = loop
        self._place = place
        #: The calls, and what each failed with.
        self._calls: list[tuple[Call, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call, error: Exception) -> None:
        """A call failed, and nobody waits for it now."""
        self._calls.append((call, str(error)))
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self.tell)

    def tell(self) -> None:
        """Name those that nobody has asked for; one line for each reason."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, []
        unseen = Counter(error for call, error in calls if not (call.told or call.watched))
        for error, count in unseen.items():
            logger.warning("%d calls could not be sent to %s: %s", count, self._place, error)
