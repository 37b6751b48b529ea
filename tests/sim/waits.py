"""What threads wait for in the simulation: locks, queues, a while. In place of `threading`'s and `queue`'s."""

from __future__ import annotations

import queue
from asyncio import events
from collections import deque
from typing import Any

from tests.sim.loop import SimLoop, SimulationFenceError
from tests.sim.parked import Parked, give_way

__all__ = ["SimLock", "SimQueue", "now", "set_loop", "sleep", "the_loop"]

#: The loop of the run that is on.
_loop: SimLoop | None = None


def set_loop(loop: SimLoop | None) -> None:
    """A run begins or ends."""
    global _loop
    _loop = loop


def the_loop() -> SimLoop | None:
    """The loop of the run that is on, if one is."""
    return _loop


def now() -> SimLoop:
    """The same; raises SimulationFenceError where none is on."""
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
        loop = now()
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
        loop = now()
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


def sleep(loop: SimLoop, seconds: float) -> None:
    """time.sleep, in threads alone."""
    if not loop.current.plain or events._get_running_loop() is not None:
        raise SimulationFenceError(f"time.sleep({seconds}) in a coroutine")
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    Parked(loop).wait(seconds)
