"""Whether a server is fit for calls, judged by its last round trip to the broker. No I/O."""

from __future__ import annotations

import enum

from prpc.deadline import Clock

__all__ = ["Health", "Phase"]


class Phase(enum.StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Health:
    """What a server knows of its own health. `window`: seconds for which a round trip to the broker proves anything."""

    def __init__(self, clock: Clock, window: float) -> None:
        self._clock = clock
        self._window = window
        self._answered: float | None = None
        self.phase = Phase.STARTING

    def answered(self) -> None:
        """Note that a round trip to the broker has just worked."""
        self._answered = self._clock.monotonic()

    @property
    def silence(self) -> float | None:
        """Seconds since the last round trip that worked; None before the first."""
        return None if self._answered is None else self._clock.monotonic() - self._answered

    def obstacle(self) -> str | None:
        """Why the server is not ready for calls; None where it is."""
        if self.phase is not Phase.SERVING:
            return f"the server is {self.phase.value}"
        silence = self.silence
        if silence is None or silence > self._window:
            since = "yet" if silence is None else f"for {silence:.1f} s"
            return f"no answer from the broker {since}"
        return None
