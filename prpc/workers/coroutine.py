"""Coroutine functions as tasks of the server's own loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
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
    """One task for each job. Aborting cancels it; a function that does not heed that keeps its slot until it ends."""

    def __init__(self, slots: int, call: Callable[[Job], Coroutine[Any, Any, Any]] | None = None) -> None:
        """`call`: runs one job's function and returns its result."""
        super().__init__(WorkerKind.ASYNC, slots)
        self._call = call
        self._tasks: dict[SlotExecution, asyncio.Task[Outcome]] = {}

    async def _open(self) -> None:
        """Nothing to make: the loop is there."""

    async def _close(self) -> None:
        if self._tasks:
            _, stubborn = await asyncio.wait(self._tasks.values(), timeout=STOP_SECONDS)
            for task in stubborn:
                logger.warning("%s does not end although it was cancelled", task.get_name())
                # `asyncio.run` waits at its end for every task that it knows of, for ever.
                asyncio.tasks._unregister_task(task)

    def _begin(self, execution: SlotExecution) -> None:
        execution.worker = WORKER
        job = execution.job
        task = self.loop.create_task(self._run(execution), name=f"prpc {job.name} {job.message_id}", context=job.context.copy())
        self._tasks[execution] = task
        task.add_done_callback(partial(self._ended, execution))

    def _end(self, execution: SlotExecution) -> None:
        self._tasks[execution].cancel()

    async def _run(self, execution: SlotExecution) -> Outcome:
        job = execution.job
        try:
            value = await (job.function(*job.args, **job.kwargs) if self._call is None else self._call(job))
            return Outcome(value, running=execution.running, worker=WORKER)
        except BaseException as exc:  # SystemExit and KeyboardInterrupt would end the loop, and with it the server
            if self.loop.is_closed():
                raise
            return describe_raised(exc, execution.running, WORKER)

    def _ended(self, execution: SlotExecution, task: asyncio.Task[Outcome]) -> None:
        """Outside of the task, in whose context what follows on the outcome has no business."""
        del self._tasks[execution]
        job = execution.job
        if task.cancelled():  # before its first step
            execution.fail(CallCancelledError("the call was cancelled before it started", message_id=job.message_id))
        elif not execution.decide(task.result()):
            logger.debug("%s (%s) ended after its outcome was decided", job.name, job.message_id)
        self._release(execution)
