"""Behaviours that the three kinds of workers share."""

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest
import worker_jobs
from worker_kit import Meeting, make_job, run, soon, started

from prpc.exceptions import CallCancelledError, ServerShutdownError
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import PoolState, WorkerKind

KINDS = ["thread", "async", "process"]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def function(kind, name):
    return getattr(worker_jobs, f"async_{name}" if kind == "async" else name)


def pool_for(kind, slots=2, **settings):
    wanted = [worker_jobs.async_add if kind == "async" else worker_jobs.add]
    return started(kind, slots, functions=wanted, **settings)


def test_a_result(kind):
    async def go():
        async with pool_for(kind) as pool:
            execution = pool.submit(make_job(function(kind, "add"), 1, b=2))
            outcome = await soon(execution.outcome)
            assert (outcome.value, outcome.failure) == (3, None)
            assert outcome.running >= 0 and outcome.worker
            await soon(execution.released)
            assert pool.kind == kind and pool.state() == PoolState(2, 0, 0, 0)

    run(go())


def test_an_exception_comes_with_everything(kind):
    async def go():
        async with pool_for(kind) as pool:
            failure = (await soon(pool.submit(make_job(function(kind, "fail"))).outcome)).failure
            assert failure.type_name == "worker_jobs.CardRefused" and failure.message == "no money"
            assert failure.notes == ("ask the bank",)
            assert failure.cause.type_name == "builtins.KeyError" and failure.explicit_cause
            assert 'raise KeyError("inner")' in failure.traceback and "prpc/workers" not in failure.traceback

    run(go())


def test_wrong_arguments_are_the_functions_exception(kind):
    async def go():
        async with pool_for(kind) as pool:
            failure = (await soon(pool.submit(make_job(function(kind, "add"), 1)).outcome)).failure
            assert failure.type_name == "builtins.TypeError" and "missing 1 required" in failure.message

    run(go())


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("leave", "builtins.SystemExit"),
        ("interrupt", "builtins.KeyboardInterrupt"),
        ("raise_unaskable", "worker_jobs.Unaskable"),
        ("stop_iteration", None),
    ],
)
def test_what_is_no_ordinary_exception_is_only_a_failure(kind, name, type_name):
    async def go():
        async with pool_for(kind) as pool:
            failure = (await soon(pool.submit(make_job(function(kind, name))).outcome)).failure
            expected = type_name or ("asyncio.exceptions.CancelledError" if kind == "async" else "builtins.StopIteration")
            assert failure.type_name == expected
            assert (await soon(pool.submit(make_job(function(kind, "add"), 1, 2)).outcome)).value == 3
            assert pool.state().replaced == 0

    run(go())


def test_a_timeout_answers_and_the_pool_goes_on(kind):
    async def go():
        async with Meeting() as meeting, pool_for(kind) as pool:
            execution = pool.submit(make_job(function(kind, "meet"), meeting.path, timeout=0.2))
            guest = await meeting.guest()
            outcome = await soon(execution.outcome)
            failure = outcome.failure
            assert failure.type_name == "prpc.exceptions.WorkerTimeoutError" and "meet" in failure.message
            assert failure.facts["function"].endswith("meet") and failure.facts["timeout"] == 0.2
            assert failure.facts["running"] >= 0.199
            if kind == "thread":
                assert not execution.released.done() and pool.state() == PoolState(2, 1, 1, 0)
                guest.let_go()
            await guest.end()
            await soon(execution.released)
            assert pool.state() == PoolState(2, 0, 0, 1 if kind == "process" else 0)
            assert (await soon(pool.submit(make_job(function(kind, "add"), 1, 2)).outcome)).value == 3

    run(go())


def test_an_end_in_time_leaves_no_timer(kind):
    async def go():
        async with pool_for(kind, slots=1) as pool:
            for number in range(5):
                execution = pool.submit(make_job(function(kind, "add"), number, 1, timeout=30))
                assert (await soon(execution.outcome)).value == number + 1

    run(go())


def test_cancelling_what_runs(kind):
    async def go():
        async with Meeting() as meeting, pool_for(kind) as pool:
            execution = pool.submit(make_job(function(kind, "meet"), meeting.path))
            guest = await meeting.guest()
            execution.cancel(CallCancelledError("not wanted any more", message_id="m-1"))
            outcome = await soon(execution.outcome)
            assert outcome.failure.type_name == "prpc.exceptions.CallCancelledError"
            execution.cancel(CallCancelledError("again"))
            assert execution.outcome.result() is outcome
            if kind == "thread":
                guest.let_go()
            await guest.end()
            await soon(execution.released)
            execution.cancel(CallCancelledError("after the end"))

    run(go())


def test_cancelling_what_waits_for_a_slot(kind):
    async def go():
        async with Meeting() as meeting, pool_for(kind, slots=1) as pool:
            first = pool.submit(make_job(function(kind, "meet"), meeting.path))
            guest = await meeting.guest()
            second = pool.submit(make_job(function(kind, "meet"), meeting.path, "second", timeout=0.001))
            third = pool.submit(make_job(function(kind, "add"), 1, 2, timeout=30))
            second.cancel(CallCancelledError("not wanted any more", message_id="m-2"))
            assert (await soon(second.outcome)).failure.message == "not wanted any more"
            await soon(second.released)
            guest.let_go("done")
            assert (await soon(first.outcome)).value == "done"
            assert (await soon(third.outcome)).value == 3

    run(go())


