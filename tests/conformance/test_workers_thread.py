"""What only thread workers do."""

import subprocess
import sys
import threading

import worker_jobs
from worker_kit import Meeting, make_job, run, soon, started

from prpc.exceptions import CallCancelledError
from prpc.workers.base import PoolState

EXIT_SCRIPT = """
import asyncio, contextvars, threading
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import Job, WorkerKind

def forever():
    threading.Event().wait()

async def main():
    pool = create_pool(WorkerKind.THREAD, 1, Settings())
    await pool.start()
    execution = pool.submit(Job("m", "forever", forever, (), {}, 0.01, contextvars.copy_context(), {}))
    print((await execution.outcome).failure.type_name)
    await pool.stop()

asyncio.run(main())
"""


def test_an_abandoned_function_can_look_whether_it_is_wanted():
    async def go():
        async with Meeting() as meeting, started("thread", 1) as pool:
            execution = pool.submit(make_job(worker_jobs.meet_and_look, meeting.path, timeout=None))
            guest = await meeting.guest()
            seen = []
            execution.job.context.run(lambda: seen.append(worker_jobs.prpc.call_context.current_call()))
            assert not seen[0].cancelled
            execution.cancel(CallCancelledError("no"))
            assert seen[0].cancelled
            assert pool.state() == PoolState(1, 1, 1, 0)
            following = pool.submit(make_job(worker_jobs.add, 1, 2))
            assert not following.outcome.done()
            guest.let_go()
            assert (await soon(following.outcome)).value == 3
            assert execution.released.done()
            await soon(following.released)
            assert pool.state() == PoolState(1, 0, 0, 0)

    run(go())


def test_a_job_that_is_cancelled_before_its_thread_takes_it_up_does_not_run():
    async def go():
        async with started("thread", 1) as pool:
            gate = threading.Event()
            first = pool.submit(make_job(gate.wait))
            # Put a second job into the thread's hands while it is still in the first.
            ran = []
            second = pool.submit(make_job(ran.append, 1))
            second.cancel(CallCancelledError("no"))
            gate.set()
            await soon(first.released)
            await soon(second.released)
            assert ran == []
            third = pool.submit(make_job(ran.append, 2))
            third.cancel(CallCancelledError("no"))
            await soon(third.released)

    run(go())


def test_threads_end_with_the_pool():
    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("prpc-thread")]

    async def go():
        async with started("thread", 3):
            assert len(ours()) == 3
        assert not ours()

    run(go())


def test_an_abandoned_function_does_not_hold_up_the_interpreters_end():
    result = subprocess.run([sys.executable, "-c", EXIT_SCRIPT], capture_output=True, text=True, timeout=50)
    assert (result.returncode, result.stdout, result.stderr) == (0, "prpc.exceptions.WorkerTimeoutError\n", "")


def test_a_function_that_returns_after_its_loop_was_closed_ends_quietly():
    gate, threads = threading.Event(), []

    def wait():
        threads.append(threading.current_thread())
        gate.wait()

    async def go():
        async with started("thread", 1) as pool:
            execution = pool.submit(make_job(wait, timeout=0.01))
            assert (await soon(execution.outcome)).failure is not None

    run(go())
    gate.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
