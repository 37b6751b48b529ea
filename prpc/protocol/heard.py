"""Which events a server has heard: a broker may bring one twice, and each runs once. No I/O, no clock, no asyncio."""

from __future__ import annotations

from uuid import UUID

__all__ = ["HeardEvents"]


class HeardEvents:
    """The message ids of the last events, at most so many. Times are seconds by the broker's clock.

    What an id was forgotten for counts as heard from then on: everything that was sent at the same time or before.
    """

    def __init__(self, window: float, *, most: int = 10_000) -> None:
        """`window`: seconds after its sending in which an event may come again."""
        self._window, self._most = window, most
        #: Id -> when its event was sent; in the order of hearing.
        self._sent: dict[UUID, float] = {}
        #: Events that were sent before may have been heard.
        self._since = float("-inf")

    def age(self, sent: float, now: float) -> float | None:
        """Seconds since it was sent, 0 where the clocks differ; None for one that must not run, so long ago or ahead was it."""
        return max(0.0, now - sent) if abs(now - sent) <= self._window else None

    def is_new(self, message_id: UUID, sent: float, now: float) -> bool:
        """Whether it is heard for the first time; it is remembered."""
        if message_id in self._sent or sent <= self._since:
            return False
        self._sent[message_id] = sent
        self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        while self._sent:
            oldest = next(iter(self._sent))
            if len(self._sent) <= self._most and self._sent[oldest] >= now - self._window:
                return
            # Not ahead of now: one clock that runs fast must not silence the others.
            self._since = max(self._since, min(now, self._sent.pop(oldest)))
