"""What only process workers do: dying, being killed, replacement, crossing."""

import asyncio
import gc
import logging
import os
import signal
import threading
from dataclasses import replace

import psutil
import pytest
import worker_jobs
from worker_kit import Meeting, make_job, run, soon, started, worker_processes

import prpc.workers.process
from prpc.exceptions import CallCancelledError, RegistrationError
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import PoolState, WorkerKind

METHODS = ["forkserver", "spawn"]
LOST = "prpc.exceptions.WorkerLostError"
REFUSED = "prpc.exceptions.EncodeError"


def pool_for(slots=2, functions=(worker_jobs.add,), **settings):
    return started("process", slots, functions=functions, **settings)


async def value(pool, function, *args, **kwargs):
    outcome = await soon(pool.submit(make_job(function, *args, **kwargs)).outcome)
    assert outcome.failure is None, outcome.failure
    return outcome.value


async def failure(pool, function, *args, **kwargs):
    outcome = await soon(pool.submit(make_job(function, *args, **kwargs)).outcome)
    assert outcome.failure is not None, outcome.value
    return outcome.failure


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_has_a_session_of_its_own_and_leaves_ctrl_c_to_the_server(method):
    async def go():
        async with pool_for(process_start_method=method) as pool:
            session, pid, ignores = await value(pool, worker_jobs.session)
            assert session == pid != os.getpid() and ignores

    run(go())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("function", "args", "code", "words"),
    [
        (worker_jobs.die, (7,), 7, "exit code 7"),
        (worker_jobs.die, (0,), 0, "exit code 0"),
        (worker_jobs.segfault, (), -signal.SIGSEGV, "SIGSEGV"),
        (worker_jobs.kill_self, (signal.SIGKILL,), -signal.SIGKILL, "SIGKILL"),
        (worker_jobs.kill_self, (signal.SIGTERM,), -signal.SIGTERM, "SIGTERM"),
    ],
)
def test_a_worker_that_dies_is_named_and_replaced(method, function, args, code, words):
    async def go():
        async with Meeting() as meeting, pool_for(process_start_method=method) as pool:
            neighbour = pool.submit(make_job(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            execution = pool.submit(make_job(function, *args))
            lost = (await soon(execution.outcome)).failure
            assert lost.type_name == LOST and lost.facts == {"function": function.__name__, "exit_code": code}
            assert words in lost.message
            await soon(execution.released)
            assert pool.state() == PoolState(2, 1, 0, 1)
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            guest.let_go("unharmed")
            assert (await soon(neighbour.outcome)).value == "unharmed"

    run(go())


def test_a_memory_error_is_an_exception_like_any_other():
    async def go():
        async with pool_for() as pool:
            assert (await failure(pool, worker_jobs.memory_error)).type_name == "builtins.MemoryError"
            assert pool.state().replaced == 0

    run(go())


def test_a_worker_killed_from_outside_while_it_runs_and_while_it_is_idle():
    async def go():
        async with Meeting() as meeting, pool_for(1) as pool:
            execution = pool.submit(make_job(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            os.kill(guest.pid, signal.SIGKILL)
            assert (await soon(execution.outcome)).failure.facts["exit_code"] == -signal.SIGKILL
            idle = await value(pool, worker_jobs.pid)
            process = psutil.Process(idle)
            process.kill()
            while (found := await soon(pool.submit(make_job(worker_jobs.pid)).outcome)).failure:
                assert found.failure.type_name == LOST  # it was given the job before its death was known
            assert found.value != idle and pool.state().replaced == 2

    run(go())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["timeout", "cancel", "stop", "death"])
def test_no_descendant_survives(method, way):
    async def go():
        async with Meeting() as meeting:
            async with pool_for(process_start_method=method) as pool:
                timeout = 5.0 if way == "timeout" else None
                execution = pool.submit(make_job(worker_jobs.family, meeting.path, timeout=timeout))
                guests = await meeting.guests(4)
                assert set(guests) == {"worker", "child", "session", "daemon"}
                if way == "cancel":
                    execution.cancel(CallCancelledError("no"))
                elif way == "death":
                    os.kill(guests["worker"].pid, signal.SIGKILL)
                if way != "stop":
                    assert (await soon(execution.outcome)).failure is not None
                    for guest in guests.values():
                        await guest.end()
                    await soon(execution.released)
                    assert await value(pool, worker_jobs.add, 1, 2) == 3
            for guest in guests.values():
                await guest.end()

    run(go())


def test_what_a_call_left_running_ends_with_its_worker():
    async def go():
        async with Meeting() as meeting:
            async with pool_for(1) as pool:
                pid = await value(pool, worker_jobs.leave_behind, meeting.path)
                guest = await meeting.guest()
                assert await value(pool, worker_jobs.pid) == pid
            await guest.end()

    run(go())


def test_neighbours_of_a_killed_worker_go_on():
    async def go():
        async with Meeting() as meeting, pool_for(3) as pool:
            names = ["one", "two", "three"]
            jobs = {name: pool.submit(make_job(worker_jobs.meet, meeting.path, name)) for name in names}
            guests = await meeting.guests(3)
            jobs["two"].cancel(CallCancelledError("no"))
            await guests["two"].end()
            await soon(jobs["two"].released)
            for name in ("one", "three"):
                guests[name].let_go(name)
                assert (await soon(jobs[name].outcome)).value == name
            assert pool.state() == PoolState(3, 0, 0, 1)

    run(go())


def test_a_fork_of_user_code_does_not_answer_in_the_workers_place():
    async def go():
        async with pool_for(1) as pool:
            assert await value(pool, worker_jobs.fork_and_return) == "parent"
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            assert pool.state().replaced == 0

    run(go())


def test_a_worker_that_closed_its_pipe_is_lost():
    async def go():
        async with pool_for(1) as pool:
            assert (await failure(pool, worker_jobs.close_everything)).type_name == LOST
            assert await value(pool, worker_jobs.add, 1, 2) == 3

    run(go())


# Crossing.


def test_arguments_that_cannot_cross_are_named():
    async def go():
        async with pool_for(1) as pool:
            error = await failure(pool, worker_jobs.add, 1, lambda: 1)
            assert error.type_name == REFUSED and error.facts["path"] == "func_args[1]"
            assert "argument 2 of add" in error.message and "function" in error.facts["type_name"]
            error = await failure(pool, worker_jobs.add, 1, b=threading.Lock())
            assert error.facts["path"] == "func_kwargs['b']" and "argument 'b' of add" in error.message
            assert (await failure(pool, worker_jobs.add, worker_jobs.make_unreadable(), 1)).type_name == REFUSED
            many = [pool.submit(make_job(worker_jobs.add, 1, lambda: 1)) for _ in range(3000)]
            for execution in many:
                assert (await soon(execution.outcome)).failure.type_name == REFUSED
            assert await value(pool, worker_jobs.add, 1, 2) == 3

    run(go())


def test_arguments_that_cannot_cross_together():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]

    async def go():
        async with pool_for(1) as pool:
            assert (await failure(pool, worker_jobs.add, deep, 1)).type_name == REFUSED

    run(go())
    while deep:  # taken apart level by level
        deep = deep[0]


def test_call_facts_that_cannot_cross():
    async def go():
        async with pool_for(1) as pool:
            job = replace(make_job(worker_jobs.add, 1, 2), call_facts={"headers": threading.Lock()})
            error = (await soon(pool.submit(job).outcome)).failure
            assert error.type_name == REFUSED and "the arguments of add cannot cross" in error.message

    run(go())


def test_results_that_cannot_cross_are_named():
    async def go():
        async with pool_for(1) as pool:
            error = await failure(pool, worker_jobs.make_lambda)
            assert error.type_name == REFUSED and error.facts["path"] == "result"
            assert "make_lambda returned a builtins.function" in error.message
            error = await failure(pool, worker_jobs.make_unreadable)
            assert error.type_name == REFUSED and "cannot be read here" in error.message
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            assert pool.state().replaced == 0

    run(go())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, worker_jobs.Unprintable])
