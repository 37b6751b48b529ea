"""The seam to the workers: what runs a function, and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol

from prpc.exceptions import CallError
from prpc.failure import Failure
from prpc.streaming.feeding import ItemSink
from prpc.workers.promise import Coming

__all__ = ["Execution", "Job", "Outcome", "PoolState", "Runner", "WorkerKind", "WorkerPool"]


class WorkerKind(enum.StrEnum):
    """What runs a function."""

    THREAD = "thread"
    PROCESS = "process"
    ASYNC = "async"


# Not frozen, as of all that is made for every call: that costs three times as much.
@dataclass(slots=True)
class Job:
    """One run of one function. Not to be changed."""

    #: Dashed message id, for logs and errors.
    message_id: str
    #: Registered name.
    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    #: Seconds it may run; None for as long as it likes.
    timeout: float | None
    #: Context in which thread and async functions run (holds `current_call()`).
    context: Context
    #: What a process worker rebuilds `current_call()` from: plain data that can be pickled.
    call_facts: Mapping[str, Any]
    #: Where a streaming function's items go; None for any other.
    sink: ItemSink | None = None
    #: Seconds until the call's deadline, after which it is not started any more; None without one.
    left: float | None = None
    #: Whether it may wait behind another in a worker that is busy, and come back where that takes long; see `WorkerPool.behind`.
    returnable: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of a job: a value, or a failure. Not to be changed."""

    value: Any = None
    #: None where the job returned.
    failure: Failure | None = None
    #: Seconds the function ran.
    running: float = 0.0
    #: Name of the thread or process that ran it, for the log.
    worker: str = ""
    #: It has not begun, and will not: there was no worker for it soon enough.
    returned: bool = False


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool at one moment, for logs and operators."""

    slots: int
    busy: int
    #: Threads whose caller was answered already but whose function still runs.
    abandoned: int = 0
    #: Workers replaced since the start (killed, died, recycled).
    replaced: int = 0


class Execution(Protocol):
    """A job in a worker's hands."""

    @property
    def outcome(self) -> Coming[Outcome]:
        """Ends with the outcome, never with an exception; not to be cancelled, use `cancel`."""
        ...

    @property
    def released(self) -> Coming[None]:
        """Ends when the worker's slot is free again; at the earliest with `outcome`, later for an abandoned thread."""
        ...

    @property
    def worker(self) -> str:
        """Name of the thread or process that runs it; empty while it waits."""
        ...

    @property
    def running(self) -> float:
        """Seconds since the run began; 0 while it waits."""
        ...

    def cancel(self, reason: CallError) -> None:
        """End the job: `outcome` becomes this failure. Stops an async function and a process with its children;
        a thread is abandoned and its slot stays busy until the function returns. Idempotent; nothing after the end."""
        ...


class Runner(Protocol):
    """What a job can be handed to."""

    def submit(self, job: Job) -> Execution:
        """Start the job now."""
        ...


class WorkerPool(Protocol):
    """Runs the jobs of one kind. Bound to the event loop that started it."""

    @property
    def kind(self) -> WorkerKind: ...

    @property
    def behind(self) -> int:
        """How many returnable jobs it takes beyond its slots, to wait in its workers."""
        ...

    async def start(self) -> None:
        """Make the workers; a process worker has imported the functions' modules when this returns."""
        ...

    def submit(self, job: Job) -> Execution:
        """Start the job now. The caller keeps to the number of slots, and of those behind them."""
        ...

    def recall(self) -> None:
        """End every returnable job that has not begun, as `returned`."""
        ...

    def state(self) -> PoolState: ...

    async def stop(self) -> None:
        """End the workers and whatever still runs in them. Idempotent."""
        ...