def test_a_job_whose_deadline_comes_while_it_waits_for_a_slot_is_not_run(kind):
    async def go():
        async with Meeting() as meeting, pool_for(kind, slots=1) as pool:
            first = pool.submit(make_job(function(kind, "meet"), meeting.path))
            guest = await meeting.guest()
            late = pool.submit(replace(make_job(function(kind, "meet"), meeting.path, "late"), left=1e-9))
            patient = pool.submit(replace(make_job(function(kind, "add"), 1, 2), left=60.0))
            guest.let_go("done")
            assert (await soon(first.outcome)).value == "done"
            failure = (await soon(late.outcome)).failure
            assert failure.type_name == "prpc.exceptions.DeadlineExceededError" and "was not started" in failure.message
            await soon(late.released)
            assert (await soon(patient.outcome)).value == 3
            assert patient.job.timeout < 60 and patient.job.call_facts["timeout"] == patient.job.timeout

    run(go())


def test_the_current_call_and_context_variables(kind):
    async def go():
        worker_jobs.variable.set("seen")
        async with pool_for(kind, slots=1) as pool:
            job = make_job(function(kind, "look_around"), message_id="m-7")
            value = (await soon(pool.submit(job).outcome)).value
            seen = "unset" if kind == "process" else "seen"
            assert value == ("m-7", job.name, {"who": "me"}, 2, True, seen)
            for _ in range(2):  # what one job sets, the next does not see
                before = (await soon(pool.submit(make_job(function(kind, "set_variable"), "changed")).outcome)).value
                assert before == seen

    run(go())


def test_logging_and_printing_from_inside(kind, caplog, capfd):
    async def go():
        async with pool_for(kind) as pool:
            outcome = await soon(pool.submit(make_job(function(kind, "log_and_print"), "this")).outcome)
            assert outcome.failure is None

    with caplog.at_level(logging.INFO):
        run(go())
    said, failed = (record for record in caplog.records if record.name == "worker_jobs")
    assert said.getMessage() == "said this" and said.levelname == "WARNING" and said.shade == "blue"
    assert "ValueError: logged" in caplog.text and failed.funcName == "log_and_print"
    assert capfd.readouterr().out == "printed this\n"


def test_many_jobs_at_once(kind):
    async def go():
        async with pool_for(kind, slots=4) as pool:
            executions = [pool.submit(make_job(function(kind, "add"), number, 1)) for number in range(1000)]
            assert pool.state().busy == 4
            outcomes = [await soon(execution.outcome) for execution in executions]
            assert [outcome.value for outcome in outcomes] == list(range(1, 1001))
            await soon(executions[-1].released)
            assert pool.state() == PoolState(4, 0, 0, 0)

    run(go())


def test_stop_ends_everything(kind):
    async def go():
        async with Meeting() as meeting:
            pool = create_pool(WorkerKind(kind), 2, Settings(), functions=[worker_jobs.add])
            await pool.start()
            executions = [pool.submit(make_job(function(kind, "meet"), meeting.path)) for _ in range(3)]
            guests = [await meeting.guest() for _ in range(2)]
            await pool.stop()
            await pool.stop()
            for execution in executions:
                assert (await soon(execution.outcome)).failure.type_name == "prpc.exceptions.ServerShutdownError"
                await soon(execution.released)
            assert pool.state().busy == 0
            if kind == "thread":
                for guest in guests:
                    guest.let_go()
            for guest in guests:
                await guest.end()
            late = pool.submit(make_job(function(kind, "add"), 1, 2))
            assert (await soon(late.outcome)).failure.type_name == "prpc.exceptions.ServerShutdownError"

    run(go())


def test_a_pool_that_was_not_started(kind):
    async def go():
        pool = create_pool(WorkerKind(kind), 2, Settings(), functions=[worker_jobs.add])
        with pytest.raises(RuntimeError, match="not started"):
            pool.submit(make_job(function(kind, "add"), 1, 2))
        assert pool.state() == PoolState(2, 0)
        await pool.stop()

    run(go())


def test_a_caller_that_goes_away_harms_nothing(kind):
    async def go():
        async with Meeting() as meeting, pool_for(kind, slots=1) as pool:
            execution = pool.submit(make_job(function(kind, "meet"), meeting.path))
            guest = await meeting.guest()
            caller = asyncio.ensure_future(execution.outcome)
            await asyncio.sleep(0)
            caller.cancel()
            guest.let_go()
            await soon(execution.released)
            assert (await soon(pool.submit(make_job(function(kind, "add"), 1, 2)).outcome)).value == 3

    run(go())


def test_no_context_is_needed_for_cancelling(kind):
    """A job that no server made has no current call."""

    async def go():
        import contextvars
        from dataclasses import replace

        async with Meeting() as meeting, pool_for(kind) as pool:
            job = replace(make_job(function(kind, "meet"), meeting.path), context=contextvars.Context(), call_facts={})
            execution = pool.submit(job)
            guest = await meeting.guest()
            execution.cancel(ServerShutdownError("stop"))
            assert (await soon(execution.outcome)).failure.message == "stop"
            with contextlib.suppress(ConnectionError):
                guest.let_go()
            await soon(execution.released)

    run(go())


def test_idle_pools_stop_at_once(kind):
    async def go():
        async with pool_for(kind):
            await asyncio.sleep(0)

    run(go())
