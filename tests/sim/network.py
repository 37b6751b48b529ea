"""The way between simulated processes and their broker: connections that are late, cut, half open, one-way or gone.

A connection is a stream: what goes in on one side comes out on the other in its order, or not at all. It breaks as a whole: what
was on its way then was done or not, and nobody is told. All faults of the way are made of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.sim.hosts import Host
from tests.sim.loop import SimLoop

__all__ = ["Broken", "Connection", "Fate", "Later", "Network", "Way"]


class Broken(Exception):
    """The connection broke before the answer came: nobody knows whether the request was carried out."""


@dataclass(slots=True)
class Fate:
    """What happens to one request."""

    #: Seconds to the broker, and back.
    there: float = 0.0
    back: float = 0.0
    #: "" or where the connection breaks: "before" the broker has it, or "after" it was carried out. "never": nothing happens, as
    #: its sender is gone.
    cut: str = ""


class Later:
    """An answer that the broker gives later; like a future, but of no loop."""

    def __init__(self) -> None:
        self._answer: tuple[Any] | None = None
        self._then: Callable[[Any], None] | None = None

    def set(self, answer: Any) -> None:
        """Give it; nothing where it was given."""
        if self._answer is None:
            self._answer = (answer,)
            if self._then is not None:
                self._then(answer)

    def then(self, function: Callable[[Any], None]) -> None:
        """Tell it to this one."""
        self._then = function
        if self._answer is not None:
            function(*self._answer)


@dataclass(slots=True)
class Way:
    """How a host reaches the broker now."""

    #: Requests arrive; answers and pushes arrive. What does not arrive waits for nobody: both ends notice by silence.
    out: bool = True
    home: bool = True
    #: While True, nothing moves in either direction, and goes on afterwards.
    clogged: list[Callable[[], None]] | None = None


class Timing(Protocol):
    """What draws the fate of each request."""

    def fate(self, host: Host | None, operation: str) -> Fate: ...

    def delay(self) -> float:
        """Seconds that a push needs."""
        ...

    def cuts_push(self) -> bool:
        """Whether the connection breaks by the next push, which is lost."""
        ...


class _AtOnce:
    def fate(self, host: Host | None, operation: str) -> Fate:
        return Fate()

    def delay(self) -> float:
        return 0.0

    def cuts_push(self) -> bool:
        return False


class Network:
    """All ways to one broker. `site`: the host whose code the broker's side is; None on ordinary loops, one for each connection.

    On ordinary loops the broker's code runs in the thread of whoever asks, one at a time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None = None, site: Host | None = None, timing: Timing | None = None
    ) -> None:
        self.loop, self.site = loop, site
        self._sim = loop if site is not None and isinstance(loop, SimLoop) else None
        self.timing: Timing = timing or _AtOnce()
        self.ways: dict[Host | None, Way] = {}
        self.connections: dict[Connection, None] = {}
        #: False while the broker is down: nobody can connect.
        self.up = True
        #: Held while the broker's code runs.
        self.lock = threading.RLock()
        #: Operation -> how often it was asked.
        self.asked: dict[str, int] = {}

    def way(self, host: Host | None) -> Way:
        way = self.ways.get(host)
        if way is None:
            way = self.ways[host] = Way()
        return way

    def at(self, host: Host, when: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function in this host at a moment of `now`."""
        assert self._sim is not None
        self._sim.at(host, when, function, *args)

    def later(self, seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        """Call a function of the broker's, from the broker's code."""

        def call() -> None:
            with self.lock:
                function()

        return asyncio.get_running_loop().call_later(seconds, call)

    def now(self) -> float:
        """The true time."""
        return time.monotonic() if self._sim is None else self._sim.now

    def go_down(self) -> None:
        """The broker's process ends: every connection breaks, none can be made."""
        self.up = False
        self.cut(None, every=True)

    def cut(self, host: Host | None, *, every: bool = False, listening: bool = False) -> int:
        """Break the connections of this host, or those alone on which it is `listening`; how many there were."""
        found = [each for each in self.connections if every or (each.host is host and (each.hung_up or not listening))]
        for connection in found:
            connection.snap()
        return len(found)


class Connection:
    """One stream between a host and the broker. `silence`: seconds after which an answer that is due means a dead connection."""

    def __init__(self, network: Network, host: Host | None, silence: float) -> None:
        #: Whose way it takes, and the part of it, a thread with a loop of its own or the process itself, that uses it.
        self.host, self._user = None if host is None else host.process, host
        self.network, self._silence = network, silence
        self._loop = asyncio.get_running_loop()
        self.open = False
        #: Told in the host when it is broken.
        self.broken: Callable[[], None] = lambda: None
        #: Told at the broker when it is broken there.
        self.hung_up: list[Callable[[], None]] = []
        self._waiting: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._number = 0
        self._arrives = self._returns = 0.0
        self._alive_there = True
        self._watch: asyncio.TimerHandle | None = None

    async def connect(self, seconds: float) -> None:
        """Raises ConnectionError, TimeoutError."""
        self.network.connections[self] = None
        self.open = True
        try:
            async with asyncio.timeout(seconds):
                await self.ask("connect", lambda: None)
        except Broken as exc:
            raise ConnectionError("connection refused") from exc
        except BaseException:
            self.snap()
            raise

    def ask(self, operation: str, work: Callable[[], Any], *, patience: float | None = None) -> asyncio.Future[Any]:
        """Have `work` done at the broker. The future gets what it returns or raises, or Broken.

        `work` may return a Later: the answer comes when that ends. `patience`: more seconds than the
        silence for such a one.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.open:
            future.set_exception(Broken("not connected"))
            future.exception()
            return future
        network = self.network
        network.asked[operation] = network.asked.get(operation, 0) + 1
        self._number += 1
        fate = network.timing.fate(self.host, operation)
        loop = asyncio.get_running_loop()
        self._waiting[self._number] = future, loop.time() + (self._silence if patience is None else patience)
        if self._watch is None:
            self._watch = loop.call_later(self._silence, self._listen)
        self._arrives = max(self._arrives, network.now() + fate.there)
        self._there(self._arrives, self._arrive, self._number, work, fate)
        return future

    def _there(self, when: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function at the broker."""
        if self.network.site is not None:
            self.network.at(self.network.site, when, function, *args)
        else:
            self._here(self._locked, function, *args)

    def _locked(self, function: Callable[..., object], *args: Any) -> None:
        with self.network.lock:
            function(*args)

    def _at_home(self, when: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the host."""
        if self.network.site is not None:
            assert self._user is not None
            self.network.at(self._user, when, function, *args)
        else:
            self._here(function, *args)

    def _here(self, function: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(function, *args)

    def _arrive(self, number: int, work: Callable[[], Any], fate: Fate) -> None:
        way = self.network.way(self.host)
        if way.clogged is not None:
            way.clogged.append(lambda: self._arrive(number, work, fate))
            return
        if not self._alive_there or not way.out:
            return
        if fate.cut == "never":
            return
        if fate.cut == "before" or not self.network.up:
            self.snap()
            return
        try:
            answer, error = work(), None
        except Exception as exc:
            answer, error = None, exc
        if fate.cut == "after":
            self.snap()
        elif isinstance(answer, Later):
            answer.then(lambda later: self._return(number, later, None, fate.back))
        else:
            self._return(number, answer, error, fate.back)

    def _return(self, number: int, answer: Any, error: Exception | None, back: float) -> None:
        self._home(back, self._answered, number, answer, error)

    def push(self, function: Callable[..., object], *args: Any) -> None:
        """From the broker's side: call a function in the host, in order with the answers."""
        if self.network.timing.cuts_push():
            self.snap()
            return
        self._home(self.network.timing.delay(), function, *args)

    def _home(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        way = self.network.way(self.host)
        if way.clogged is not None:
            way.clogged.append(lambda: self._home(delay, function, *args))
            return
        if not self._alive_there or not way.home:
            return
        self._returns = max(self._returns, self.network.now() + delay)
        self._at_home(self._returns, self._come_home, function, *args)

    def _come_home(self, function: Callable[..., object], *args: Any) -> None:
        if self.open:
            function(*args)

    def _answered(self, number: int, answer: Any, error: Exception | None) -> None:
        future, _ = self._waiting.pop(number, (None, 0.0))
        if future is None or future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    def _listen(self) -> None:
        """Whether an answer is due for too long."""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        due = min(when for _, when in self._waiting.values())
        if due > loop.time():
            self._watch = loop.call_at(due, self._listen)
        else:
            self.give_up()

    def give_up(self) -> None:
        """From the host's side: the connection counts as broken here; what is on its way may still arrive."""
        if self.open:
            self._break()
            self._there(self.network.now() + self.network.timing.delay(), self._hang_up)

    def snap(self) -> None:
        """Break it on both sides now: what is on its way is lost."""
        self._hang_up()
        if self._user is None or self._user.alive:
            self._at_home(self.network.now() + self.network.timing.delay(), self._break)

    def _hang_up(self) -> None:
        if self._alive_there:
            self._alive_there = False
            self.network.connections.pop(self, None)
            for function in self.hung_up:
                function()

    def _break(self) -> None:
        if not self.open:
            return
        self.open = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(Broken("the connection broke"))
                future.exception()
        self.broken()
