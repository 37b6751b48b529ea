"""Time as a value: a clock that is passed in, and deadlines on it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

__all__ = ["Clock", "Deadline", "SystemClock"]


class Clock(Protocol):
    """Where PRPC reads the time."""

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring and waiting."""
        ...

    def now(self) -> datetime:
        """The date and time in UTC, for people and the wire."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)


class Deadline(NamedTuple):
    """A moment on a clock's monotonic scale; None means never. A tuple, as a server makes one for every call."""

    at: float | None  # seconds, on the clock's monotonic scale

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> Deadline:
        """The moment `seconds` from now; None stays never."""
        return cls(None if seconds is None else clock.monotonic() + seconds)

    def remaining(self, clock: Clock) -> float | None:
        """Seconds left, never below zero; None where there is no deadline."""
        return None if self.at is None else max(0.0, self.at - clock.monotonic())

    def expired(self, clock: Clock) -> bool:
        """Whether the moment has come."""
        return self.at is not None and clock.monotonic() >= self.at
