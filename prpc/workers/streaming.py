"""Streaming functions: generators, whose items go to the job's sink. The job's value is their number.

A generator is resumed only when the reader has room for another item, and is closed, so that its `finally` runs, when the call
ends before the generator does.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from prpc.streaming.feeding import Feeder, ItemSink, feed
from prpc.workers.base import Job, Outcome, WorkerKind
from prpc.workers.slots import SlotExecution, SlotPool, describe_raised

__all__ = ["ThreadStreams", "stream_items"]


def _sink_of(job: Job) -> ItemSink:
    assert job.sink is not None, "a streaming job has a sink"
    return job.sink


async def stream_items(job: Job) -> int:
    """Run an async generator to its end."""
    async with aclosing(job.function(*job.args, **job.kwargs)) as items:
        return await feed(items, _sink_of(job))


class ThreadStreams(SlotPool):
    """Plain generators, each in a thread of its own for as long as it runs."""

    def __init__(self, slots: int) -> None:
        super().__init__(WorkerKind.THREAD, slots)
        self._started = 0
        self._feeders: dict[SlotExecution, Feeder] = {}

    async def _open(self) -> None:
        """Nothing to make: threads come with their streams."""

    async def _close(self) -> None:
        """Threads that wait for room have been told; those in user code are left to it."""

    def _begin(self, execution: SlotExecution) -> None:
        self._started += 1
        execution.worker = f"prpc-stream-{self._started}"
        job = execution.job

        def open_items() -> Any:
            return job.function(*job.args, **job.kwargs)

        def ended(end: int | BaseException) -> None:
            self._feeders.pop(execution, None)
            running = time.monotonic() - (execution.began or 0.0)
            if isinstance(end, int):
                execution.decide(Outcome(end, running=running, worker=execution.worker))
            else:
                execution.decide(describe_raised(end, running, execution.worker))
            self._release(execution)

        feeder = self._feeders[execution] = Feeder(execution.worker, self.loop, _sink_of(job), open_items, ended)
        feeder.start(job.context.copy())

    def _end(self, execution: SlotExecution) -> None:
        self._feeders[execution].close()

    def _timeout_note(self) -> str:
        return "; Python cannot stop a thread, so it goes on unseen until its next item"
