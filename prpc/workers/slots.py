"""What the three pools share: slots, a waiting line, one outcome for each job, and its timeout."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace

from prpc.call_context import current_call
from prpc.exceptions import CallError, DeadlineExceededError, PRPCError, ServerShutdownError, WorkerTimeoutError
from prpc.failure import describe, failure_of, without_first_frame
from prpc.timers import TimerWheel
from prpc.workers.base import Job, Outcome, PoolState, WorkerKind
from prpc.workers.promise import Promise

__all__ = ["SlotExecution", "SlotPool", "describe_raised"]

#: Seconds by which a timer may ring early without being wound again.
TIMER_SLACK = 0.001


#: What runs functions: its frames are no part of their tracebacks.
_OURS = ("prpc.workers.", "prpc.streaming.")


def describe_raised(exc: BaseException, running: float, worker: str) -> Outcome:
    """The outcome of a function that raised; the frames of what ran it are no part of its traceback."""
    return Outcome(failure=describe(without_first_frame(exc, *_OURS)), running=running, worker=worker)


class SlotExecution:
    """A job in a pool's hands: decided once, released once."""

    __slots__ = ("_pool", "began", "job", "outcome", "released", "submitted", "tick", "worker")

    def __init__(self, pool: SlotPool, job: Job) -> None:
        self._pool = pool
        self.job = job
        self.outcome: Promise[Outcome] = Promise()
        self.released: Promise[None] = Promise()
        #: Where the pool's timer wheel holds it; 0: nowhere.
        self.tick = 0
        #: Since when it waits in line, in seconds of `time.monotonic()`; None where a slot was free.
        self.submitted: float | None = None
        #: When the run began, in seconds of `time.monotonic()`; None while it waits.
        self.began: float | None = None
        #: Name of the thread or process that runs it.
        self.worker = ""

    @property
    def running(self) -> float:
        """Seconds since the run began."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def cancel(self, reason: CallError) -> None:
        self._pool.abort(self, reason)

    def decide(self, outcome: Outcome) -> bool:
        """Give the outcome; False where there was one already."""
        if self.outcome.done():
            return False
        if self.tick:
            self._pool.unwind(self)
        self.outcome.set_result(outcome)
        return True

    def fail(self, error: PRPCError) -> bool:
        """Give a failure that the server itself names; False where there was an outcome already."""
        return not self.outcome.done() and self.decide(
            Outcome(failure=failure_of(error), running=self.running, worker=self.worker)
        )

    def expire(self, waited: float) -> None:
        """Its deadline came while it waited for so many seconds."""
        job = self.job
        text = f"{job.name}() was not started: its time had passed after {waited:.3f} s in the line of its workers"
        self.fail(DeadlineExceededError(text, function=job.name, timeout=job.left, queued=waited))


class SlotPool(ABC):
    """A pool of a fixed number of slots. A job beyond them waits in line; its timeout counts from its run's start, and its call's
    deadline goes on meanwhile."""

    #: Whether every run's time is watched from when it is taken up; else the pool does it itself.
    watches = True
    #: How many returnable jobs wait in the workers beyond their slots.
    behind = 0

    def __init__(self, kind: WorkerKind, slots: int) -> None:
        self._kind = kind
        self._slots = slots
        self._replaced = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: TimerWheel[SlotExecution] | None = None
        self._stopped = False
        self._waiting: deque[SlotExecution] = deque()
        self._filling = False
        #: Executions that hold a slot.
        self._held: set[SlotExecution] = set()

    @property
    def kind(self) -> WorkerKind:
        """What runs this pool's functions."""
        return self._kind

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that started the pool."""
        if self._loop is None:
            raise RuntimeError("the worker pool is not started")
        return self._loop

    async def start(self) -> None:
        """Make the workers."""
        self._loop = asyncio.get_running_loop()
        self._timers = TimerWheel(self._loop, self._time_out)
        await self._open()

    def submit(self, job: Job) -> SlotExecution:
        """Start the job now, or as soon as a slot is free."""
        execution = SlotExecution(self, job)
        if self._stopped or self._loop is None:
            self._refuse(execution)
        elif self._waiting or self._filling or not self._has_room(job):
            execution.submitted = time.monotonic()
            self._waiting.append(execution)
            self._fill()
        else:
            self._take_up(execution)
        return execution

    def _refuse(self, execution: SlotExecution) -> None:
        if not self._stopped:
            raise RuntimeError("the worker pool is not started")
        execution.fail(_shutdown(execution))
        execution.released.set_result(None)

    def state(self) -> PoolState:
        """The pool's figures at this moment."""
        abandoned = sum(execution.outcome.done() for execution in self._held)
        return PoolState(self._slots, len(self._held), abandoned, self._replaced)

    async def stop(self) -> None:
        """End the workers and whatever still runs in them."""
        if self._stopped or self._loop is None:
            self._stopped = True
            return
        self._stopped = True
        for execution in (*self._waiting, *self._held):
            self.abort(execution, _shutdown(execution))
        await self._close()
        for execution in tuple(self._held):
            self._release(execution)

    def recall(self) -> None:
        """See WorkerPool."""
        self._send_back(math.inf)

    def _send_back(self, before: float) -> None:
        """End the returnable jobs that wait since before this moment."""
        late = [each for each in self._waiting if each.job.returnable and (each.submitted or 0.0) <= before]
        for execution in late:
            self._waiting.remove(execution)
        for execution in late:
            execution.decide(Outcome(returned=True))
            execution.released.set_result(None)
        self._fill()

    def abort(self, execution: SlotExecution, reason: CallError) -> None:
        """Decide the execution by this failure and end its run. Nothing where it was decided already."""
        if not execution.fail(reason):
            return
        if execution in self._held:
            _mark_cancelled(execution.job)
            self._end(execution)
        else:
            self._waiting.remove(execution)
            execution.released.set_result(None)

    def _fill(self) -> None:
        if self._filling:  # a job that ended in `_begin` already: the loop below goes on
            return
        self._filling = True
        while self._waiting and not self._stopped and self._has_room(self._waiting[0].job):
            execution = self._waiting.popleft()
            if execution.submitted is not None and self._expired(execution, time.monotonic() - execution.submitted):
                continue
            self._take_up(execution)
        self._filling = False

    def _take_up(self, execution: SlotExecution) -> None:
        self._held.add(execution)
        execution.began = time.monotonic()
        if self.watches:
            self._wind(execution, execution.job.timeout)
        self._begin(execution)

    @staticmethod
    def _expired(execution: SlotExecution, waited: float) -> bool:
        """Whether its deadline came while it waited in line, which ends it; else it may run for what is left of its time."""
        job = execution.job
        if job.left is None:
            return False
        left = job.left - waited
        if left <= 0:
            execution.expire(waited)
            execution.released.set_result(None)
            return True
        if job.timeout is None or left < job.timeout:
            facts = {**job.call_facts, "timeout": left} if "timeout" in job.call_facts else job.call_facts
            execution.job = replace(job, timeout=left, call_facts=facts)
        return False

    def _has_room(self, job: Job) -> bool:
        return len(self._held) < self._slots

    def _release(self, execution: SlotExecution) -> None:
        """The execution's slot is free again."""
        if execution in self._held:
            self._held.remove(execution)
            execution.released.set_result(None)
            self._fill()

    def _wind(self, execution: SlotExecution, seconds: float | None) -> None:
        if seconds is not None and self._timers is not None:
            execution.tick = self._timers.add(execution, self.loop.time() + seconds)

    def unwind(self, execution: SlotExecution) -> None:
        """For the execution: its timer is not needed any more."""
        if self._timers is not None:
            self._timers.remove(execution, execution.tick)

    def _time_out(self, execution: SlotExecution) -> None:
        job, running = execution.job, execution.running
        timeout = job.timeout or 0.0
        if timeout - running > TIMER_SLACK:  # a thread took the job up later than it was given
            self._wind(execution, timeout - running)
            return
        text = f"{job.name} ran longer than the {timeout:g} s it may{self._timeout_note()}"
        self.abort(execution, WorkerTimeoutError(text, function=job.name, timeout=timeout, running=running))

    def _timeout_note(self) -> str:
        return " and was ended"

    @abstractmethod
    async def _open(self) -> None:
        """Make the workers."""

    @abstractmethod
    async def _close(self) -> None:
        """End the workers; every execution is decided already."""

    @abstractmethod
    def _begin(self, execution: SlotExecution) -> None:
        """Run it. Ends with `decide` and `_release`."""

    @abstractmethod
    def _end(self, execution: SlotExecution) -> None:
        """Stop the run of a decided execution; ends with `_release`."""


def _shutdown(execution: SlotExecution) -> ServerShutdownError:
    name = execution.job.name
    return ServerShutdownError(f"the server stopped before {name} ended; call again", function=name)


def _mark_cancelled(job: Job) -> None:
    try:
        job.context.run(current_call).mark_cancelled()
    except LookupError:
        pass
