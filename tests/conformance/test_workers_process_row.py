"""Short jobs that wait behind another in a worker process: what begins, what does not, and who knows it."""

import asyncio
import contextlib
import os
import random
import signal
import time
from dataclasses import replace

import pytest
import worker_jobs
from worker_kit import Meeting, make_job, run, soon, started

import prpc.workers.process
from prpc.exceptions import CallCancelledError
from prpc.workers.base import PoolState
from prpc.workers.process_worker import MOST_BEHIND

LOST = "prpc.exceptions.WorkerLostError"
CANCELLED = "prpc.exceptions.CallCancelledError"
EXPIRED = "prpc.exceptions.DeadlineExceededError"
SHUTDOWN = "prpc.exceptions.ServerShutdownError"


@pytest.fixture
def patient(monkeypatch):
    """Jobs wait behind others for as long as it takes."""
    monkeypatch.setattr(prpc.workers.process, "SECONDS_BEHIND", 1000.0)


def pool_for(slots=1, functions=(worker_jobs.add, worker_jobs.meet, worker_jobs.note), **settings):
    return started("process", slots, functions=functions, **settings)


def short(function, *args, **facts):
    return replace(make_job(function, *args), returnable=True, **facts)


async def occupied(pool, meeting):
    """A job that runs until the test lets it go, and the test's end of it."""
    execution = pool.submit(make_job(worker_jobs.meet, meeting.path))
    return execution, await meeting.guest()


def notes(pool, path, count):
    """Short jobs that leave a trace where they run."""
    return [pool.submit(short(worker_jobs.note, str(path), number)) for number in range(count)]


async def value(execution):
    outcome = await soon(execution.outcome)
    assert outcome.failure is None and not outcome.returned, outcome
    return outcome.value


async def failure(execution):
    failed = (await soon(execution.outcome)).failure
    assert failed is not None
    return failed.type_name