def test_a_result_that_goes_off_where_it_is_read_ends_its_call_alone(error):
    async def go():
        async with pool_for(1) as pool:
            refused = await failure(pool, worker_jobs.make_bomb, error)
            assert refused.type_name == REFUSED and f"{error.__qualname__}: " in refused.message
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            assert pool.state().replaced == 0

    run(go())


def test_a_result_whose_class_does_not_tell_its_name_ends_its_call_alone():
    async def go():
        async with pool_for(1) as pool:
            refused = await failure(pool, worker_jobs.make_nameless)
            assert refused.type_name == REFUSED and "returned a worker_jobs.Nameless" in refused.message
            assert pool.state().replaced == 0

    run(go())


def test_functions_that_cannot_cross_are_refused_when_the_pool_is_made():
    def create(function):
        return create_pool(WorkerKind.PROCESS, 1, Settings(), functions=[function])

    def local():
        return 1

    wrong = [
        (lambda: 1, "a lambda has no name"),
        (local, "defined inside test_functions_that_cannot_cross_are_refused_when_the_pool_is_made"),
        (worker_jobs.outer(), "defined inside outer()"),
        (worker_jobs.LockedService().multiply, "cannot pickle '_thread.lock' object"),
    ]
    for function, words in wrong:
        with pytest.raises(RegistrationError) as caught:
            create(function)
        assert words in str(caught.value) and function.__qualname__ in str(caught.value)
        assert "thread worker" in str(caught.value) and caught.value.function.endswith(function.__qualname__)


