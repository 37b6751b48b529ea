"""Process workers of the simulation, behind prpc/workers/base.py: each worker is a part of its server that can die alone."""

from __future__ import annotations

import itertools
import time
from typing import Any

from prpc.exceptions import WorkerLostError
from prpc.workers.base import Job, Outcome, WorkerKind
from prpc.workers.slots import SlotExecution, SlotPool, describe_raised
from tests.sim.hosts import HOST, Host
from tests.sim.loop import SimLoop

__all__ = ["SimProcessPool"]

#: Seconds until a worker that died is replaced.
REPLACED_AFTER = 0.02
#: Jobs that wait behind the one that a worker runs, at most, and for so many seconds.
BEHIND, SECONDS_BEHIND = 3, 0.05


class SimProcessPool(SlotPool):
    """Runs a function's `simulated` coroutine function in a host of its own, which ends with the run where it is ended."""

    def __init__(self, slots: int) -> None:
        super().__init__(WorkerKind.PROCESS, slots)
        self.behind = BEHIND * slots
        self._host = HOST.get()
        self._numbers = itertools.count(1)
        self._workers: dict[SlotExecution, Host] = {}
        self._host.globals.setdefault("process pools", []).append(self)

    async def _open(self) -> None:
        """Workers come with their runs."""

    async def _close(self) -> None:
        """Those that still ran were killed."""

    def submit(self, job: Job) -> SlotExecution:
        """What waits in a worker is what waits in line here: only its kin in the real pool can tell the difference."""
        execution = super().submit(job)
        if job.returnable and execution.began is None:
            self.loop.call_later(SECONDS_BEHIND, self._look)
        return execution

    def _look(self) -> None:
        self._send_back(time.monotonic() - SECONDS_BEHIND)

    def _begin(self, execution: SlotExecution) -> None:
        loop = self.loop
        assert isinstance(loop, SimLoop)
        worker = self._workers[execution] = loop.add_host(f"{self._host.name}.p{next(self._numbers)}", self._host)
        execution.worker = worker.name
        context = execution.job.context.copy()
        context.run(HOST.set, worker)
        loop.create_task(self._run(execution, loop, worker), context=context, name=worker.name)

    async def _run(self, execution: SlotExecution, loop: SimLoop, worker: Host) -> None:
        job = execution.job
        try:
            outcome = Outcome(await _body(job)(*job.args, **job.kwargs), running=execution.running, worker=worker.name)
        except BaseException as exc:
            outcome = describe_raised(exc, execution.running, worker.name)
        loop.on(self._host, self._done, execution, outcome)

    def _done(self, execution: SlotExecution, outcome: Outcome) -> None:
        execution.decide(outcome)
        self._workers.pop(execution, None)
        self._release(execution)

    def _end(self, execution: SlotExecution) -> None:
        self._kill(execution)
        self.loop.call_later(REPLACED_AFTER, self._release, execution)

    def _kill(self, execution: SlotExecution) -> None:
        worker = self._workers.pop(execution, None)
        if worker is not None:
            assert isinstance(self.loop, SimLoop)
            self.loop.kill(worker)

    @property
    def busy(self) -> list[SlotExecution]:
        """What runs in a worker, oldest first."""
        return list(self._workers)

    def lose(self, execution: SlotExecution) -> None:
        """Its worker dies by itself."""
        if execution not in self._workers:
            return
        self._kill(execution)
        text = f"the worker process that ran {execution.job.name} was killed by signal 9"
        execution.fail(WorkerLostError(text, function=execution.job.name, exit_code=-9))
        self._replaced += 1
        self.loop.call_later(REPLACED_AFTER, self._release, execution)


def _body(job: Any) -> Any:
    return job.function.simulated
