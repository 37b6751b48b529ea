"""Standing still: code of a host that waits in the middle, while the other hosts, and the parts of its own, go on.

Any code may do it, a thread's or a callback of the loop: the stack it stands on is put aside (a greenlet), and a stack of its own
goes on with the loop. What else was to run in the host waits until it is woken.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events, tasks
from collections import deque
from typing import Any

from greenlet import GreenletExit, getcurrent

from tests.sim.loop import SimLoop, SimulationFenceError

__all__ = ["Parked", "bury", "give_way"]

#: How often code that is thrown away may try to wait on: then it is kept as it stands.
PATIENCE = 100
#: What would not go.
_undead: list[Any] = []


class _Alarm:
    """The end of a wait for so many seconds."""

    __slots__ = ("_cancelled", "_parked")

    def __init__(self, parked: Parked) -> None:
        self._parked, self._cancelled = parked, False

    def _run(self) -> None:
        self._parked._resume()

    def cancel(self) -> None:
        self._cancelled = True


class Parked:
    """One wait of the host that runs; made before it is told to whoever is to wake it."""

    __slots__ = ("_cancelled", "_over", "_stack", "host", "loop", "woken")

    def __init__(self, loop: SimLoop) -> None:
        self.loop, self.host = loop, loop.current
        self.woken = self._over = self._cancelled = False
        self._stack: Any = None

    def wake(self) -> None:
        """From whatever host, once or more often."""
        if not self.woken and not self._over:
            self.woken = True
            self.loop._push(self.host, self)

    def wait(self, seconds: float | None = None) -> bool:
        """Stand still until woken, or for so many seconds of the host's clock: then False."""
        loop, host = self.loop, self.host
        if loop.burying:
            _go_away(loop)
        if loop._hub is None:
            raise SimulationFenceError("waits for ever: the simulation does not run")
        alarm = None
        if seconds is not None:
            alarm = _Alarm(self)
            loop.wake_at(host, host.monotonic(loop.now) + seconds, alarm)
        held: deque[Any] | None = None
        if host.hold is None:
            held = deque()
            host.hold = held.append
        try:
            self._leave()
        finally:
            if held is not None:
                host.hold = None
                _give_back(loop, host, held)
            if alarm is not None:
                alarm.cancel()
        return self.woken

    def _leave(self) -> None:
        """Off this stack and back, with what asyncio knows of it by thread."""
        loop = self.loop
        running = events._get_running_loop()
        task = asyncio.current_task(loop) if running is loop else None
        hooks = sys.get_asyncgen_hooks()
        if task is not None:
            tasks._leave_task(loop, task)
        sys.set_asyncgen_hooks(None, None)
        self._stack = getcurrent()
        loop.parked[self.host] = self
        try:
            loop.hand_over(self._stack)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            if task is not None:
                tasks._enter_task(loop, task)
            events._set_running_loop(running)

    def _run(self) -> None:
        self._resume()

    def _resume(self) -> None:
        """In the loop, on the host's turn."""
        if not self._over:
            self._over = True
            del self.loop.parked[self.host]
            self._stack.switch()

    def where(self) -> str:
        """The innermost places that are no machinery."""
        frame, places = self._stack.gr_frame, []
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(_LIBRARY) and not code.co_filename.endswith(_MACHINERY):
                places.append(f"{code.co_name}:{frame.f_lineno}")
            frame = frame.f_back
        return ", ".join(places[:3]) or "in its own loop"


_MACHINERY = tuple(f"/sim/{name}.py" for name in ("loop", "parked", "programs", "thread_loop", "threads", "waits"))
_LIBRARY = asyncio.__file__.rpartition("/asyncio/")[0] + "/"


def _give_back(loop: SimLoop, host: Any, held: deque[Any]) -> None:
    if held and host.alive:
        if not host.queue and not host.paused:
            loop._busy.append(host)
        host.queue.extendleft(reversed(held))


def give_way(loop: SimLoop) -> None:
    """Let others run, if the seed likes."""
    parked = Parked(loop)
    parked.wake()
    parked.wait()


def _go_away(loop: SimLoop) -> None:
    count = loop.root.globals["refused"] = loop.root.globals.get("refused", 0) + 1
    if count > PATIENCE:
        stack = getcurrent()
        _undead.append(stack)
        loop._bottom.switch()
    raise GreenletExit


def bury(loop: SimLoop) -> None:
    """After the run: end what stands still, as quietly as Python allows (its `finally` runs, and must not wait)."""
    loop.burying = True
    try:
        while loop.parked:
            host, parked = loop.parked.popitem()
            loop.current = host
            loop.root.globals["refused"] = 0
            for task in asyncio.all_tasks(host.loop or loop):
                if host.loop is not None:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
            _throw(loop, parked._stack)
        for stack in loop._spare:
            _throw(loop, stack)
        loop._spare.clear()
    finally:
        loop.current = loop.root
        loop.burying = False


def _throw(loop: SimLoop, stack: Any) -> None:
    running, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
    stack.parent = loop._bottom = getcurrent()
    try:
        stack.throw(GreenletExit)
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt):
            raise
    finally:
        events._set_running_loop(running)
        sys.set_asyncgen_hooks(*hooks)
