"""Coroutine functions in tasks of the server's own loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from prpc.exceptions import CallCancelledError
from prpc.workers.base import Job, Outcome, WorkerKind
from prpc.workers.slots import SlotExecution, SlotPool, describe_raised

__all__ = ["CoroutinePool"]

logger = logging.getLogger(__name__)

#: Most seconds that stopping waits for cancelled functions to end.
STOP_SECONDS = 1.0
WORKER = "loop"


class CoroutinePool(SlotPool):
    """A task for each job that waits for something; those that never do share one, as a task costs more than a short function.

    While a function runs, its task is its own: it may cancel, time and name it. Aborting cancels it; a function that does not
    heed that keeps its slot until it ends. Why it is so: docs/decisions/0025-tasks-that-functions-share.md.
    """

    watches = False  # a function that never waits cannot be stopped in time

    def __init__(self, slots: int, call: Callable[[Job], Coroutine[Any, Any, Any]] | None = None) -> None:
        """`call`: runs one job's function and returns its result."""
        super().__init__(WorkerKind.ASYNC, slots)
        self._call = call
        #: What began, with its task.
        self._tasks: dict[SlotExecution, asyncio.Task[None]] = {}
        #: What is to begin, in the task that is next.
        self._ready: deque[SlotExecution] = deque()
        #: Every task that has not ended, and the one that begins what is ready, if any.
        self._all: set[asyncio.Task[None]] = set()
        self._next: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()

    async def _open(self) -> None:
        """Nothing to make: the loop is there."""

    async def _close(self) -> None:
        if self._all:
            _, stubborn = await asyncio.wait(self._all, timeout=STOP_SECONDS)
            for task in stubborn:
                logger.warning("%s does not end although it was cancelled", task.get_name())
                # `asyncio.run` waits at its end for every task that it knows of, for ever.
                asyncio.tasks._unregister_task(task)

    def _begin(self, execution: SlotExecution) -> None:
        execution.worker = WORKER
        self._ready.append(execution)
        if self._next is None:
            self._open_task()

    def _open_task(self) -> None:
        # Not by the loop's factory: one that begins tasks at once would enter the context of the task that makes this one again.
        self._next = task = asyncio.Task(self._serve(), loop=self.loop, name="prpc functions", context=self._context)
        self._all.add(task)
        task.add_done_callback(self._close_task)

    def _close_task(self, task: asyncio.Task[None]) -> None:
        self._all.discard(task)
        if self._next is not task:
            return
        self._next = None  # by whoever cancels every task, before its first step
        while self._ready:
            execution = self._ready.popleft()
            text = "the call was cancelled before it started"
            execution.fail(CallCancelledError(text, message_id=execution.job.message_id))
            self._release(execution)

    def _end(self, execution: SlotExecution) -> None:
        task = self._tasks.get(execution)
        if task is not None:  # else its turn has not come, and will be seen to be over
            task.cancel()

    async def _serve(self) -> None:
        """Run what is ready, until a function waits: from there on this task is that function's alone."""
        task = self._next
        assert task is not None
        try:
            for _ in range(len(self._ready)):
                execution = self._ready.popleft()
                if execution.outcome.done():
                    self._release(execution)
                    continue
                self._tasks[execution] = task
                outcome = await self._run_here(execution, task)
                del self._tasks[execution]
                # Outside of the function's context, in which what follows on the outcome has no business.
                if not execution.decide(outcome):
                    logger.debug("%s (%s) ended after its outcome was decided", execution.job.name, execution.job.message_id)
                self._release(execution)
                if self._next is not task or task.cancelling():
                    return  # the task is spent: the next function shall not find what this one left in it
        finally:
            self._leave_to_next(task)

    @types.coroutine
    def _run_here(self, execution: SlotExecution, task: asyncio.Task[None]) -> Generator[Any, Any, Outcome]:
        """The outcome of the function, run by this task in the job's own context."""
        job = execution.job
        context, running = job.context.copy(), self._run(execution)
        try:
            awaited = context.run(running.send, None)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        task.set_name(f"prpc {job.name} {job.message_id}")
        if job.timeout is not None and not execution.outcome.done():
            self._wind(execution, job.timeout - execution.running)
        self._leave_to_next(task)
        return (yield from _driven(running, context, awaited))

    def _leave_to_next(self, task: asyncio.Task[None]) -> None:
        """The task begins nothing more; another one begins what is ready."""
        if self._next is task:
            self._next = None
            if self._ready:
                self._open_task()

    async def _run(self, execution: SlotExecution) -> Outcome:
        job = execution.job
        try:
            value = await (job.function(*job.args, **job.kwargs) if self._call is None else self._call(job))
            return Outcome(value, running=execution.running, worker=WORKER)
        except BaseException as exc:  # SystemExit and KeyboardInterrupt would end the loop, and with it the server
            if self.loop.is_closed():
                raise
            return describe_raised(exc, execution.running, WORKER)


def _driven(running: Coroutine[Any, Any, Outcome], context: Context, awaited: Any) -> Generator[Any, Any, Outcome]:
    """Go on with a coroutine that waits for `awaited`, each step in its context. What `yield from` does, but for that."""
    while True:
        step: Callable[[Any], Any] = running.send
        try:
            word = yield awaited
        except BaseException as exc:
            step, word = running.throw, exc
        try:
            awaited = context.run(step, word)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
