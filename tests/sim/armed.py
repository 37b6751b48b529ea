"""A fault that waits for one request: the n-th that a process sends to the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.ledger.causes import BROKER
from tests.sim.hosts import Host

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["DEEDS", "Armed"]

#: The request is not done, it is done and its answer is lost, it is done when its sender has given up, it takes its time; the
#: process is killed before it is sent, or when it is.
DEEDS = ("before", "after", "late", "slow", "kill_before", "kill_after")


class Armed:
    """Watches the requests of one process, by its name; `number` 0 only counts them. See SimTiming.watchers."""

    def __init__(self, world: World, process: str, number: int, deed: str) -> None:
        self._world, self._process, self._number, self._deed = world, process, number, deed
        #: Requests so far.
        self.count = 0
        #: The operation that it hit; empty before.
        self.operation = ""
        self._dead = False

    def __call__(self, host: Host | None, operation: str) -> str:
        if host is None or host.globals.get("process") != self._process:
            return ""
        if self._dead:  # the rest of the step in which it was killed
            return "never"
        self.count += 1
        if self.count != self._number:
            return ""
        self.operation = operation
        world = self._world
        if self._deed.startswith("kill"):
            self._dead = True
            world.fault(f"{self._deed} {operation}", self._process, kills=True)
            world.loop.at(world.loop.root, world.loop.now, world.kill, host.process)
            return "never" if self._deed == "kill_before" else ""
        number = world.fault(f"{self._deed} {operation}", BROKER, self._process)
        lasts = 0.0 if self._deed in ("before", "after") else 2 * world.options.silence
        world.loop.at(world.loop.root, world.loop.now + lasts, world.mended, number)
        return self._deed