def numbers(path):
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def test_jobs_in_a_row_are_run_in_their_order(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            first, guest = await occupied(pool, meeting)
            behind = notes(pool, path, MOST_BEHIND + 3)
            assert pool.behind == MOST_BEHIND
            assert pool.state() == PoolState(1, 1, 0, 0)
            assert all(execution.worker == "" and execution.running == 0.0 for execution in behind)
            guest.let_go("first")
            assert await value(first) == "first"
            for i, execution in enumerate(behind):
                assert await value(execution) == i
                await soon(execution.released)
                assert execution.worker == first.worker and execution.running > 0
        assert path.read_text().split() == [str(i) for i in range(MOST_BEHIND + 3)]

    run(go())


def test_a_job_behind_one_that_takes_long_comes_back_and_does_not_run(tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            first, guest = await occupied(pool, meeting)
            behind = notes(pool, path, 3)
            for execution in behind:
                assert (await soon(execution.outcome)).returned
                await soon(execution.released)
            assert not first.outcome.done() and pool.state() == PoolState(1, 1, 0, 0)
            next_one = pool.submit(make_job(worker_jobs.note, str(path), 7))
            guest.let_go("first")
            assert await value(first) == "first"
            assert await value(next_one) == 7
            assert await value(pool.submit(short(worker_jobs.note, str(path), 8))) == 8
        assert numbers(path) == [7, 8]

    run(go())


def test_recalled_jobs_do_not_run_and_the_first_goes_on(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            first = pool.submit(short(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            behind = notes(pool, path, MOST_BEHIND + 2)
            waits = pool.submit(make_job(worker_jobs.note, str(path), 99))
            pool.recall()
            assert all(execution.outcome.result().returned for execution in behind)
            guest.let_go("first")
            assert await value(first) == "first" and await value(waits) == 99
        assert numbers(path) == [99]

    run(go())


def test_a_worker_with_nothing_to_do_takes_what_waits_behind_another(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for(2) as pool:
            jobs = {name: pool.submit(make_job(worker_jobs.meet, meeting.path, name)) for name in ("one", "two")}
            guests = await meeting.guests(2)
            behind = notes(pool, path, 8)
            guests["one"].let_go("one")
            for i, execution in enumerate(behind):
                assert await value(execution) == i
            assert not jobs["two"].outcome.done()
            guests["two"].let_go("two")
            assert await value(jobs["two"]) == "two"
        assert numbers(path) == list(range(8))

    run(go())


@pytest.mark.parametrize("way", ["death", "cancel", "timeout"])
def test_only_the_job_that_runs_ends_with_its_worker(patient, tmp_path, way):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            timeout = 1.0 if way == "timeout" else None
            first = pool.submit(replace(short(worker_jobs.meet, meeting.path), timeout=timeout))
            guest = await meeting.guest()
            behind = notes(pool, path, 5)
            await asyncio.sleep(0)  # they are sent
            if way == "death":
                os.kill(guest.pid, signal.SIGKILL)
            elif way == "cancel":
                first.cancel(CallCancelledError("no"))
            expected = {"death": LOST, "cancel": CANCELLED, "timeout": "prpc.exceptions.WorkerTimeoutError"}
            assert await failure(first) == expected[way]
            for i, execution in enumerate(behind):
                assert await value(execution) == i
            assert pool.state().replaced == 1
        assert numbers(path) == list(range(5))

    run(go())


def test_cancelling_one_that_waits_harms_no_other(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            first, guest = await occupied(pool, meeting)
            behind = notes(pool, path, 5)
            await asyncio.sleep(0)
            for i in (1, 3):
                behind[i].cancel(CallCancelledError("no"))
                assert behind[i].outcome.result().failure.type_name == CANCELLED and behind[i].released.done()
            assert not first.outcome.done()
            guest.let_go("first")
            assert await value(first) == "first"
            assert [await value(behind[i]) for i in (0, 2, 4)] == [0, 2, 4]
            assert pool.state() == PoolState(1, 0, 0, 0)
        assert numbers(path) == [0, 2, 4]

    run(go())


def test_times_count_from_when_a_job_has_its_turn(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for(functions=(worker_jobs.remaining, worker_jobs.note)) as pool:
            first, guest = await occupied(pool, meeting)
            limited = pool.submit(short(worker_jobs.note, str(path), 1, timeout=0.2))
            late = pool.submit(short(worker_jobs.note, str(path), 2, left=0.1))
            asking = pool.submit(short(worker_jobs.remaining, left=50.0))
            begun = time.monotonic()
            while time.monotonic() - begun < 0.3:
                await asyncio.sleep(0.05)
            guest.let_go("first")
            assert await value(first) == "first"
            assert await value(limited) == 1
            assert await failure(late) == EXPIRED
            assert "was not started" in late.outcome.result().failure.message
            assert late.outcome.result().failure.facts["queued"] >= 0.1
            assert 40 < await value(asking) < 49.75
            slow = pool.submit(short(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            stuck = pool.submit(short(worker_jobs.meet, meeting.path, timeout=0.1))
            guest.let_go("slow")
            assert await value(slow) == "slow"
            await meeting.guest()
            assert await failure(stuck) == "prpc.exceptions.WorkerTimeoutError"
        assert numbers(path) == [1]

    run(go())


def test_a_pool_that_stops_ends_what_waits_in_its_workers(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for(2) as pool:
            heads = [pool.submit(make_job(worker_jobs.meet, meeting.path, str(i))) for i in range(2)]
            await meeting.guests(2)
            behind = notes(pool, path, 6)
            await asyncio.sleep(0)
            await pool.stop()
            for execution in (*heads, *behind):
                assert await failure(execution) == SHUTDOWN
                await soon(execution.released)
        assert numbers(path) == []

    run(go())


def test_a_worker_that_has_served_long_enough_takes_no_more_in_a_row(patient):
    async def go():
        async with pool_for(functions=(worker_jobs.pid,), process_max_calls=3) as pool:
            jobs = [pool.submit(short(worker_jobs.pid)) for _ in range(10)]
            pids = [await value(execution) for execution in jobs]
            assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3, 1]

    run(go())


def test_a_worker_that_has_grown_too_large_ends_after_the_job_that_it_has_begun(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        functions = worker_jobs.hold_memory, worker_jobs.note_and_meet, worker_jobs.pid
        async with Meeting() as meeting, pool_for(functions=functions, process_max_bytes=150_000_000) as pool:
            large = pool.submit(make_job(worker_jobs.hold_memory, 200_000_000))
            begun = pool.submit(short(worker_jobs.note_and_meet, str(path), 1, meeting.path))
            behind = [pool.submit(short(worker_jobs.pid)) for _ in range(6)]
            await asyncio.sleep(0)  # they are sent
            while not numbers(path):  # nothing is heard of the large one before the next has begun
                time.sleep(0.001)
            pid = await value(large)
            guest = await meeting.guest()
            assert guest.pid == pid
            guest.let_go("begun")
            assert await value(begun) == "begun"
            assert pid not in [await value(execution) for execution in behind]
            assert pool.state().replaced == 1

    run(go())


def test_a_fork_of_user_code_does_not_run_what_its_parent_was_to_run(patient, tmp_path):
    path = tmp_path / "ran"

    async def go():
        async with Meeting() as meeting, pool_for() as pool:
            first, guest = await occupied(pool, meeting)
            forks = [pool.submit(short(worker_jobs.fork_and_return)) for _ in range(2)]
            behind = notes(pool, path, 10)
            await asyncio.sleep(0)
            guest.let_go("first")
            assert await value(first) == "first"
            assert [await value(execution) for execution in forks] == ["parent", "parent"]
            assert [await value(execution) for execution in behind] == list(range(10))
        assert numbers(path) == list(range(10))

    run(go())


def test_arguments_and_results_of_any_size_in_a_row(patient):
    async def go():
        async with pool_for(2, functions=(worker_jobs.blob,)) as pool:
            sizes = [10, 3_000_000, 100_000, 0, 65_536, 70_000] * 4
            jobs = [pool.submit(short(worker_jobs.blob, b"x" * size, size)) for size in sizes]
            for size, execution in zip(sizes, jobs, strict=True):
                assert len((await value(execution))[1]) == size

    run(go())


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_every_job_has_one_end_and_it_is_true(tmp_path, seed):
    """Workers are killed and jobs cancelled and recalled at random: what is told of each job is what it did."""
    chance = random.Random(seed)
    path = tmp_path / "ran"

    async def go():
        jobs = {}
        async with pool_for(3) as pool:
            for i in range(1500):
                function = worker_jobs.note if chance.random() < 0.99 else worker_jobs.note_and_pause
                jobs[i] = pool.submit(replace(short(function, str(path), i), returnable=chance.random() < 0.9))
                if chance.random() < 0.02:
                    jobs[chance.randrange(max(0, i - 20), i + 1)].cancel(CallCancelledError("no"))
                if chance.random() < 0.005:
                    working = [
                        execution.worker for execution in jobs.values() if not execution.outcome.done() and execution.worker
                    ]
                    if working:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(working[0].rpartition("-")[2]), signal.SIGKILL)
                if i % 300 == 299:
                    jobs |= {1500 + i + n: pool.submit(short(worker_jobs.note, str(path), 1500 + i + n)) for n in range(8)}
                    pool.recall()
                if chance.random() < 0.1:
                    await asyncio.sleep(0.001)
            for execution in jobs.values():
                await soon(execution.outcome)
                await soon(execution.released)
            assert pool.state().busy == 0
            assert await value(pool.submit(make_job(worker_jobs.add, 1, 2))) == 3
        ran = numbers(path)
        ends = {"value": set(), "returned": set(), CANCELLED: set(), LOST: set()}
        for i, execution in jobs.items():
            outcome = execution.outcome.result()
            ends[outcome.failure.type_name if outcome.failure else "returned" if outcome.returned else "value"].add(i)
        assert len(ran) == len(set(ran))
        assert ends["value"] <= set(ran) and not ends["returned"] & set(ran)
        assert ends["value"] and ends["returned"]

    run(go())
