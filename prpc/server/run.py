"""One call between its delivery and its settlement."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prpc.brokers.base import Delivery
from prpc.call_context import CurrentCall, ProgressSink, bind_current_call
from prpc.deadline import Clock, Deadline
from prpc.protocol.call_table import remaining_time
from prpc.protocol.facts import CallFacts
from prpc.prpcmessage import PRPCMessage
from prpc.server.registry import RegisteredFunction
from prpc.server.streams import Streaming
from prpc.workers.base import Execution, Job, WorkerKind

__all__ = ["Run", "job_of"]


class Run:
    """What a server knows of one call in its hands."""

    __slots__ = (
        "attempt",
        "current",
        "delivery",
        "execution",
        "facts",
        "followers",
        "function",
        "give_back",
        "message",
        "queued",
        "streaming",
        "submitted",
    )

    def __init__(self, delivery: Delivery, message: PRPCMessage, facts: CallFacts) -> None:
        self.delivery = delivery
        self.message = message
        self.facts = facts
        #: Seconds since the broker took it before this attempt was given to the workers, and on the clock when that was, where
        #: another attempt may follow.
        self.queued, self.submitted = delivery.age, 0.0
        #: 1 for the first run; more where a server or a worker was lost with an earlier one.
        self.attempt = delivery.attempt
        self.function: RegisteredFunction | None = None
        self.current: CurrentCall | None = None
        self.execution: Execution | None = None
        #: Its streams; None where it has none.
        self.streaming: Streaming | None = None
        #: Doubled entries from other callers, which get the same outcome.
        self.followers: list[Run] | None = None
        #: On the end of the run the entry goes back to the queue instead of being answered.
        self.give_back = False


class Startable(Protocol):
    """What `job_of` needs to know of a call; see `Run`."""

    @property
    def message(self) -> PRPCMessage: ...

    @property
    def facts(self) -> CallFacts: ...

    @property
    def queued(self) -> float: ...

    @property
    def attempt(self) -> int: ...


def job_of(
    run: Startable,
    function: RegisteredFunction,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    limit: float | None,
    clock: Clock,
    sink: ProgressSink | None = None,
    returnable: bool = False,
) -> tuple[Job, CurrentCall]:
    """The job that a pool gets, and the current call that its function sees. `limit`: the server's, in seconds. `returnable`: as
    `Job` says."""
    left = None if run.facts.timeout is None else run.facts.timeout - run.queued
    # Streams without end are usual: only what is meant for this one ends it. What a broadcast function may take is for its
    # events: publishing one is the server's own work.
    timeout = remaining_time(None if function.streams else limit, None if function.broadcast else function.timeout, left)
    message_id = str(run.message.message_id)
    headers, attempt = run.facts.headers, run.attempt
    current = CurrentCall(message_id, function.name, headers, Deadline.after(clock, timeout), attempt, clock, sink)
    context = contextvars.copy_context()
    context.run(bind_current_call, current)
    call_facts: dict[str, Any] = {}
    if function.kind is WorkerKind.PROCESS:
        call_facts = {
            "message_id": message_id,
            "function": function.name,
            "headers": dict(headers),
            "timeout": timeout,
            "attempt": attempt,
        }
    job = Job(
        message_id, function.name, function.function, args, kwargs, timeout, context, call_facts, left=left, returnable=returnable
    )
    return job, current
