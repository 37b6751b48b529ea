"""One reader of many calls, a thread or a coroutine, who sleeps until there is something to read."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from prpc.client.call import wake_future
from prpc.client.portal import running_loop

__all__ = ["OneReader", "moment_after"]


def moment_after(seconds: float | None) -> float | None:
    """The moment (of `time.monotonic`) in so many seconds; None is never."""
    return None if seconds is None else time.monotonic() + seconds


class OneReader(ABC):
    """Whoever changes what `_ready` says calls `_tell`, in any thread."""

    def __init__(self) -> None:
        self._wake: Callable[[], object] | None = None

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the reader need not sleep. Asked in any thread."""

    def _tell(self) -> None:
        # The reader sets `_wake` before it looks whether it is ready: whichever of us comes second sees the other.
        wake = self._wake
        if wake is not None and self._ready():
            wake()

    def _sleep(self, until: float | None) -> bool:
        """Block this thread until ready; False where the moment `until` came first."""
        lock = threading.Lock()
        lock.acquire()
        self._begin(partial(_release, lock))
        try:
            while not self._ready():
                left = -1 if until is None else min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
                if not lock.acquire(timeout=left):
                    return self._ready()
            return True
        finally:
            self._wake = None

    async def _sleep_async(self, until: float | None) -> bool:
        """The same in the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._begin(partial(_wake_reader, loop, future))
        timer = None if until is None else loop.call_later(max(until - time.monotonic(), 0.0), wake_future, future)
        try:
            if not self._ready():
                await future
            return self._ready()
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _begin(self, wake: Callable[[], object]) -> None:
        if self._wake is not None:
            raise RuntimeError("somebody else reads this already")
        self._wake = wake


def _release(lock: threading.Lock) -> None:
    try:
        lock.release()
    except RuntimeError:  # two tasks ended at once and both woke the reader
        return


def _wake_reader(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if running_loop() is loop:
        wake_future(future)
        return
    try:
        loop.call_soon_threadsafe(wake_future, future)
    except RuntimeError:  # the reader's loop was closed meanwhile
        return
