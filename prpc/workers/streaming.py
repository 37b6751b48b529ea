"""Streaming functions: generators, whose items go to the job's sink as fast as that lets them.

Either kind is resumed only when the reader has room for another item, and is closed, so that its `finally` runs, when the call
ends before the generator does. The job's value is the number of items.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextlib import aclosing
from typing import Any

from prpc.workers.base import ItemSink, Job, Outcome, WorkerKind
from prpc.workers.slots import SlotExecution, SlotPool, describe_raised

__all__ = ["ThreadStreams", "stream_items"]


def _sink_of(job: Job) -> ItemSink:
    assert job.sink is not None, "a streaming job has a sink"
    return job.sink


async def stream_items(job: Job) -> int:
    """Run an async generator to its end; returns the number of its items."""
    sink, room = _sink_of(job), asyncio.Event()
    sink.on_room(room.set)
    async with aclosing(job.function(*job.args, **job.kwargs)) as items:
        while True:
            while not sink.allows(sink.count):
                room.clear()
                await room.wait()
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return sink.count
            sink.put(sink.encode(item))


class ThreadStreams(SlotPool):
    """Plain generators, each in a thread of its own for as long as it runs."""

    def __init__(self, slots: int) -> None:
        super().__init__(WorkerKind.THREAD, slots)
        self._started = 0
        self._bridges: dict[SlotExecution, _Bridge] = {}

    async def _open(self) -> None:
        """Nothing to make: threads come with their streams."""

    async def _close(self) -> None:
        """Threads that wait for room have been told; those in user code are left to it."""

    def _begin(self, execution: SlotExecution) -> None:
        self._started += 1
        execution.worker = f"prpc-stream-{self._started}"
        bridge = self._bridges[execution] = _Bridge(self, execution)
        bridge.thread.start()

    def _end(self, execution: SlotExecution) -> None:
        self._bridges[execution].close()

    def _timeout_note(self) -> str:
        return "; Python cannot stop a thread, so it goes on unseen until its next item"

    def ended(self, execution: SlotExecution, outcome: Outcome) -> None:
        """The generator has ended; in the loop's thread."""
        execution.decide(outcome)
        self._bridges.pop(execution, None)
        self._release(execution)


class _Bridge:
    """Brings the items of one generator from its thread to the loop; one wake-up serves all that wait there."""

    def __init__(self, pool: ThreadStreams, execution: SlotExecution) -> None:
        self._pool, self._execution = pool, execution
        self._loop = pool.loop
        self._sink = _sink_of(execution.job)
        self._sink.on_room(self._tell)
        self._texts: deque[bytes] = deque()
        #: Guards what follows; its waiter is the thread.
        self._changed = threading.Condition()
        self._pending = 0
        self._waking = self._closed = False
        self._outcome: Outcome | None = None
        self.thread = threading.Thread(target=self._run, name=execution.worker, daemon=True)

    def close(self) -> None:
        """Have the thread close its generator as soon as that yields or waits for room."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify()

    # In the thread.

    def _run(self) -> None:
        began = time.monotonic()
        job, worker = self._execution.job, self._execution.worker
        try:
            count = job.context.copy().run(self._produce, job)
            outcome = Outcome(count, running=time.monotonic() - began, worker=worker)
        except BaseException as exc:
            outcome = describe_raised(exc, time.monotonic() - began, worker)
        with self._changed:
            self._outcome = outcome
            self._wake()

    def _produce(self, job: Job) -> int:
        items: Any = job.function(*job.args, **job.kwargs)
        count, encode = 0, self._sink.encode
        try:
            while self._may_go_on(count):
                try:
                    item = next(items)
                except StopIteration:
                    break
                count += 1
                self._hand_over(encode(item))
        finally:
            items.close()
        return count

    def _may_go_on(self, count: int) -> bool:
        with self._changed:
            while not self._closed and not self._sink.allows(count, self._pending):
                self._changed.wait()
            return not self._closed

    def _hand_over(self, text: bytes) -> None:
        with self._changed:
            self._texts.append(text)
            self._pending += len(text)
            self._wake()

    def _wake(self) -> None:
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                self._closed = True

    # In the loop.

    def _drain(self) -> None:
        with self._changed:
            self._waking = False
            texts, self._texts, self._pending = self._texts, deque(), 0
            outcome = self._outcome
        if not self._execution.outcome.done():
            for text in texts:
                self._sink.put(text)
        if outcome is not None:
            self._pool.ended(self._execution, outcome)
        elif texts:
            self._tell()
