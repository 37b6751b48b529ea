"""The walls of the simulation: inside, time, dates and random bytes are the simulation's, and the real world is out of reach."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from random import Random
from typing import Any

from tests.sim import ports, threads
from tests.sim.loop import SimLoop, SimulationFenceError

__all__ = ["EPOCH", "fenced", "installed"]

#: What the date is when a run begins.
EPOCH = 1_800_000_000.0
#: Audited events of the real world.
FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn", "time.sleep")
#: Modules that ask `datetime` for the date.
DATED = ("prpc.deadline", "prpc.client.call", "prpc.client.channel", "prpc.client.middleware", "prpc.codec.codec")

_loop: SimLoop | None = None
_ids = Random()
_real = {"monotonic": time.monotonic, "time": time.time, "perf_counter": time.perf_counter, "urandom": os.urandom}


def _monotonic() -> float:
    return _real["monotonic"]() if _loop is None else _loop.time()


def _date() -> float:
    return _real["time"]() if _loop is None else EPOCH + _loop.now + _loop.current.process.wall


def _urandom(size: int) -> bytes:
    return _real["urandom"](size) if _loop is None else _ids.randbytes(size)


class _Dates(type(datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class SimDatetime(datetime, metaclass=_Dates):
    """A datetime class whose `now` is the simulation's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(_date(), tz or UTC)


def _audit(event: str, _: Any) -> None:
    if _loop is not None and event in FORBIDDEN:
        raise SimulationFenceError(f"{event} in the simulation")


def _rebind(new: dict[Any, Any]) -> Callable[[], None]:
    """Replace these objects wherever a module of PRPC holds one by a name of its own; returns what takes it back."""
    undo: list[tuple[Any, str, Any]] = []
    for name, module in sorted(sys.modules.items()):
        if name == "prpc" or name.startswith("prpc."):
            for key, value in list(vars(module).items()):
                if isinstance(value, type(time.time)) and value in new:
                    undo.append((module, key, value))
                    setattr(module, key, new[value])

    for name in DATED:
        undo.append((sys.modules[name], "datetime", datetime))
        sys.modules[name].datetime = SimDatetime

    def back() -> None:
        for module, key, value in undo:
            setattr(module, key, value)

    return back


_hooked = False


@contextmanager
def installed() -> Iterator[None]:
    """The walls stand; they hold while a run is `fenced`. For as many runs as one likes."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    changed: list[tuple[Any, str, Any]] = [
        (time, "monotonic", _monotonic),
        (time, "perf_counter", _monotonic),
        (time, "time", _date),
        (os, "urandom", _urandom),
        (random, "_urandom", _urandom),
        *threads.patches(_monotonic),
        *ports.patch(),
    ]
    old = [(where, name, getattr(where, name)) for where, name, _ in changed]
    back = _rebind({_real["monotonic"]: _monotonic, _real["time"]: _date})
    for where, name, new in changed:
        setattr(where, name, new)
    try:
        yield
    finally:
        for where, name, before in old:
            setattr(where, name, before)
        back()


@contextmanager
def fenced(loop: SimLoop, ids: Random) -> Iterator[None]:
    """One run inside the walls: `loop` has the time, `ids` makes ids and nonces."""
    global _loop, _ids
    _loop, _ids = loop, ids
    random.seed(ids.random())
    try:
        with threads.entered(loop):
            yield
    finally:
        _loop = None
