"""How long requests need, and where their connections break: drawn from the seed, or armed for one request."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.hosts import Host
from tests.sim.network import Fate
from tests.sim.options import Options

__all__ = ["SimTiming"]

#: Tails of the latency in seconds.
TAILS = (0.05, 0.3, 3.0)


class SimTiming:
    """See network.Timing. Latency and faults have streams of their own."""

    def __init__(self, options: Options, latency: Random, faults: Random) -> None:
        self._mean, self._noise = options.latency, dict(options.noise)
        self._latency, self._faults = latency, faults
        #: Seconds after which whoever asked has given up, and those for which it still waits.
        self._delays = {"late": options.silence + 1.0, "slow": 0.75 * options.silence}
        #: While True, the noise of the options is on.
        self.noisy = bool(options.noise)
        #: Told of every request before it leaves: host and operation.
        self.watchers: list[Callable[[Host | None, str], str]] = []
        self.fired: dict[str, int] = {}

    def delay(self) -> float:
        seconds = self._latency.expovariate(1 / self._mean)
        if self._happens("slow", self._latency):
            seconds += self._latency.choice(TAILS)
        return seconds

    def _happens(self, kind: str, draw: Random) -> bool:
        rate = self._noise.get(kind, 0.0) if self.noisy else 0.0
        happens = rate > 0 and draw.random() < rate
        if happens:
            self.fired[kind] = self.fired.get(kind, 0) + 1
        return happens

    def cuts_push(self) -> bool:
        return self._happens("cut_push", self._faults)

    def doubles_mail(self) -> bool:
        """Whether a mail comes twice, as it may where it is sent again through a reconnect."""
        return self._happens("double_mail", self._faults)

    def fate(self, host: Host | None, operation: str) -> Fate:
        fate = Fate(self.delay(), self.delay())
        for watcher in self.watchers:
            fate.cut = watcher(host, operation) or fate.cut
            if fate.cut in self._delays:
                fate.there, fate.cut = self._delays[fate.cut], ""
        if self.noisy and not fate.cut:
            for kind in ("cut_before", "cut_after"):
                if self._happens(kind, self._faults):
                    fate.cut = kind.removeprefix("cut_")
        return fate
