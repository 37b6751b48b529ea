"""The one background loop behind the sync face: a thread per process, made on first use, closed with a flush at exit.

Fork: a child gets a thread of its own on its first use, the parent's goes on undisturbed. What the child inherited (sockets,
the loop) is neither used nor closed there, only kept: closing it could say goodbye on the parent's connections.
"""

from __future__ import annotations

import asyncio
import atexit

# Drivers import it, and it cannot be imported first once the main thread has ended.
import concurrent.futures.thread  # noqa: F401
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from prpc.client.lookups import LookupLoop, Lookups

__all__ = [
    "Crossing",
    "Forkable",
    "LoopBound",
    "Portal",
    "current_portal",
    "guard",
    "running_loop",
    "stop_portal",
    "survive_fork",
]

T = TypeVar("T")

#: Seconds that stopping waits for the thread, at most; its pumps bound their own flush below that.
STOP_TIMEOUT = 30.0


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Crossing:
    """Work handed to a loop from any thread, in order: a deque, and at most one wake-up under way.

    `call_soon_threadsafe` for each item would write to the loop's self-pipe each time, which is most of its cost.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._items: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._awake = False

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        """Have the loop call `function(argument)`. Raises RuntimeError where the loop is closed."""
        self._items.append((function, argument))
        if not self._awake:
            self._awake = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._awake = False
                raise

    def _drain(self) -> None:
        # First the flag, then the items: whoever appends after the last look sees the flag down and wakes us again.
        self._awake = False
        items = self._items
        while items:
            function, argument = items.popleft()
            function(argument)


class Forkable:
    """Something that belongs to one process: in a forked child it is left alone."""

    #: True in a child that got it by fork.
    inherited = False


class LoopBound(Forkable):
    """Something whose outcomes come in one loop: says who may wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def check_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise RuntimeError where no outcome can come to a waiter in `loop`, the running one."""
        if loop is self.loop:
            self._check_process()
        else:
            self.check_sync_wait()

    def check_sync_wait(self) -> None:
        """Raise RuntimeError where blocking this thread would wait for ever."""
        self._check_process()
        if running_loop() is self.loop:
            raise RuntimeError(
                "a sync wait inside the running event loop that receives the result would never end: "
                "use `await task` or `await task.async_wait_result_task(timeout)`"
            )
        if not self.loop.is_running():
            raise RuntimeError("the event loop in which this call was made does not run now, so nobody can receive its result")

    def _check_process(self) -> None:
        if self.inherited:
            raise RuntimeError("this call was made before the process was forked; its outcome goes to the parent process")


_guard = threading.RLock()
_lookups = Lookups()
_portal: Portal | None = None
_ours: WeakSet[Forkable] = WeakSet()
_inherited: list[object] = []
_fork_hook = False


def guard() -> threading.RLock:
    """The lock under which what is per process is made; a fork waits for it."""
    return _guard


def survive_fork(thing: Forkable) -> None:
    """Mark `thing` as inherited in every child forked from now on."""
    with _guard:
        _ours.add(thing)
        _watch_forks()


def _watch_forks() -> None:
    global _fork_hook
    if not _fork_hook and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
        _fork_hook = True


def _before_fork() -> None:
    # Held over the fork, so that the child never finds it taken by a thread that it does not have.
    _guard.acquire()
    _lookups.hold()


def _after_fork() -> None:
    _lookups.go_on()
    _guard.release()


def _in_child() -> None:
    global _portal
    for thing in list(_ours):
        thing.inherited = True
        _inherited.append(thing)
    _ours.clear()
    if _portal is not None:
        _inherited.append(_portal)
        _portal = None
    _lookups.forget()
    _after_fork()


class Portal:
    """A loop in a daemon thread."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="prpc-client", daemon=True)
        # An empty context: the thread outlives the call that happened to start it.
        Context().run(self._thread.start)
        self.loop = started.result()

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        # The runner ends by cancelling the pumps, and they end by flushing and closing.
        with asyncio.Runner(loop_factory=partial(LookupLoop, _lookups)) as runner:
            runner.run(self._stay(started))

    async def _stay(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._stopping = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it here."""
        if running_loop() is self.loop:
            work.close()
            raise RuntimeError("plain code cannot wait inside PRPC's own loop; use the async face there")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Flush, close what lives in the loop, end the thread."""
        self.loop.call_soon_threadsafe(self._stopping.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_TIMEOUT)


def current_portal() -> Portal:
    """This process's portal, made on first use and again after `stop_portal`."""
    global _portal
    with _guard:
        if _portal is None:
            _watch_forks()
            _portal = Portal()
            _stop_at_exit()
        return _portal


def stop_portal() -> None:
    """Flush and end the background thread, if there is one; the next use makes another."""
    global _portal
    with _guard:
        portal, _portal = _portal, None
    if portal is not None:
        portal.stop()


def _stop_at_exit() -> None:
    atexit.unregister(stop_portal)
    atexit.register(stop_portal)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        # A child of multiprocessing leaves by os._exit, which knows its finalizers but no atexit.
        from multiprocessing.util import Finalize

        Finalize(None, stop_portal, exitpriority=10)
