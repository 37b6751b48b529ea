"""Coroutines for eager calls: they run in a loop that is driven by hand and stands still in between."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from prpc.client.portal import running_loop
from prpc.exceptions import CallError
from prpc.failure import describe, failure_of, without_first_frame
from prpc.workers.base import Execution, Job, Outcome, PoolState, WorkerKind
from prpc.workers.promise import Promise

__all__ = ["Drive", "Loops", "called"]

T = TypeVar("T")


def called(job: Job) -> Outcome:
    """Call a plain function here and now. KeyboardInterrupt passes: it is the developer's."""
    try:
        return Outcome(job.context.copy().run(job.function, *job.args, **job.kwargs))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        return Outcome(failure=describe(without_first_frame(exc)))


async def _awaited(job: Job) -> Outcome:
    try:
        return Outcome(await job.function(*job.args, **job.kwargs))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        return Outcome(failure=describe(without_first_frame(exc)))


def _new_runner() -> asyncio.Runner:
    # With a factory it leaves the thread's current loop alone, which is somebody else's.
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


class Loops:
    """Where coroutines run: in one loop for all, driven by the calling thread, or where it cannot be, in a new one elsewhere."""

    def __init__(self) -> None:
        self._runner = _new_runner()
        self._busy = threading.Lock()

    def run(self, work: Callable[[asyncio.Runner], T]) -> T:
        """`work(runner)`: here, or in a thread of its own where this one runs a loop or another one drives ours."""
        if running_loop() is not None or not self._busy.acquire(blocking=False):
            return _elsewhere(work)
        try:
            return work(self._runner)
        finally:
            self._busy.release()

    @contextmanager
    def held(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> Iterator[None]:
        """Within the block an async context is entered, in one task of the loop that is kept."""
        if running_loop() is not None:
            raise RuntimeError("eager mode cannot enter a lifespan inside a running loop: use `async with running(app)`")
        leave = asyncio.Event()

        async def stay() -> None:
            async with make():
                entered.set_result(None)
                await leave.wait()

        loop = self._runner.get_loop()
        entered: asyncio.Future[None] = loop.create_future()
        task = loop.create_task(stay())
        self._runner.run(_first_of(entered, task))
        if task.done():
            task.result()
        try:
            yield
        finally:
            leave.set()
            self._runner.run(_first_of(task))
            task.result()

    def close(self) -> None:
        """End the loop and what is left in it."""
        self._runner.close()


def _wake(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _elsewhere(work: Callable[[asyncio.Runner], T]) -> T:
    ended = Future[T]()

    def run() -> None:
        try:
            with _new_runner() as runner:
                value = work(runner)
        except BaseException as exc:
            ended.set_exception(exc)
        else:
            ended.set_result(value)

    threading.Thread(target=run, name="prpc-testing-eager", daemon=True).start()
    return ended.result()


class Drive:
    """Runs one call whose middleware or function needs a loop; to the middleware it is the pool.

    A plain function is run while the loop stands still: in a worker thread there is no running loop either.
    """

    def __init__(self, kind: WorkerKind) -> None:
        self.kind = kind
        self._turns: deque[tuple[Job, _Turn]] = deque()
        self._pause: asyncio.Future[None] | None = None

    def run(self, runner: asyncio.Runner, start: Callable[[Drive], Execution]) -> Outcome:
        """Drive the loop until the execution that `start` gives has ended."""
        executions: list[Execution] = []

        async def step() -> None:
            pause = self._pause = asyncio.get_running_loop().create_future()
            if not executions:
                executions.append(start(self))
            executions[0].released.add_done_callback(lambda _: _wake(pause))
            if not self._turns:  # they may have come before this step
                await pause

        while not executions or not executions[0].released.done():
            runner.run(step())
            while self._turns:
                job, turn = self._turns.popleft()
                turn.finish(called(job))
        return executions[0].outcome.result()

    def submit(self, job: Job) -> Execution:
        """See WorkerPool."""
        loop = asyncio.get_running_loop()
        turn = _Turn()
        if self.kind is WorkerKind.ASYNC:
            task = loop.create_task(_awaited(job), context=job.context.copy())
            task.add_done_callback(turn.take)
        else:
            self._turns.append((job, turn))
            if self._pause is not None:
                _wake(self._pause)
        return turn

    async def start(self) -> None:
        """See WorkerPool: nothing to make."""

    def state(self) -> PoolState:
        """See WorkerPool."""
        return PoolState(1, len(self._turns))

    async def stop(self) -> None:
        """See WorkerPool: nothing to end."""


class _Turn:
    """See Execution."""

    worker = "eager"
    running = 0.0

    def __init__(self) -> None:
        self.outcome: Promise[Outcome] = Promise()
        self.released: Promise[None] = Promise()

    def finish(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self.released.set_result(None)

    def take(self, task: asyncio.Task[Outcome]) -> None:
        """The function's task has ended; an exception in it ends the loop, too."""
        if task.cancelled():  # by the function itself, in some roundabout way
            self.finish(Outcome(failure=describe(asyncio.CancelledError())))
        elif task.exception() is None:
            self.finish(task.result())

    def cancel(self, reason: CallError) -> None:
        self.finish(Outcome(failure=failure_of(reason)))
