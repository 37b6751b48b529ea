"""How long requests need, and where their connections break: drawn from the seed, or armed for one request."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.loop import Host
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
        slow = self._noise.get("slow", 0.0) if self.noisy else 0.0
        if slow and self._latency.random() < slow:
            self.fired["slow"] = self.fired.get("slow", 0) + 1
            seconds += self._latency.choice(TAILS)
        return seconds

    def cuts_push(self) -> bool:
        rate = self._noise.get("cut_push", 0.0) if self.noisy else 0.0
        cut = rate > 0 and self._faults.random() < rate
        if cut:
            self.fired["cut_push"] = self.fired.get("cut_push", 0) + 1
        return cut

    def fate(self, host: Host | None, operation: str) -> Fate:
        fate = Fate(self.delay(), self.delay())
        for watcher in self.watchers:
            fate.cut = watcher(host, operation) or fate.cut
            if fate.cut in self._delays:
                fate.there, fate.cut = self._delays[fate.cut], ""
        if self.noisy and not fate.cut:
            for kind in ("cut_before", "cut_after"):
                rate = self._noise.get(kind, 0.0)
                if rate and self._faults.random() < rate:
                    self.fired[kind] = self.fired.get(kind, 0) + 1
                    fate.cut = kind.removeprefix("cut_")
        return fate
