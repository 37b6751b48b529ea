"""Simulated threads: what `threading`, `queue`, `time.sleep` and asyncio's runner do inside a run, without a real thread.

A thread is a part of its process's host and runs when the seed says so. It goes on until it waits, and where it takes or gives a
lock the seed may interrupt it (`SimLoop.preempt`). Locks made before the run go on as they are: nothing may wait for them.
"""

from __future__ import annotations

import asyncio
import atexit
import queue
import socket
import threading
import time
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import GreenletExit

from prpc.client import lookups
from tests.sim.hosts import Host
from tests.sim.loop import SimLoop
from tests.sim.parked import Parked, bury, give_way
from tests.sim.programs import IDENTS, Globals, give_globals, register, run_plain, set_thread, unregister
from tests.sim.thread_loop import ThreadLoop
from tests.sim.waits import SimLock, SimQueue, now, set_loop, sleep

__all__ = ["entered", "patches"]

#: The loop of the run that is on.
_loop: SimLoop | None = None

_real: dict[str, Any] = {
    "lock": threading.Lock,
    "rlock": threading.RLock,
    "start": threading.Thread.start,
    "join": threading.Thread.join,
    "is_alive": threading.Thread.is_alive,
    "current_thread": threading.current_thread,
    "get_ident": threading.get_ident,
    "sleep": time.sleep,
    "getaddrinfo": socket.getaddrinfo,
    "queue": queue.SimpleQueue,
    "new_event_loop": events.new_event_loop,
    "set_event_loop": events.set_event_loop,
}


def _lock() -> Any:
    return _real["lock"]() if _loop is None else SimLock()


def _rlock() -> Any:
    return _real["rlock"]() if _loop is None else threading._PyRLock()  # type: ignore[attr-defined]


def _queue() -> Any:
    return _real["queue"]() if _loop is None else SimQueue()


def _get_ident() -> int:
    return int(_real["get_ident"]()) if _loop is None else IDENTS + _loop.current.number


def _current_thread() -> threading.Thread:
    if _loop is None or _loop.current.thread is None:
        thread: threading.Thread = _real["current_thread"]()
    else:
        thread = _loop.current.thread
    return thread


def _sleep(seconds: float) -> None:
    if _loop is None:
        _real["sleep"](seconds)
        return
    sleep(_loop, seconds)


# Threads.


def _start(thread: threading.Thread) -> None:
    loop = _loop
    if loop is None:
        _real["start"](thread)
        return
    if thread._started.is_set():  # type: ignore[attr-defined]
        raise RuntimeError("threads can only be started once")
    process = loop.current.process
    give_globals(process)
    host = loop.add_host(f"{process.name}/{thread.name}", parent=process)
    set_thread(host, thread)
    loop.on(host, _run_thread, loop, host, thread)
    if loop.interrupts():
        give_way(loop)


def _run_thread(loop: SimLoop, host: Host, thread: threading.Thread) -> None:
    try:
        run_plain(loop, host, thread.run)
    except (GreenletExit, SystemExit):
        pass
    except BaseException as exc:
        loop.call_exception_handler({"message": f"unhandled exception in the thread {thread.name}", "exception": exc})
    finally:
        if not loop.burying:
            thread.__dict__["_sim"].end()
            loop.remove_host(host)


def _join(thread: threading.Thread, timeout: float | None = None) -> None:
    life = thread.__dict__.get("_sim")
    if life is None and (_loop is None or not thread._started.is_set()):  # type: ignore[attr-defined]
        _real["join"](thread, timeout)
        return
    if life is None or life.host is now().current:
        raise RuntimeError("cannot join current thread")
    if not life.over:
        parked = Parked(now())
        life.joining.append(parked)
        if not parked.wait(None if timeout is None else max(timeout, 0.0)):
            life.joining.remove(parked)


def _is_alive(thread: threading.Thread) -> bool:
    life = thread.__dict__.get("_sim")
    return bool(_real["is_alive"](thread)) if life is None else not life.over


# Loops in threads.


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = _real["new_event_loop"]() if _loop is None else ThreadLoop(_loop)
    return loop


def _set_event_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    if _loop is None:
        _real["set_event_loop"](loop)


def _lookup_loop(lookups: Any) -> ThreadLoop:
    return LookupLoop(now(), lookups)


class LookupLoop(ThreadLoop):
    """In the place of prpc.client.lookups.LookupLoop, whose look-ups it has."""

    def __init__(self, sim: SimLoop, lookups: Any) -> None:
        super().__init__(sim)
        self._lookups = lookups

    getaddrinfo = lookups.LookupLoop.getaddrinfo  # type: ignore[assignment]


def _getaddrinfo(host: Any, port: Any, *args: Any) -> list[Any]:
    """One name has an address, and one is looked for for long."""
    if _loop is None:
        found: list[Any] = _real["getaddrinfo"](host, port, *args)
        return found
    sleep(_loop, 3.0 if host == "slow" else 0.05)
    if host != "broker":
        raise socket.gaierror(f"nobody knows {host}")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]


# The walls.


def patches(monotonic: Callable[[], float]) -> list[tuple[Any, str, Any]]:
    """What has to be put where, for the time in which runs are made: (module or class, name, value)."""
    import prpc.client.channel
    import prpc.client.portal
    import prpc.workers.thread

    return [
        (threading, "Lock", _lock),
        (threading, "_allocate_lock", _lock),
        (threading, "RLock", _rlock),
        (threading, "_time", monotonic),
        (threading, "current_thread", _current_thread),
        (threading, "get_ident", _get_ident),
        (threading.Thread, "start", _start),
        (threading.Thread, "join", _join),
        (threading.Thread, "is_alive", _is_alive),
        (queue, "SimpleQueue", _queue),
        (queue, "time", monotonic),
        (prpc.workers.thread, "SimpleQueue", _queue),
        (prpc.client.portal, "LookupLoop", _lookup_loop),
        (socket, "getaddrinfo", _getaddrinfo),
        (time, "sleep", _sleep),
        (events, "new_event_loop", _new_event_loop),
        (events, "set_event_loop", _set_event_loop),
        (asyncio, "new_event_loop", _new_event_loop),
        (asyncio, "set_event_loop", _set_event_loop),
        (atexit, "register", register),
        (atexit, "unregister", unregister),
    ]


@contextmanager
def entered(loop: SimLoop) -> Iterator[None]:
    """One run: threads are this loop's."""
    global _loop
    _loop = loop
    set_loop(loop)
    loop.load = Globals().load
    try:
        yield
    finally:
        try:
            bury(loop)
        finally:
            loop._load(None)
            _loop = None
            set_loop(None)
