"""Simulated threads: what `threading`, `queue`, `time.sleep` and asyncio's runner do inside a run, without a real thread.

A thread is a part of its process's host and runs when the seed says so. It goes on until it waits, and where it takes or gives a
lock the seed may interrupt it (`SimLoop.preempt`). Locks made before the run go on as they are: nothing may wait for them.
"""

from __future__ import annotations

import asyncio
import atexit
import queue
import sys
import threading
import time
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from typing import Any

from greenlet import GreenletExit

from tests.sim.loop import HOST, Host, SimLoop, SimulationFenceError
from tests.sim.parked import Parked, bury, give_way

__all__ = ["ThreadLoop", "entered", "give_globals", "patches", "spawn_plain"]

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
    "queue": queue.SimpleQueue,
    "new_event_loop": events.new_event_loop,
    "set_event_loop": events.set_event_loop,
    "register": atexit.register,
    "unregister": atexit.unregister,
}
#: Idents of threads begin here.
_IDENTS = 1_000_000


def _now() -> SimLoop:
    if _loop is None:
        raise SimulationFenceError("waits for ever: what it waits for belongs to a run that is over")
    return _loop


class SimLock:
    """threading.Lock."""

    __slots__ = ("__weakref__", "_locked", "_waiters")

    def __init__(self) -> None:
        self._locked = False
        self._waiters: deque[Parked] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if timeout != -1 and (timeout < 0 or not blocking):
            raise ValueError("a timeout must be positive, and is for a lock that is waited for")
        if _loop is not None and _loop.interrupts():
            give_way(_loop)
        if not self._locked:
            self._locked = True
            return True
        return blocking and timeout != 0 and self._wait(timeout)

    def _wait(self, timeout: float) -> bool:
        loop = _now()
        until = None if timeout < 0 else loop.time() + timeout
        first = False
        while self._locked:
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                return False
            parked = Parked(loop)
            # Whoever was woken and came too late keeps his place.
            self._waiters.appendleft(parked) if first else self._waiters.append(parked)
            first = parked.wait(left)
            if not first and parked in self._waiters:
                self._waiters.remove(parked)
        self._locked = True
        return True

    def release(self) -> None:
        if not self._locked:
            if _loop is not None and _loop.burying:
                return
            raise RuntimeError("release unlocked lock")
        self._locked = False
        if self._waiters:
            self._waiters.popleft().wake()
        if _loop is not None and _loop.interrupts():
            give_way(_loop)

    def locked(self) -> bool:
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._locked = False


