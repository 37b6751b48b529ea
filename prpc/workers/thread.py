"""Plain functions in threads of this process.

The threads are our own daemons and not concurrent.futures': that joins its threads at the interpreter's exit, where an
abandoned function would hold up the process for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from queue import SimpleQueue

from prpc.workers.base import Outcome, WorkerKind
from prpc.workers.slots import SlotExecution, SlotPool, describe_raised

__all__ = ["ThreadPool"]

logger = logging.getLogger(__name__)

#: Most seconds that stopping waits for an idle thread to end.
JOIN_SECONDS = 1.0


class ThreadPool(SlotPool):
    """One thread for each slot. A thread cannot be stopped: one that is aborted is abandoned until its function returns."""

    def __init__(self, slots: int) -> None:
        super().__init__(WorkerKind.THREAD, slots)
        self._jobs: SimpleQueue[SlotExecution | None] = SimpleQueue()
        self._finished: deque[tuple[SlotExecution, Outcome | None]] = deque()
        self._waking = False
        self._threads: list[threading.Thread] = []

    async def _open(self) -> None:
        for number in range(1, self._slots + 1):
            thread = threading.Thread(target=self._work, name=f"prpc-thread-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def _close(self) -> None:
        abandoned = {execution.worker for execution in self._held}
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.name not in abandoned:
                thread.join(JOIN_SECONDS)

    def _begin(self, execution: SlotExecution) -> None:
        self._jobs.put(execution)

    def _end(self, execution: SlotExecution) -> None:
        """Nothing can be done but wait: the thread reports when the function has returned."""

    def _timeout_note(self) -> str:
        return "; Python cannot stop a thread, so it goes on unseen until it returns"

    def _work(self) -> None:
        name = threading.current_thread().name
        while (execution := self._jobs.get()) is not None:
            outcome = None
            if not execution.outcome.done():  # cancelled before the thread took it up
                outcome = _run(execution, name)
            self._report(execution, outcome)
            del execution, outcome  # an idle thread keeps no arguments and no result alive

    def _report(self, execution: SlotExecution, outcome: Outcome | None) -> None:
        """Hand the outcome to the loop; one wake-up serves all that finished before it is heard."""
        self._finished.append((execution, outcome))
        if not self._waking:
            self._waking = True
            try:
                self.loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop is closed: an abandoned function returned after the end
                logger.debug("%s returned after its loop was closed", execution.job.name)

    def _collect(self) -> None:
        self._waking = False  # before looking, so that what finishes from now on wakes again
        while self._finished:
            execution, outcome = self._finished.popleft()
            if outcome is not None and not execution.decide(outcome):
                job = execution.job
                logger.info("%s (%s) returned %.3f s after its start, abandoned", job.name, job.message_id, outcome.running)
            self._release(execution)


def _run(execution: SlotExecution, worker: str) -> Outcome:
    job = execution.job
    execution.worker = worker
    execution.began = began = time.monotonic()
    try:
        value = job.context.copy().run(job.function, *job.args, **job.kwargs)
    except BaseException as exc:
        return describe_raised(exc, time.monotonic() - began, worker)
    return Outcome(value, running=time.monotonic() - began, worker=worker)
