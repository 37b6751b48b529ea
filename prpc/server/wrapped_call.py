"""A call that goes through middleware: an execution around the worker's own."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections.abc import Sequence
from typing import Any

from prpc.call_context import CurrentCall
from prpc.exceptions import CallCancelledError, CallError, WorkerTimeoutError
from prpc.failure import Failure, describe, failure_of, restore
from prpc.server.middleware import IncomingCall, Middleware, nested
from prpc.workers.base import Execution, Job, Outcome, Runner

__all__ = ["WrappedCall"]


class WrappedCall:
    """An Execution: middlewares in a task of the event loop, the function in its pool.

    The time limit covers both. A middleware may pass the call on several times, one after another;
    the call of a streaming function once.
    """

    def __init__(
        self, job: Job, pool: Runner, middlewares: Sequence[Middleware], current: CurrentCall, *, event: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        # Futures, as what is told of them must not run in the context of the middlewares' task.
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self._job = job
        self._pool = pool
        self._current = current
        self._inner: Execution | None = None
        self._last = Outcome()
        self._raised: tuple[BaseException, Failure] | None = None
        self._timer = None if job.timeout is None else loop.call_later(job.timeout, self._too_long)
        call = IncomingCall(job.name, job.args, job.kwargs, current, event)
        self._task = loop.create_task(self._run(nested(middlewares, self._innermost)(call)), context=job.context)

    @property
    def worker(self) -> str:
        """As `Execution` says; empty while a middleware is at work before the function."""
        return "" if self._inner is None else self._inner.worker

    @property
    def running(self) -> float:
        """As `Execution` says; counts the function alone."""
        return 0.0 if self._inner is None else self._inner.running

    def cancel(self, reason: CallError) -> None:
        """As `Execution.cancel` promises."""
        if self.outcome.done():
            return
        self._finish(Outcome(failure=failure_of(reason), running=self._last.running, worker=self._last.worker))
        if self._inner is not None and not self._inner.outcome.done():
            self._inner.cancel(reason)
        else:
            self._task.cancel()

    def _too_long(self) -> None:
        name, limit = self._job.name, self._job.timeout
        self.cancel(WorkerTimeoutError(f"{name}() ran longer than {limit:g} s", function=name, timeout=limit, running=limit))

    async def _run(self, chain: Any) -> None:
        try:
            value = await chain
            self._finish(Outcome(value=value, running=self._last.running, worker=self._last.worker))
        except BaseException as exc:  # whatever a middleware raises is the call's outcome, and never the server's end
            known = self._raised is not None and self._raised[0] is exc
            failure = self._raised[1] if known and self._raised is not None else describe(exc)
            self._finish(Outcome(failure=failure, running=self._last.running, worker=self._last.worker))
        finally:
            if self._inner is not None and self._job.sink is not None:  # nobody reads on, and it may be without end
                text = f"{self._job.name}() was ended: the server's middleware had ended the call"
                self._inner.cancel(CallCancelledError(text, message_id=self._job.message_id))
            await self._free_inner()
            self.released.set_result(None)

    async def _innermost(self, call: IncomingCall) -> Any:
        if self._inner is not None and self._job.sink is not None:
            raise RuntimeError(f"{self._job.name}() streams its items: it is run once, and what was sent cannot be taken back")
        await self._free_inner()
        job = dataclasses.replace(
            self._job, args=call.args, kwargs=call.kwargs, timeout=self._current.remaining(), context=contextvars.copy_context()
        )
        self._inner = self._pool.submit(job)
        self._last = outcome = await self._inner.outcome
        if outcome.failure is None:
            return outcome.value
        error = restore(outcome.failure)
        self._raised = error, outcome.failure
        raise error

    async def _free_inner(self) -> None:
        """Wait until the function's slot is free: an abandoned thread keeps it."""
        if self._inner is not None and not self._inner.released.done():
            await self._inner.released

    def _finish(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.outcome.done():
            self.outcome.set_result(outcome)