class SimQueue:
    """queue.SimpleQueue."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: deque[Parked] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._items.append(item)
        if self._waiters:
            self._waiters.popleft().wake()
        if _loop is not None and _loop.interrupts():
            give_way(_loop)

    put_nowait = put

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and not self._items:
            self._wait(timeout)
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def _wait(self, timeout: float | None) -> None:
        loop = _now()
        until = None if timeout is None else loop.time() + timeout
        while not self._items:
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                return
            parked = Parked(loop)
            self._waiters.append(parked)
            if not parked.wait(left) and parked in self._waiters:
                self._waiters.remove(parked)

    def get_nowait(self) -> Any:
        return self.get(False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


def _lock() -> Any:
    return _real["lock"]() if _loop is None else SimLock()


def _rlock() -> Any:
    return _real["rlock"]() if _loop is None else threading._PyRLock()  # type: ignore[attr-defined]


def _queue() -> Any:
    return _real["queue"]() if _loop is None else SimQueue()


def _get_ident() -> int:
    return int(_real["get_ident"]()) if _loop is None else _IDENTS + _loop.current.number


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
    if not _loop.current.plain or events._get_running_loop() is not None:
        raise SimulationFenceError(f"time.sleep({seconds}) in a coroutine")
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    Parked(_loop).wait(seconds)


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
    _make_thread_of(host, thread)
    loop.on(host, _run_thread, loop, host, thread)
    if loop.interrupts():
        give_way(loop)


def _make_thread_of(host: Host, thread: threading.Thread) -> None:
    host.thread = thread
    thread.__dict__["_sim"] = _Life(host)
    thread._ident = _IDENTS + host.number  # type: ignore[attr-defined]
    thread._started.set()  # type: ignore[attr-defined]


class _Life:
    """Of a thread, for those who join it."""

    def __init__(self, host: Host) -> None:
        self.host, self.over = host, False
        self.joining: list[Parked] = []

    def end(self) -> None:
        self.over = True
        joining, self.joining = self.joining, []
        for parked in joining:
            parked.wake()


def _run_thread(loop: SimLoop, host: Host, thread: threading.Thread) -> None:
    try:
        _run_plain(loop, host, thread.run)
    except (GreenletExit, SystemExit):
        pass
    except BaseException as exc:
        loop.call_exception_handler({"message": f"unhandled exception in the thread {thread.name}", "exception": exc})
    finally:
        if not loop.burying:
            thread.__dict__["_sim"].end()
            loop.remove_host(host)


def _run_plain(loop: SimLoop, host: Host, function: Callable[..., Any], *args: Any) -> Any:
    """Where no loop runs."""
    events._set_running_loop(None)
    host.plain = True
    try:
        return function(*args)
    finally:
        host.plain = False
        events._set_running_loop(loop)


def _join(thread: threading.Thread, timeout: float | None = None) -> None:
    life = thread.__dict__.get("_sim")
    if life is None and (_loop is None or not thread._started.is_set()):  # type: ignore[attr-defined]
        _real["join"](thread, timeout)
        return
    if life is None or life.host is _now().current:
        raise RuntimeError("cannot join current thread")
    if not life.over:
        parked = Parked(_now())
        life.joining.append(parked)
        if not parked.wait(None if timeout is None else max(timeout, 0.0)):
            life.joining.remove(parked)


def _is_alive(thread: threading.Thread) -> bool:
    life = thread.__dict__.get("_sim")
    return bool(_real["is_alive"](thread)) if life is None else not life.over


# Loops in threads.


class ThreadLoop(base_events.BaseEventLoop):
    """The loop that a thread or a plain program runs for itself: asyncio's own, which sleeps in the simulation."""

    def __init__(self, sim: SimLoop) -> None:
        super().__init__()
        self._sim, self.host = sim, sim.current
        self._selector = self
        self._asleep: Parked | None = None
        self._roused = False
        self.set_exception_handler(lambda _, context: sim.record(context))

    def time(self) -> float:
        return self.host.monotonic(self._sim.now)

    def run_forever(self) -> None:
        host = self.host
        host.hold, host.loop = self._accept, self
        try:
            super().run_forever()
        finally:
            host.hold = host.loop = None

    def _accept(self, handle: events.Handle) -> None:
        self._ready.append(handle)  # type: ignore[attr-defined]
        self._write_to_self()

    def select(self, timeout: float | None) -> tuple[()]:
        """One turn of the host, or until something comes."""
        if self._roused or (timeout is not None and timeout <= 0):
            give_way(self._sim)
        else:
            self._asleep = Parked(self._sim)
            self._asleep.wait(timeout)
            self._asleep = None
        self._roused = False
        return ()

    def _process_events(self, _: Any) -> None:
        """All that comes is in `_ready`."""

    def _write_to_self(self) -> None:
        if self._asleep is not None:
            self._asleep.wake()
        else:
            self._roused = True

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> events.Handle:
        handle: events.Handle = super()._call_soon(callback, args, self._place(context))  # type: ignore[misc]
        return handle

    def _place(self, context: Context | None) -> Context:
        if context is None:
            context = copy_context()
            context.run(HOST.set, self.host)
        elif context.get(HOST) is not self.host:
            with suppress(RuntimeError):  # it is the one that runs, and has been here before
                context.run(HOST.set, self.host)
        return context

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> events.Handle:  # type: ignore[override]
        self._check_host(callback)
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> events.Handle:  # type: ignore[override]
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        if self._sim.current is not self.host and self._sim.interrupts():
            give_way(self._sim)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> events.TimerHandle:  # type: ignore[override]
        self._check_host(callback)
        return super().call_at(when, callback, *args, context=self._place(context))

    def _check_host(self, callback: Any) -> None:
        if self._sim.current is not self.host and not self._sim.burying:
            raise SimulationFenceError(f"{callback!r} put into the loop of {self.host} by {self._sim.current}, as if it was its own")

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        raise SimulationFenceError(f"run_in_executor({func!r}) in the simulation")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = _real["new_event_loop"]() if _loop is None else ThreadLoop(_loop)
    return loop


def _set_event_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    if _loop is None:
        _real["set_event_loop"](loop)


def _lookup_loop(lookups: Any) -> ThreadLoop:
    return ThreadLoop(_now())


# Processes.


def _register(function: Any, *args: Any, **kwargs: Any) -> Any:
    if _loop is None:
        return _real["register"](function, *args, **kwargs)
    _loop.current.process.globals.setdefault("atexit", []).append((function, args, kwargs))
    return function


def _unregister(function: Any) -> None:
    if _loop is None:
        _real["unregister"](function)
        return
    left = _loop.current.process.globals.get("atexit", [])
    left[:] = [each for each in left if each[0] != function]


def spawn_plain(loop: SimLoop, host: Host, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """A process whose program is this plain function. The future gets what it returns or raises, after its exit.

    At its end it does what an interpreter does: `atexit`, and threads that are daemons end. The host must have no coroutines of
    `loop`; `asyncio.run` works as usual.
    """
    give_globals(host)
    done = loop.create_future()
    thread = threading.Thread(name="MainThread", daemon=False)
    _make_thread_of(host, thread)
    loop.on(host, _run_program, loop, host, done, function, args)
    return done


def _run_program(loop: SimLoop, host: Host, done: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    value, error = None, None
    try:
        value = _run_plain(loop, host, _to_exit, loop, host, function, args)
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
    ("prpc.client.portal", "_guard"): _rlock,
    ("prpc.client.portal", "_lookups"): _lookups,
    ("prpc.client.channel", "_default"): lambda: None,
}


class _Globals:
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
        (time, "sleep", _sleep),
        (events, "new_event_loop", _new_event_loop),
        (events, "set_event_loop", _set_event_loop),
        (asyncio, "new_event_loop", _new_event_loop),
        (asyncio, "set_event_loop", _set_event_loop),
        (atexit, "register", _register),
        (atexit, "unregister", _unregister),
    ]


@contextmanager
def entered(loop: SimLoop) -> Iterator[None]:
    """One run: threads are this loop's."""
    global _loop
    _loop, before = loop, _loop
    loop.load = _Globals().load
    try:
        yield
    finally:
        try:
            bury(loop)
        finally:
            loop._load(None)
            _loop = before
