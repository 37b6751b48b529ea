"""Middleware of the server's side: an onion around a call. Without any, calls do not pass through this module.

    async def only_known(call: IncomingCall, proceed: Proceed) -> Any:
        if call.context.headers.get("token") != TOKEN:
            raise PermissionError("who are you?")
        return await proceed(call)

The first middleware is the outermost. It may change the call (`dataclasses.replace`), its result or its error, answer without
proceeding, or proceed again after a failure. It surrounds functions of every worker kind, runs in the server's event loop, so
it must not block, and in the call's own context: `current_call()` works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prpc.call_context import CurrentCall

__all__ = ["IncomingCall", "Middleware", "Proceed", "nested"]


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """One call on its way to its function; its arguments are bound and converted already."""

    #: Registered name of the function.
    function: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    #: Id, headers, deadline and attempt.
    context: CurrentCall
    #: Whether this is a broadcast function's run, and not its call, which one server takes and publishes.
    event: bool = False


#: Runs the function and returns its result, or raises what ended it.
Proceed = Callable[[IncomingCall], Awaitable[Any]]
Middleware = Callable[[IncomingCall, Proceed], Awaitable[Any]]


def nested(middlewares: Iterable[Middleware], innermost: Proceed) -> Proceed:
    """One step that goes through all middlewares to `innermost`."""
    step = innermost
    for middleware in reversed(list(middlewares)):
        step = _around(middleware, step)
    return step


def _around(middleware: Middleware, inner: Proceed) -> Proceed:
    def step(call: IncomingCall) -> Awaitable[Any]:
        return middleware(call, inner)

    return step
