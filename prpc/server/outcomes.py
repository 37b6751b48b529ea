"""Outcomes that the server itself has a hand in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prpc.exceptions import BadArgumentsError, CallCancelledError, ServerShutdownError, WorkerLostError, WorkerTimeoutError
from prpc.failure import Failure, failure_of
from prpc.prpcmessage import PRPCMessage
from prpc.server.logs import log_call, logger
from prpc.workers.base import Outcome

__all__ = [
    "details_of",
    "in_short",
    "is_cancelled",
    "is_shutdown",
    "is_worker_lost",
    "log_outcome",
    "outcome_of_built_in",
    "server_shutdown",
    "with_queue_time",
]

_WORKER_TIMEOUT = f"{WorkerTimeoutError.__module__}.{WorkerTimeoutError.__qualname__}"
_SERVER_SHUTDOWN = f"{ServerShutdownError.__module__}.{ServerShutdownError.__qualname__}"

_CANCELLED = f"{CallCancelledError.__module__}.{CallCancelledError.__qualname__}"
_WORKER_LOST = f"{WorkerLostError.__module__}.{WorkerLostError.__qualname__}"


def server_shutdown(name: str) -> ServerShutdownError:
    """The error for a call that a stopping server ends."""
    return ServerShutdownError(f"the server stopped before {name}() ended", function=name)


def outcome_of_built_in(name: str, built_in: Callable[[], Any] | None, message: PRPCMessage) -> Outcome:
    """What a function of the server itself answers."""
    if built_in is None or message.func_args or message.func_kwargs:
        return Outcome(failure=failure_of(BadArgumentsError(f"{name}() takes no arguments", function=name)))
    return Outcome(value=built_in())


def with_queue_time(failure: Failure, queued: float) -> Failure:
    """A worker's timeout knows how long the function ran; the server adds how long it had waited."""
    if failure.type_name != _WORKER_TIMEOUT or failure.facts.get("queued") is not None:
        return failure
    return replace(failure, facts={**failure.facts, "queued": queued})


def is_shutdown(failure: Failure) -> bool:
    """Whether the call was ended because the server stops."""
    return failure.type_name == _SERVER_SHUTDOWN


def is_cancelled(failure: Failure) -> bool:
    """Whether the call was cancelled."""
    return failure.type_name == _CANCELLED


def is_worker_lost(failure: Failure) -> bool:
    """Whether a pool lost the worker; a function that raised the same error itself comes with its traceback."""
    return failure.type_name == _WORKER_LOST and not failure.traceback


def log_outcome(message: PRPCMessage, worker: str, queued: float, running: float, failure: Failure | None) -> None:
    """One line about a call that has ended, and at level DEBUG the traceback of what it raised."""
    name, message_id = message.func_name[:200], str(message.message_id)
    log_call(
        message_id=message_id,
        function=name if name.isprintable() else ascii(name),  # a line break would forge a line
        worker=worker or "server",
        queued=queued,
        running=running,
        outcome="ok" if failure is None else failure.type_name,
    )
    if failure is not None and failure.traceback and logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s %s", message_id, failure.traceback)


def details_of(failure: Failure) -> str:
    """A failure as text for a dead letter."""
    return f"{failure.type_name}: {failure.message}\n{failure.traceback}".rstrip()


def in_short(failure: Failure) -> Failure:
    """What is left where there is hardly any room: the class, the nearest built-in one, and the start of the text."""
    return Failure(failure.type_name, failure.message[:200], failure.bases[-1:])
