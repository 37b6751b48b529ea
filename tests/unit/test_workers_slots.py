"""What the pools share, over a pool whose workers are the test itself."""

import asyncio
import contextvars
import time

from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import Job, Outcome, WorkerKind
from prpc.workers.slots import SlotPool


class ManualPool(SlotPool):
    """Begins late what it is given: a thread that is slow to take a job up."""

    delay = 0.0

    def __init__(self, slots):
        super().__init__(WorkerKind.THREAD, slots)
        self.begun = []
        self.ended = []

    async def _open(self):
        pass

    async def _close(self):
        pass

    def _begin(self, execution):
        execution.began = time.monotonic() + self.delay
        self.begun.append(execution)

    def _end(self, execution):
        self.ended.append(execution)


def make_job(timeout=None):
    return Job("m", "f", print, (), {}, timeout, contextvars.Context(), {})


def test_a_timeout_counts_from_the_start_of_the_run():
    async def go():
        pool = ManualPool(1)
        pool.delay = 0.05
        await pool.start()
        execution = pool.submit(make_job(timeout=0.05))
        outcome = await execution.outcome
        assert outcome.failure.facts["timeout"] == 0.05
        assert 0.04 < outcome.failure.facts["running"]
        assert time.monotonic() - execution.began >= 0.049
        assert pool.ended == [execution]
        await pool.stop()

    asyncio.run(go())


def test_jobs_get_slots_in_their_order_and_the_first_outcome_counts():
    async def go():
        pool = ManualPool(2)
        await pool.start()
        executions = [pool.submit(make_job()) for _ in range(4)]
        assert pool.begun == executions[:2]
        assert executions[0].decide(Outcome(1)) and not executions[0].decide(Outcome(2))
        assert pool.begun == executions[:2] and pool.state().abandoned == 1
        pool._release(executions[0])
        pool._release(executions[0])
        assert pool.begun == executions[:3] and executions[0].released.done()
        assert (await executions[0].outcome).value == 1
        assert executions[3].running == 0.0
        await pool.stop()
        assert all(execution.released.done() for execution in executions)

    asyncio.run(go())


def test_kinds_by_their_names():
    for kind in WorkerKind:
        assert create_pool(kind, 1, Settings()).kind is kind
