"""What only async workers do."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import sys
import threading

import pytest
import worker_jobs
from worker_kit import PATIENCE, Meeting, make_job, run, soon, started

import prpc.workers.coroutine
from prpc.exceptions import CallCancelledError
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import PoolState, WorkerKind


def test_a_function_that_does_not_heed_its_cancellation_keeps_nobody_waiting():
    async def go():
        async with Meeting() as meeting, started("async", 1) as pool:
            execution = pool.submit(make_job(worker_jobs.stubborn, meeting.path, timeout=0.05))
            guest = await meeting.guest()
            assert (await soon(execution.outcome)).failure.type_name == "prpc.exceptions.WorkerTimeoutError"
            assert pool.state() == PoolState(1, 1, 1, 0)
            guest.let_go("end")
            await soon(execution.released)
            assert pool.state() == PoolState(1, 0, 0, 0)

    run(go())


def test_stop_does_not_wait_for_ever_for_a_stubborn_function(monkeypatch, caplog):
    monkeypatch.setattr(prpc.workers.coroutine, "STOP_SECONDS", 0.05)

    async def go():
        async with Meeting() as meeting:
            async with started("async", 1) as pool:
                execution = pool.submit(make_job(worker_jobs.stubborn, meeting.path))
                guest = await meeting.guest()
            assert (await soon(execution.outcome)).failure.type_name == "prpc.exceptions.ServerShutdownError"
            assert execution.released.done()
            assert "does not end although it was cancelled" in caplog.text
            guest.let_go()
            await guest.end()

    run(go())


def test_a_stubborn_function_does_not_hold_up_the_end_of_its_loop(monkeypatch):
    monkeypatch.setattr(prpc.workers.coroutine, "STOP_SECONDS", 0.01)

    async def stubborn():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    async def go():
        async with started("async", 1) as pool:
            pool.submit(make_job(stubborn))
            await asyncio.sleep(0)

    thread = threading.Thread(target=asyncio.run, args=(go(),), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    gc.collect()


def test_a_function_that_cancels_itself_or_is_cancelled_from_outside():
    async def cancel_me():
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    async def go():
        async with started("async", 2) as pool:
            failure = (await soon(pool.submit(make_job(cancel_me)).outcome)).failure
            assert failure.type_name == "asyncio.exceptions.CancelledError"
            before = asyncio.all_tasks()
            execution = pool.submit(make_job(worker_jobs.async_add, 1, 2))
            (task,) = asyncio.all_tasks() - before
            task.cancel()
            assert (await soon(execution.outcome)).failure.type_name == "prpc.exceptions.CallCancelledError"
            assert pool.state().busy == 0

    run(go())


def test_cancelling_before_the_first_step():
    async def go():
        async with started("async", 1) as pool:
            execution = pool.submit(make_job(worker_jobs.async_add, 1, 2))
            execution.cancel(CallCancelledError("no"))
            assert (await soon(execution.outcome)).failure.message == "no"
            await soon(execution.released)

    run(go())


def test_a_function_that_gives_nothing_to_await():
    async def go():
        async with started("async", 1) as pool:
            failure = (await soon(pool.submit(make_job(worker_jobs.add, 1, 2)).outcome)).failure
            assert failure.type_name == "builtins.TypeError"

    run(go())


def test_a_function_left_over_when_its_loop_closes(caplog):
    """A server that was not stopped: nothing is raised by what the interpreter clears away."""

    async def hang():
        await asyncio.get_running_loop().create_future()

    async def go(kept):
        pool = create_pool(WorkerKind.ASYNC, 1, Settings())
        await pool.start()
        kept.append(pool.submit(make_job(hang)))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    kept: list = []
    with caplog.at_level(logging.CRITICAL):
        loop.run_until_complete(go(kept))
        loop.close()
        kept.clear()
        gc.collect()


def test_functions_that_never_wait_leave_nothing_to_the_next_ones():
    kept = contextvars.ContextVar("kept", default="nothing")

    async def leave_things():
        kept.set("something")
        asyncio.current_task().cancel()  # noticed where it would wait, which it never does

    async def look():
        found = kept.get()
        await asyncio.sleep(0)
        return found

    async def go():
        async with started("async", 4) as pool:
            first, second, third = [pool.submit(make_job(function)) for function in (leave_things, look, look)]
            assert (await soon(first.outcome)).failure is None
            assert [(await soon(each.outcome)).value for each in (second, third)] == ["nothing", "nothing"]

    run(go())


def test_a_function_that_waits_has_its_task_for_itself():
    seen = []

    async def quick():
        seen.append(asyncio.current_task())

    async def waits():
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            assert asyncio.current_task() is task
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return task.get_name()

    async def go():
        async with started("async", 8) as pool:
            kinds = (quick, waits, quick, waits, quick)
            jobs = [pool.submit(make_job(function, message_id=str(number))) for number, function in enumerate(kinds)]
            outcomes = [await soon(each.outcome) for each in jobs]
            assert [outcome.failure for outcome in outcomes] == [None] * 5
            names = [outcome.value for outcome in outcomes if outcome.value]
            assert len(set(names)) == 2 and all(name.startswith("prpc ") for name in names)
            assert len(set(seen)) == 3  # one that waits takes the task of those before it along

    run(go())


def test_many_begin_in_one_turn_whatever_the_others_do():
    gate = []

    async def quick(number):
        return number

    async def waits(number):
        await asyncio.wait_for(gate[0].wait(), 60)
        return number

    async def fails(number):
        raise LookupError(number)

    async def go():
        gate.append(asyncio.Event())
        async with started("async", 300) as pool:
            kinds = [(quick, waits, fails)[number % 3] for number in range(300)]
            jobs = [pool.submit(make_job(function, number)) for number, function in enumerate(kinds)]
            for number in range(0, 300, 3):
                assert (await soon(jobs[number].outcome)).value == number
            for number in range(2, 300, 3):
                assert (await soon(jobs[number].outcome)).failure.type_name == "builtins.LookupError"
            assert pool.state().busy == 100
            gate[0].set()
            for number in range(1, 300, 3):
                assert (await soon(jobs[number].outcome)).value == number
            assert pool.state().busy == 0

    run(go())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are younger")
def test_a_loop_that_begins_tasks_at_once():
    async def waits(number):
        await asyncio.sleep(0)
        return number

    async def go():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with started("async", 8) as pool:
            jobs = [pool.submit(make_job(function, number, 0)) for number, function in enumerate([worker_jobs.async_add] * 3)]
            jobs += [pool.submit(make_job(waits, number)) for number in range(3, 6)]
            assert [(await soon(each.outcome)).value for each in jobs] == list(range(6))

    run(go())
