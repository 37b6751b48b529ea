"""The loop that a simulated thread or a plain program runs for itself (`asyncio.run`, the plain client's background loop)."""

from __future__ import annotations

from asyncio import base_events, events
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from tests.sim.hosts import HOST
from tests.sim.loop import HAIR, SimLoop, SimulationFenceError
from tests.sim.parked import Parked, give_way

__all__ = ["ThreadLoop"]


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
            # Timers come a hair late: asyncio runs them as early as its clock is coarse, and who looks at the time would wait on.
            self._asleep.wait(None if timeout is None else timeout + HAIR)
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
            raise SimulationFenceError(
                f"{callback!r} put into the loop of {self.host} by {self._sim.current}, as if it was its own"
            )

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        raise SimulationFenceError(f"run_in_executor({func!r}) in the simulation")
