"""Simulated processes, as the loop sees them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

__all__ = ["HOST", "Host", "host_here"]


class Host:
    """One simulated process, or what a process has beside its loop: workers, threads."""

    def __init__(
        self, name: str, number: int, parent: Host | None = None, *, offset: float = 0.0, rate: float = 1.0, wall: float = 0.0
    ) -> None:
        """`offset`, `rate`: of its monotonic clock against the true time. `wall`: seconds that its date is wrong by."""
        self.name, self.number = name, number
        #: What it is a part of.
        self.process: Host = self if parent is None else parent.process
        self.queue: deque[Any] = deque()
        self.alive, self.paused = True, 0
        self.offset, self.rate, self.wall = offset, rate, wall
        #: What dies and stands still with it.
        self.parts: list[Host] = []
        #: For the policy of priorities.
        self.priority = 0.0
        #: Whatever belongs to the process alone.
        self.globals: dict[str, Any] = {}
        #: What takes its callbacks while its code stands still or runs a loop of its own.
        self.hold: Callable[[Any], object] | None = None
        #: Values of module globals that are its own (tests/sim/threads.py).
        self.own: dict[Any, Any] | None = None
        #: Whether its code is plain code now, in a thread or a program without this loop.
        self.plain = False
        #: Its thread, and the loop that runs there.
        self.thread: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        #: A context in which nothing but the host is set, to copy from.
        self.context = Context()
        self.context.run(HOST.set, self)

    def monotonic(self, now: float) -> float:
        """Its clock at the true time `now`."""
        return self.offset + now * self.rate

    def __repr__(self) -> str:
        return self.name


HOST: ContextVar[Host] = ContextVar("host")


def host_here() -> Host:
    """The host whose code runs."""
    return HOST.get()
