"""An event loop for many simulated processes: a seeded order, virtual time, and no way out.

Every simulated process is a `Host` with its own queue, clock and life. The seed picks which host runs next; inside a host the
order is FIFO, as asyncio documents for `call_soon`. Time stands still while anything is ready and then jumps to the next timer.
The host of a callback stands in its context, so that tasks inherit it from what made them.

Code of a host may stand still in the middle (tests/sim/parked.py): the stack that it stands on was the one that runs the loop,
and another one takes the loop over.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from tests.sim.hosts import HOST, Host

__all__ = ["Deadlock", "Livelock", "SimLoop", "SimulationFenceError"]

T = TypeVar("T")

#: Most steps of one run; what takes more turns in a circle.
MAX_STEPS = 400_000
#: Seconds by which a timer is late, more than what rounding makes.
HAIR = 1e-9
#: Most steps in which time does not move.
MAX_STEPS_AT_ONCE = 60_000


class SimulationFenceError(BaseException):
    """Something in the simulation reached for the real world: a socket, a thread, a process, the real time."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set, but the run has not ended."""


class Livelock(Exception):
    """The run goes on and on without an end, or without time."""


class SimHandle:
    """What asyncio.Handle is: a callback that waits for its turn. Smaller, as a large part of a run is making them."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_loop")

    def __init__(self, loop: SimLoop, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._loop, self._callback, self._args, self._context, self._cancelled = loop, callback, args, context, False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()

    def cancelled(self) -> bool:
        return self._cancelled

    def _run(self) -> None:
        try:
            self._context.run(self._callback, *self._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._loop.call_exception_handler({"message": f"exception in {self!r}", "exception": exc, "handle": self})

    def __repr__(self) -> str:
        return f"<{self._callback!r}>"


class SimTimer(SimHandle):
    """What asyncio.TimerHandle is. `_when`: on its host's clock."""

    __slots__ = ("_when",)
    _when: float

    def when(self) -> float:
        return self._when


def _nothing() -> None:
    """Of a handle that was cancelled."""


