"""Middleware of the client's side: an onion around a call. Without any, calls do not pass through this module.

    async def trace(call: OutgoingCall, proceed: Proceed) -> Any:
        with tracer.span(call.function):
            return await proceed(dataclasses.replace(call, headers={**call.headers, "trace": "..."}))

The first middleware is the outermost. It may change the call, its result or its error, or answer without proceeding. It runs
in the loop that sends the call, for plain code PRPC's background loop: it must not block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prpc.client.call import Call
from prpc.client.client import CallPump
from prpc.codec import ReadReply
from prpc.exceptions import CallCancelledError
from prpc.protocol.pending import PendingCalls

__all__ = ["Layers", "Middleware", "OutgoingCall", "Proceed"]


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """A call on its way out. `dataclasses.replace` makes a changed one; the id and the deadline stay what they are."""

    message_id: UUID
    function: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, str]
    #: Seconds until its deadline; None without one.
    timeout: float | None


#: Sends the call and returns its result, or raises what ended it. At most once per call: one id is one run.
Proceed = Callable[[OutgoingCall], Awaitable[Any]]
Middleware = Callable[[OutgoingCall, Proceed], Awaitable[Any]]


class Layers:
    """Where calls with middleware live: a task each, around a call of the pump's own."""

    def __init__(self, pump: CallPump, middleware: Sequence[Middleware]) -> None:
        self.loop = pump.loop
        self.check_wait = pump.check_wait
        self.check_sync_wait = pump.check_sync_wait
        self.refresh = pump.refresh
        self.streams = pump.streams
        self.post = pump.post
        self._pump = pump
        self._middleware = tuple(middleware)
        self._calls: PendingCalls[Call] = PendingCalls()
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    def submit(self, call: Call, send: Callable[[OutgoingCall], Call]) -> None:
        """Start the middleware around `send`, from any thread, without waiting."""
        self._calls.add(call)
        context = copy_context()
        try:
            self._pump.post(lambda call: self._start(call, send, context), call)
        except RuntimeError:  # the loop was closed in this moment
            self._decide(call, self._pump.closed_error())

    def cancel(self, call: Call) -> bool:
        """Decide the call as cancelled and end its middleware, which cancels what it had sent."""
        if self._pump.inherited or self._calls.take(call.message_id) is None:
            return False
        call.end(CallCancelledError(f"the call of {call.message.func_name}() was cancelled", message_id=str(call.message_id)))
        try:
            self._pump.post(self._stop, call)
        except RuntimeError:  # the loop is closed
            call.notify()
        return True

    def _start(self, call: Call, send: Callable[[OutgoingCall], Call], context: Any) -> None:
        if not call.done:
            task = self.loop.create_task(self._run(call, send), context=context)
            self._tasks[call.message_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(call.message_id))

    def _stop(self, call: Call) -> None:
        task = self._tasks.get(call.message_id)
        if task is not None:
            task.cancel()
        call.notify()

    async def _run(self, call: Call, send: Callable[[OutgoingCall], Call]) -> None:
        message, options = call.message, call.options
        outgoing = OutgoingCall(
            call.message_id, message.func_name, message.func_args, message.func_kwargs, options.headers, call.timeout
        )
        proceed: Proceed = _Innermost(send)
        for layer in reversed(self._middleware):
            proceed = partial(_through, layer, proceed)
        try:
            value = await proceed(outgoing)
        except asyncio.CancelledError:
            self._decide(call, self._pump.closed_error())
            raise
        except Exception as exc:
            self._decide(call, exc)
        else:
            self._decide(call, ReadReply(call.message_id, value, None, datetime.now(UTC)))

    def _decide(self, call: Call, outcome: ReadReply | Exception) -> None:
        if self._calls.take(call.message_id) is not None:
            call.end(outcome)
            call.notify()


class _Innermost:
    """Sends the call, once."""

    def __init__(self, send: Callable[[OutgoingCall], Call]) -> None:
        self._send = send
        self._used = False

    async def __call__(self, outgoing: OutgoingCall) -> Any:
        if self._used:
            raise RuntimeError("middleware proceeded twice; a message id is one run")
        self._used = True
        call = self._send(outgoing)
        await call.wait_async(None)
        return call.value()


def _through(layer: Middleware, proceed: Proceed, outgoing: OutgoingCall) -> Awaitable[Any]:
    return layer(outgoing, proceed)
