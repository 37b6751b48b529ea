"""A server that has its process to itself: the loop that it runs in, its signals, and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from prpc.exceptions import ConfigurationError
from prpc.server.service import Service
from prpc.settings import Settings

__all__ = ["ended_by_signals", "freeze", "run_alone"]

T = TypeVar("T")

#: Thresholds of the garbage collector's youngest generation that Python sets itself (until 3.12, and later), and a server's own.
PYTHONS_THRESHOLDS, OBJECTS_UNTIL_A_LOOK = (700, 2000), 10_000


def run_alone(work: Callable[[], Coroutine[Any, Any, T]], settings: Settings) -> T:
    """`asyncio.run` in the kind of loop that PRPC_EVENT_LOOP names. Raises ConfigurationError where it is not installed."""
    with asyncio.Runner(loop_factory=_loop_factory(settings.event_loop)) as runner:
        return runner.run(work())


def _loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """None for what the process's policy makes."""
    if kind == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if kind == "auto":
            return None
        text = "PRPC_EVENT_LOOP='uvloop' cannot be used: uvloop is not installed (pip install 'prpc[uvloop]')"
        raise ConfigurationError(text, variable="PRPC_EVENT_LOOP", value=kind) from None
    return uvloop.new_event_loop


def freeze() -> None:
    """What exists when the server is ready stays for ever: the garbage collector need not look at it again.

    Calls make and drop many objects, hardly ever in circles: it looks less often where nobody set how often it does.
    """
    gc.collect()
    gc.freeze()
    first, *rest = gc.get_threshold()
    if first in PYTHONS_THRESHOLDS:
        gc.set_threshold(OBJECTS_UNTIL_A_LOOK, *rest)


@contextmanager
def ended_by_signals(loop: asyncio.AbstractEventLoop, service: Service) -> Iterator[None]:
    """SIGTERM and SIGINT stop the service; a second one ends the process at once, even while the loop is blocked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        loop.call_soon_threadsafe(service.request_stop)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
