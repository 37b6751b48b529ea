"""What the broker's clock shows, as far as this process can tell without asking."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["BrokersClock"]

#: Seconds for which the best look at the broker's clock counts more than a worse one: clocks drift apart.
LEARNT_HOLDS = 60.0


class BrokersClock:
    """Seconds since 1970 by the broker's clock, and bounds that it is within.

    Nobody can tell when within its round trip a question was answered: the bounds are as far apart as the trip was long, which
    is very long where this process stood still meanwhile. So what is learnt narrows what was known, and the best look counts.
    """

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        """`monotonic`: this process's clock; None: `time.monotonic`."""
        self._monotonic = monotonic or time.monotonic
        #: What is to be added to the monotonic clock, at least and at most: the machine's own clock until there is better.
        self._least = self._most = time.time() - self._monotonic()
        #: Monotonic second of the last look as good as what is held; None: there was none.
        self._learnt: float | None = None

    def learn(self, earliest: float, latest: float, asked: float) -> None:
        """The broker's clock showed something from `earliest` to `latest` at a moment between `asked` (monotonic) and now."""
        now = self._monotonic()
        least, most = earliest - now, latest - asked
        apart = most < self._least or least > self._most  # a clock was set since
        if self._learnt is None or now - self._learnt > LEARNT_HOLDS or apart:
            self._least, self._most, self._learnt = least, most, now
            return
        if most - least <= self._most - self._least:
            self._learnt = now
        self._least, self._most = max(self._least, least), min(self._most, most)

    def now(self) -> float:
        """The likeliest."""
        return self._monotonic() + (self._least + self._most) / 2

    def earliest(self) -> float:
        """It is not before that."""
        return self._monotonic() + self._least

    def latest(self) -> float:
        """It is not after that."""
        return self._monotonic() + self._most
