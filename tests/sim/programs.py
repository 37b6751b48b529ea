"""Simulated processes whose program is plain code, and what every process has for itself in PRPC's modules."""

from __future__ import annotations

import asyncio
import atexit
import sys
import threading
from asyncio import events
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from greenlet import GreenletExit

from tests.sim.hosts import Host
from tests.sim.loop import SimLoop
from tests.sim.parked import Parked
from tests.sim.waits import the_loop

__all__ = ["IDENTS", "Globals", "give_globals", "register", "run_plain", "set_thread", "spawn_plain", "unregister"]

#: Idents of threads begin here.
IDENTS = 1_000_000
_register, _unregister = atexit.register, atexit.unregister


def run_plain(loop: SimLoop, host: Host, function: Callable[..., Any], *args: Any) -> Any:
    """Where no loop runs."""
    events._set_running_loop(None)
    host.plain = True
    try:
        return function(*args)
    finally:
        host.plain = False
        events._set_running_loop(loop)


def register(function: Any, *args: Any, **kwargs: Any) -> Any:
    """atexit.register."""
    loop = the_loop()
    if loop is None:
        return _register(function, *args, **kwargs)
    loop.current.process.globals.setdefault("atexit", []).append((function, args, kwargs))
    return function


def unregister(function: Any) -> None:
    """atexit.unregister."""
    loop = the_loop()
    if loop is None:
        _unregister(function)
        return
    left = loop.current.process.globals.get("atexit", [])
    left[:] = [each for each in left if each[0] != function]


def set_thread(host: Host, thread: threading.Thread) -> None:
    """This host is this thread, which has started."""
    host.thread = thread
    thread.__dict__["_sim"] = Life(host)
    thread._ident = IDENTS + host.number  # type: ignore[attr-defined]
    thread._started.set()  # type: ignore[attr-defined]


class Life:
    """Of a thread, for those who join it."""

    def __init__(self, host: Host) -> None:
        self.host, self.over = host, False
        self.joining: list[Parked] = []

    def end(self) -> None:
        self.over = True
        joining, self.joining = self.joining, []
        for parked in joining:
            parked.wake()


def spawn_plain(loop: SimLoop, host: Host, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """A process whose program is this plain function. The future gets what it returns or raises, after its exit.

    At its end it does what an interpreter does: `atexit`, and threads that are daemons end. The host must have no coroutines of
    `loop`; `asyncio.run` works as usual.
    """
    give_globals(host)
    done = loop.create_future()
    thread = threading.Thread(name="MainThread", daemon=False)
    set_thread(host, thread)
    loop.on(host, _run_program, loop, host, done, function, args)
    return done


def _run_program(
    loop: SimLoop, host: Host, done: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    value, error = None, None
    try:
        value = run_plain(loop, host, _to_exit, loop, host, function, args)
    except GreenletExit:
        return
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        error = exc
    loop.on(loop.root, _exit, loop, host, done, value, error)


def _to_exit(loop: SimLoop, host: Host, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return function(*args)
    finally:
        if not loop.burying:
            for part in list(host.parts):
                if not part.thread.daemon:
                    part.thread.join()
            left = host.globals.get("atexit", [])
            while left:
                at_exit, given, named = left.pop()
                at_exit(*given, **named)


def _exit(loop: SimLoop, host: Host, done: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    loop.kill(host)
    if done.done():
        return
    if error is None:
        done.set_result(value)
    else:
        done.set_exception(error)


def give_globals(host: Host) -> None:
    """Have this process have PRPC's module globals for itself from now on: before it calls anything of PRPC's plain face."""
    process = host.process
    if process.own is None:
        process.own = {key: make() for key, make in _GLOBALS.items()}
        for part in process.parts:
            part.own = process.own


def _lookups() -> Any:
    from prpc.client.lookups import Lookups

    return Lookups()


#: What PRPC keeps in modules for a process.
_GLOBALS: dict[tuple[str, str], Callable[[], Any]] = {
    ("prpc.client.portal", "_portal"): lambda: None,
    ("prpc.client.portal", "_guard"): lambda: threading.RLock(),
    ("prpc.client.portal", "_lookups"): _lookups,
    ("prpc.client.portal", "_ours"): WeakSet,
    ("prpc.client.portal", "_inherited"): list,
    ("prpc.client.channel", "_default"): lambda: None,
}


class Globals:
    """Which process's module globals the modules have."""

    def __init__(self) -> None:
        self._places = {key: vars(sys.modules[key[0]]) for key in _GLOBALS}
        self._outside = self._owner = {key: self._places[key][key[1]] for key in _GLOBALS}

    def load(self, own: dict[Any, Any] | None) -> None:
        new, owner = self._outside if own is None else own, self._owner
        if new is not owner:
            for key, place in self._places.items():
                owner[key] = place[key[1]]
                place[key[1]] = new[key]
            self._owner = new