class SimLoop(base_events.BaseEventLoop):
    """See the module. `order` draws which host runs; `demotions`: steps at which what runs becomes the last (PCT)."""

    def __init__(self, order: Random, demotions: frozenset[int] | None = None) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        #: Hash over moment and host of every step: two runs that have the same one were the same.
        self.trace = 0
        self.errors: list[dict[str, Any]] = []
        self.hosts: list[Host] = []
        self._order, self._demotions = order, demotions
        self._numbers = itertools.count()
        self._busy: list[Host] = []
        self._timers: list[tuple[float, int, Any, Host]] = []
        self._graveyard: list[Any] = []
        self._since = 0
        self._main: asyncio.Task[Any] | None = None
        #: The stack that runs the loop, those that did and may do it again, and the one beneath them all.
        self._hub: Any = None
        self._spare: list[Any] = []
        self._bottom: Any = None
        #: Where the code of a host stands still (tests/sim/parked.py).
        self.parked: dict[Host, Any] = {}
        #: True while what stands still is thrown away.
        self.burying = False
        #: How likely a thread is interrupted where it takes or gives a lock, and the like.
        self.preempt = 0.1
        self.load: Callable[[dict[Any, Any] | None], None] = lambda own: None
        self._own: dict[Any, Any] | None = None
        self._numbered = itertools.count()
        #: Tasks and their hosts, where they are watched.
        self._tasks: list[tuple[asyncio.Task[Any], Host]] = []
        self.root = self.add_host("world")
        #: Whose code runs now.
        self.current = self.root
        self.set_exception_handler(lambda _, context: self.record(context))

    def record(self, context: dict[str, Any]) -> None:
        """An error that nobody else has."""
        if not self.burying:
            self.errors.append({**context, "host": self.current.name})

    def interrupts(self) -> bool:
        """Whether the seed has the thread interrupted here that runs now."""
        return self.current.own is not None and self._hub is not None and self._order.random() < self.preempt

    # hosts

    def add_host(self, name: str, parent: Host | None = None, **clock: float) -> Host:
        """A further process; with `parent` a part of one, on its clock."""
        if parent is not None:
            clock = {"offset": parent.offset, "rate": parent.rate, "wall": parent.wall}
        host = Host(name, next(self._numbered), parent, **clock)
        if parent is not None:
            parent.parts.append(host)
            host.alive, host.globals, host.own = parent.alive, parent.globals, parent.own
        if self._demotions is not None:
            host.priority = self._order.random()
        self.hosts.append(host)
        return host

    def remove_host(self, host: Host) -> None:
        """A part that has ended by itself."""
        for part in host.parts:
            self.kill(part)
        self.kill(host)
        if host in host.process.parts:
            host.process.parts.remove(host)
        self.hosts.remove(host)

    def spawn(self, host: Host, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """A task of this host."""
        return self.create_task(work, name=name or f"{host.name} main", context=host.context.copy())

    def on(self, host: Host, function: Callable[..., object], *args: Any) -> None:
        """Call a function in this host, soon."""
        self._push(host, SimHandle(self, function, args, host.context.copy()))

    def at(self, host: Host, when: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function in this host at this true time, soon where it has come."""
        handle = SimHandle(self, function, args, host.context.copy())
        if when <= self.now:
            self._push(host, handle)
        else:
            heapq.heappush(self._timers, (when, next(self._numbers), handle, host))

    def pause(self, host: Host, parts: bool = True) -> None:
        """SIGSTOP: it runs nothing, and its timers wait for it. May be nested. Without `parts` only its loop stands still."""
        host.paused += 1
        if host.paused == 1 and host in self._busy:
            self._busy.remove(host)
        for part in host.parts if parts else ():
            self.pause(part)

    def resume(self, host: Host, parts: bool = True) -> None:
        """Take back one `pause`."""
        host.paused -= 1
        if host.paused == 0 and host.queue and host.alive:
            self._busy.append(host)
        for part in host.parts if parts else ():
            if part.paused:  # it may have come since
                self.resume(part)

    def kill(self, host: Host) -> None:
        """SIGKILL: nothing is cancelled, no `finally` runs. What it held is kept, or collecting it would run them."""
        if host.alive and host.queue and not host.paused:
            self._busy.remove(host)
        host.alive = False
        self._graveyard.append(host.queue)
        host.queue = deque()
        for part in host.parts:
            self.kill(part)

    # asyncio's face

    def time(self) -> float:
        """The clock of the host that runs."""
        host = self.current
        return host.offset + self.now * host.rate

    def _place(self, context: Context | None) -> tuple[Context, Host]:
        if context is None:
            context = copy_context()
        host = context.get(HOST)
        if host is None:  # a fresh context, of work that shall not inherit anything else
            host = self.current
            context.run(HOST.set, host)
        return context, host

    def watch(self) -> None:
        """From now on the dump knows the tasks, which costs time."""
        tasks = self._tasks = []

        def create_task(coro: Any, **more: Any) -> asyncio.Task[Any]:
            task, context = base_events.BaseEventLoop.create_task(self, coro, **more), more.get("context")
            tasks.append((task, self.current if context is None else context.get(HOST, self.current)))
            return task

        self.create_task = create_task  # type: ignore[method-assign,assignment]

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> events.Handle:  # type: ignore[override]
        if self.current.plain:
            raise SimulationFenceError(f"call_soon({callback!r}) by a thread ({self.current}) that the loop is not in")
        host = None if context is None else context.get(HOST)
        if host is None:
            context, host = self._place(context)
        assert context is not None
        handle = SimHandle(self, callback, args, context)
        if host.queue:  # the short way of `_push`
            host.queue.append(handle)
        else:
            self._push(host, handle)
        return handle  # type: ignore[return-value]

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> events.Handle:
        if not self.current.plain:
            return self.call_soon(callback, *args, context=context)
        if context is None:
            context = copy_context()
            context.run(HOST.set, self.current.process)
        context, host = self._place(context)
        handle = SimHandle(self, callback, args, context)
        self._push(host, handle)
        return handle  # type: ignore[return-value]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        context, host = self._place(context)
        return self._set(context, host, when, callback, args)

    def _set(
        self, context: Context, host: Host, when: float, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> events.TimerHandle:
        timer = SimTimer(self, callback, args, context)
        timer._when = when
        # Never a hair before its moment: where time stands still, who looks at the clock would wait for ever.
        at = max(self.now, (when - host.offset) / host.rate + HAIR)
        heapq.heappush(self._timers, (at, next(self._numbers), timer, host))
        return timer  # type: ignore[return-value]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        context, host = self._place(context)
        return self._set(context, host, host.monotonic(self.now) + delay, callback, args)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        raise SimulationFenceError(f"run_in_executor({func!r}) in the simulation")

    def _push(self, host: Host, handle: Any) -> None:
        if not host.alive:
            self._graveyard.append(handle)
            return
        if not host.queue and not host.paused:
            self._busy.append(host)
        host.queue.append(handle)

    # running

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run until this coroutine of the root host ends; raises Deadlock and Livelock."""
        main = self._main = self.spawn(self.root, work, "world")
        old = events._get_running_loop()
        events._set_running_loop(self)
        self._thread_id = 1  # what `is_running` looks at
        self._bottom = getcurrent()
        self._hub = greenlet(self._go, self._bottom)
        try:
            self._hub.switch()
        finally:
            self._thread_id = self._hub = None
            self._load(None)
            self.current = self.root
            events._set_running_loop(old)
        return main.result()

    def _go(self) -> None:
        main, busy, timers, me, pop = self._main, self._busy, self._timers, self._hub, heapq.heappop
        assert main is not None
        while not main.done():
            while timers and (not busy or timers[0][0] <= self.now):
                at, _, timer, host = pop(timers)
                if timer._cancelled or not host.alive:
                    continue
                if at > self.now:
                    self.now, self._since = at, self.steps
                self._push(host, timer)
            if not busy:
                raise Deadlock(f"nothing will ever happen any more, at {self.now:.3f} s")
            host = busy[0] if len(busy) == 1 else self._next(busy)
            handle = host.queue.popleft()
            if not host.queue:
                busy.remove(host)
            if handle._cancelled:
                continue
            self.steps += 1
            if self.steps > MAX_STEPS or self.steps - self._since > MAX_STEPS_AT_ONCE:
                raise Livelock(f"{self.steps} steps, {self.steps - self._since} of them at {self.now:.3f} s: {handle!r}")
            self.trace = hash((self.trace, self.now, host.number))
            self.current = host
            if host.own is not self._own:
                self._load(host.own)
            if host.hold is None or not isinstance(handle, SimHandle):
                handle._run()
            else:
                host.hold(handle)
            if self._hub is not me:
                self._step_aside(me)
            self.current = self.root

    def _load(self, own: dict[Any, Any] | None) -> None:
        self.load(own)
        self._own = own

    # stacks

    def hand_over(self, stack: Any) -> None:
        """Leave this stack, which runs code of a host, to be switched to later, and go on with the loop."""
        if self._hub is stack:
            self._hub = self._spare.pop() if self._spare else greenlet(self._go, self._bottom)
        events._set_running_loop(self)
        self._hub.switch()

    def _step_aside(self, me: Any) -> None:
        """What ran here stood still meanwhile and has ended now; another stack has the loop."""
        if self.burying:
            raise GreenletExit
        self._spare.append(me)
        self._hub.switch()

    def wake_at(self, host: Host, when: float, timer: Any) -> None:
        """Have `timer` run in this host when its clock says `when`."""
        at = max(self.now, (when - host.offset) / host.rate)
        # What rounding left of a wait is a hair: where time stood still, who waits for the rest would do so for ever.
        at = at if at >= self.now + HAIR else self.now + HAIR
        heapq.heappush(self._timers, (at, next(self._numbers), timer, host))

    def _next(self, busy: list[Host]) -> Host:
        if self._demotions is None:
            return busy[int(self._order.random() * len(busy))]
        host = max(busy, key=lambda each: each.priority)
        if self.steps in self._demotions:
            host.priority = -self.steps
        return host

    def dump(self) -> str:
        """What every host waits for."""
        lines = []
        for host in self.hosts:
            state = "dead" if not host.alive else "paused" if host.paused else "alive"
            lines.append(f"{host.name} ({state}, {len(host.queue)} ready):")
            if host in self.parked:
                lines.append(f"    stands still: {self.parked[host].where()}")
            for task, where in self._tasks:
                if where is host and not task.done():
                    lines.append(_task_line(task))
            for task in sorted(asyncio.all_tasks(host.loop), key=lambda task: task.get_name()) if host.loop is not None else ():
                lines.append(_task_line(task))
        return "\n".join(lines)


def _task_line(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=2)
    return f"    {task.get_name()}: {', '.join(f'{frame.f_code.co_name}:{frame.f_lineno}' for frame in frames)}"