def test_methods_of_picklable_objects_cross_and_unknown_functions_are_sent_along():
    service = worker_jobs.Service(3)

    async def go():
        async with pool_for(1, functions=[service.multiply, len]) as pool:
            assert await value(pool, service.multiply, 4) == 12
            assert await value(pool, len, "abc") == 3
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            error = await failure(pool, lambda: 1)
            assert error.type_name == REFUSED and "a lambda has no name" in error.message

    run(go())


@pytest.mark.parametrize("method", METHODS)
def test_big_arguments_and_results_do_not_stop_the_loop(method):
    async def go():
        async with Meeting() as meeting, pool_for(2, process_start_method=method) as pool:
            busy = pool.submit(make_job(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            size = 10_000_000
            turns = 0
            big = pool.submit(make_job(worker_jobs.blob, b"a" * size, size))
            while not big.outcome.done():  # the loop turns while the pipe is full
                turns += 1
                await asyncio.sleep(0)
            length, data = big.outcome.result().value
            assert length == size and data == b"r" * size and turns > 10
            guest.let_go()
            await soon(busy.outcome)

    run(go())


# Recycling, numbers.


def test_recycling_after_a_number_of_calls():
    async def go():
        async with pool_for(1, process_max_calls=3) as pool:
            seen = [await value(pool, worker_jobs.count_calls) for _ in range(7)]
            assert [count for _, count in seen] == [1, 2, 3, 1, 2, 3, 1]
            assert len({pid for pid, _ in seen}) == 3 and pool.state().replaced == 2

    run(go())


def test_recycling_after_a_number_of_bytes():
    async def go():
        async with pool_for(1, process_max_bytes=200_000_000) as pool:
            small = await value(pool, worker_jobs.pid)
            assert await value(pool, worker_jobs.hold_memory, 1000) == small
            assert await value(pool, worker_jobs.hold_memory, 250_000_000) == small
            assert await value(pool, worker_jobs.pid) != small
            assert pool.state().replaced == 1

    run(go())


def test_5000_jobs_leave_nothing_behind():
    async def go():
        async with pool_for(2) as pool:
            await value(pool, worker_jobs.add, 1, 2)

            async def batch():
                executions = [pool.submit(make_job(worker_jobs.add, number, 1)) for number in range(2500)]
                for number, execution in enumerate(executions):
                    assert (await soon(execution.outcome)).value == number + 1

            await batch()
            gc.collect()
            objects, me = len(gc.get_objects()), psutil.Process()
            descriptors = me.num_fds()
            await batch()
            gc.collect()
            assert len(gc.get_objects()) < objects + 200 and me.num_fds() == descriptors
            assert pool.state() == PoolState(2, 0, 0, 0)

    run(go())


def test_many_replacements_leave_nothing_behind():
    async def go():
        async with pool_for(2) as pool:
            await value(pool, worker_jobs.add, 1, 2)
            me = psutil.Process()
            descriptors, children = me.num_fds(), len(worker_processes())
            for _ in range(20):
                execution = pool.submit(make_job(worker_jobs.die, 1))
                await soon(execution.released)
            assert me.num_fds() == descriptors and len(worker_processes()) == children
        assert not worker_processes()

    run(go())


def test_a_worker_that_does_not_end_by_itself_is_killed(monkeypatch):
    """A function left a thread behind that the interpreter would wait for at its end."""
    monkeypatch.setattr(prpc.workers.process, "GRACE_SECONDS", 0.1)

    async def go():
        async with Meeting() as meeting:
            async with pool_for(1, process_max_calls=1) as pool:
                for _ in range(2):
                    await value(pool, worker_jobs.leave_a_thread, meeting.path)
                guest, last = await meeting.guest(), await meeting.guest()
                await guest.end()
            await last.end()

    run(go())


def test_a_worker_that_leaves_its_answer_and_dies_is_replaced():
    async def go():
        async with pool_for(1) as pool:
            assert await value(pool, worker_jobs.answer_and_die) == "answered"
            while (found := await soon(pool.submit(make_job(worker_jobs.add, 1, 2)).outcome)).failure:
                assert found.failure.type_name == LOST  # it was given to the worker that was about to die
            assert found.value == 3

    run(go())


def test_log_records_that_cannot_be_read_are_told(caplog):
    async def go():
        async with pool_for(1) as pool:
            assert await value(pool, worker_jobs.log_unreadable) is None

    run(go())
    assert "a log record of a process worker cannot be read" in caplog.text


def test_a_keeper_that_cannot_be_started_again_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(prpc.workers.process, "FIRST_BACKOFF", 0.01)
    real, attempts = prpc.workers.process.Control, []

    def control(*args):
        attempts.append(args)
        if len(attempts) in (2, 3):
            raise OSError("no more processes")
        return real(*args)

    monkeypatch.setattr(prpc.workers.process, "Control", control)

    async def go():
        async with Meeting() as meeting, pool_for(2) as pool:
            execution = pool.submit(make_job(worker_jobs.meet, meeting.path))
            psutil.Process((await meeting.guest()).pid).parent().kill()
            assert (await soon(execution.outcome)).failure.type_name == LOST
            assert await value(pool, worker_jobs.add, 1, 2) == 3
            assert len(attempts) == 4
            assert len(worker_processes()) <= 3

    run(go())
    assert "no more processes" in caplog.text


def test_a_keeper_that_is_killed_takes_its_workers_along_and_all_is_started_again(caplog):
    async def go():
        async with Meeting() as meeting, pool_for(2) as pool:
            execution = pool.submit(make_job(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            psutil.Process(guest.pid).parent().kill()
            lost = (await soon(execution.outcome)).failure
            assert lost.type_name == LOST
            await guest.end()
            await soon(execution.released)
            assert await value(pool, worker_jobs.add, 1, 2) == 3

    with caplog.at_level(logging.ERROR):
        run(go())
    assert "keeper of the process workers ended" in caplog.text
