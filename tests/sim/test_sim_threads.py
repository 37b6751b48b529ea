"""Simulated threads: each wait in virtual time, death and pause, and the same run from the same seed."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from tests.sim.fence import fenced, installed
from tests.sim.hosts import HOST, Host
from tests.sim.loop import Deadlock, SimLoop, SimulationFenceError
from tests.sim.programs import spawn_plain


@pytest.fixture(autouse=True)
def _walls() -> Iterator[None]:
    with installed():
        yield


@contextmanager
def a_run(seed: int = 1) -> Iterator[SimLoop]:
    loop = SimLoop(Random(seed))
    with fenced(loop, Random(seed)):
        try:
            yield loop
        finally:
            loop.close()


def plain(function: Callable[[], Any], seed: int = 1) -> Any:
    """What the program of one process returns; no error is left."""
    with a_run(seed) as loop:
        host = loop.add_host("p", offset=100.0)

        async def world() -> Any:
            return await spawn_plain(loop, host, function)

        value = loop.run(world())
        assert loop.errors == []
        return value


def in_thread(function: Callable[[], object], **options: Any) -> threading.Thread:
    thread = threading.Thread(target=function, **options)
    thread.start()
    return thread


def test_a_program_sleeps_in_virtual_time_and_has_no_loop() -> None:
    def program() -> tuple[float, bool]:
        began = time.monotonic()
        time.sleep(3600.0)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return time.monotonic() - began, threading.current_thread() is threading.main_thread()

    assert plain(program) == (3600.0, False)


def test_a_thread_is_the_current_one_and_a_part_of_its_process() -> None:
    def program() -> tuple[Any, ...]:
        seen: list[Any] = []

        def work() -> None:
            seen.extend((threading.current_thread(), threading.get_ident(), HOST.get().process.name))

        thread = in_thread(work, name="worker")
        thread.join()
        return seen[0] is thread, seen[1] == thread.ident != threading.get_ident(), seen[2], thread.is_alive()

    assert plain(program) == (True, True, "p", False)


def test_join_waits_for_the_end_or_its_timeout() -> None:
    def program() -> list[Any]:
        began = time.monotonic()
        thread = in_thread(lambda: time.sleep(5.0))
        thread.join(2.0)
        seen = [thread.is_alive(), time.monotonic() - began]
        thread.join()
        thread.join()
        return [*seen, thread.is_alive(), time.monotonic() - began]

    assert plain(program) == [True, 2.0, False, 5.0]


def test_a_thread_joins_neither_itself_nor_one_not_started_nor_starts_twice() -> None:
    def program() -> int:
        with pytest.raises(RuntimeError):
            threading.current_thread().join()
        with pytest.raises(RuntimeError):
            threading.Thread().join()
        thread = in_thread(lambda: None)
        with pytest.raises(RuntimeError):
            thread.start()
        return 1

    assert plain(program) == 1


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
@pytest.mark.parametrize("seed", range(8))
def test_a_lock_has_one_owner(make: Any, seed: int) -> None:
    def program() -> tuple[int, int]:
        lock = getattr(threading, make.__name__ if make is threading.RLock else "Lock")()
        most, count, total = 0, 0, 0

        def work() -> None:
            nonlocal most, count, total
            for _ in range(5):
                with lock:
                    count += 1
                    most = max(most, count)
                    time.sleep(0.1)
                    count -= 1
                    total += 1

        for thread in [in_thread(work) for _ in range(3)]:
            thread.join()
        return most, total

    assert plain(program, seed) == (1, 15)


def test_a_lock_that_is_held_is_waited_for_so_long() -> None:
    def program() -> tuple[Any, ...]:
        lock = threading.Lock()
        assert lock.acquire()
        began = time.monotonic()
        seen = lock.acquire(False), lock.acquire(timeout=0), lock.acquire(timeout=1.5), time.monotonic() - began
        in_thread(lambda: (time.sleep(1.0), lock.release()))
        return *seen, lock.acquire(timeout=2.0), time.monotonic() - began

    assert plain(program) == (False, False, False, 1.5, True, 2.5)


def test_an_rlock_may_be_taken_again_by_its_owner_alone() -> None:
    def program() -> list[Any]:
        lock, seen = threading.RLock(), []
        with lock, lock:
            thread = in_thread(lambda: seen.append(lock.acquire(timeout=1.0)))
            thread.join()
        return seen

    assert plain(program) == [False]


def test_a_condition_wakes_who_waits() -> None:
    def program() -> tuple[Any, ...]:
        changed, seen = threading.Condition(), []

        def wait() -> None:
            with changed:
                seen.append(changed.wait(10.0))

        threads = [in_thread(wait) for _ in range(3)]
        time.sleep(1.0)
        with changed:
            changed.notify(2)
        for thread in threads:
            thread.join()
        return sorted(seen), time.monotonic() % 100

    assert plain(program) == ([False, True, True], 10.0)


def test_a_condition_with_a_lock_from_before_the_run_works() -> None:
    lock = threading.RLock()

    def program() -> Any:
        changed, ready = threading.Condition(lock), []

        def tell() -> None:
            with changed:
                ready.append(1)
                changed.notify_all()

        with changed:
            in_thread(tell)
            return changed.wait_for(lambda: ready, 5.0)

    assert plain(program) == [1]


def test_event_semaphore_and_queues() -> None:
    def program() -> list[Any]:
        event, semaphore, seen = threading.Event(), threading.Semaphore(0), []
        simple: Any = queue.SimpleQueue()
        bounded: queue.Queue[int] = queue.Queue(1)

        def work() -> None:
            seen.append(event.wait(1.0))
            seen.append(event.wait())
            semaphore.release()
            simple.put("simple")
            bounded.put(1)
            bounded.put(2)

        in_thread(work)
        time.sleep(2.0)
        event.set()
        seen.extend((semaphore.acquire(timeout=5.0), semaphore.acquire(timeout=0.5), simple.get(), bounded.get(timeout=1.0)))
        seen.append(bounded.get(timeout=1.0))
        for get in (lambda: simple.get(timeout=1.0), lambda: bounded.get(timeout=1.0), simple.get_nowait):
            with pytest.raises(queue.Empty):
                get()
        return seen

    assert plain(program) == [False, True, True, False, "simple", 1, 2]


def test_a_future_is_waited_for() -> None:
    def program() -> Any:
        future: Future[str] = Future()
        with pytest.raises(TimeoutError):
            future.result(1.0)
        in_thread(lambda: (time.sleep(1.0), future.set_result("done")))
        return future.result(), time.monotonic()

    assert plain(program) == ("done", 102.0)


def test_what_a_thread_does_not_catch_is_told() -> None:
    def fail() -> None:
        raise ValueError("lost")

    with a_run() as loop:

        async def world() -> None:
            await spawn_plain(loop, loop.add_host("p"), lambda: in_thread(fail, name="failing").join())

        loop.run(world())
        assert [(str(error["exception"]), error["host"]) for error in loop.errors] == [("lost", "p/failing")]


def test_a_program_that_fails_is_told_to_who_waits_for_it() -> None:
    with pytest.raises(ZeroDivisionError):
        plain(lambda: 1 / 0)


def test_a_program_ends_like_an_interpreter() -> None:
    def program(seen: list[str]) -> None:
        import atexit

        atexit.register(seen.append, "exit")
        atexit.register(seen.append, "never")
        atexit.unregister(seen.append)
        atexit.register(lambda: seen.append("exit"))
        in_thread(lambda: (time.sleep(1.0), seen.append("joined")))
        in_thread(lambda: (time.sleep(9.0), seen.append("never")), daemon=True)

    with a_run() as loop:
        seen: list[str] = []

        async def world() -> None:
            await spawn_plain(loop, loop.add_host("p"), program, seen)
            await asyncio.sleep(20.0)

        loop.run(world())
        assert seen == ["joined", "exit"]


# Processes.


def test_what_is_killed_goes_on_nowhere() -> None:
    seen: list[str] = []

    def program() -> None:
        try:
            thread = in_thread(lambda: (time.sleep(2.0), seen.append("thread")))
            thread.join()
        finally:
            seen.append("finally")

    with a_run() as loop:
        host = loop.add_host("p")

        async def world() -> None:
            spawn_plain(loop, host, program)
            await asyncio.sleep(1.0)
            loop.kill(host)
            await asyncio.sleep(9.0)
            assert seen == []

        loop.run(world())
        assert loop.errors == []


def test_what_is_paused_goes_on_afterwards() -> None:
    seen: list[float] = []

    def program() -> None:
        in_thread(lambda: (time.sleep(2.0), seen.append(time.monotonic()))).join()
        seen.append(time.monotonic())

    with a_run() as loop:
        host = loop.add_host("p")

        async def world() -> None:
            done = spawn_plain(loop, host, program)
            await asyncio.sleep(1.0)
            loop.pause(host)
            await asyncio.sleep(9.0)
            assert seen == []
            loop.resume(host)
            await done

        loop.run(world())
        assert seen == pytest.approx([10.0, 10.0])


def test_nobody_can_go_on() -> None:
    def stuck() -> None:
        lock = threading.Lock()
        with lock, lock:
            pass

    with a_run() as loop:

        async def world() -> None:
            await spawn_plain(loop, loop.add_host("p"), stuck)

        with pytest.raises(Deadlock):
            loop.run(world())
        assert "stands still: stuck:" in loop.dump()


def test_a_lock_of_a_run_that_is_over_is_not_waited_for() -> None:
    kept: list[Any] = []

    def program() -> None:
        kept.append(threading.Lock())
        kept[0].acquire()

    plain(program)
    with pytest.raises(SimulationFenceError):
        kept[0].acquire()


def trace_of(seed: int) -> tuple[int, list[str]]:
    """A run of three threads that fight, and what they did."""
    seen: list[str] = []

    def program() -> None:
        lock, items = threading.Lock(), queue.Queue[str](2)

        def work(name: str) -> None:
            for number in range(5):
                with lock:
                    seen.append(f"{name}{number}")
                items.put(name)

        threads = [in_thread(lambda name=name: work(name)) for name in "abc"]
        for _ in range(15):
            seen.append(items.get())
        for thread in threads:
            thread.join()

    with a_run(seed) as loop:

        async def world() -> None:
            await spawn_plain(loop, loop.add_host("p"), program)

        loop.run(world())
        return loop.trace, seen


def test_the_same_seed_makes_the_same_run() -> None:
    assert trace_of(3) == trace_of(3)
    assert len({tuple(trace_of(seed)[1]) for seed in range(10)}) > 5


# Loops and threads.


def test_a_coroutine_may_not_sleep_so_but_may_start_and_join_a_thread_and_its_tasks_go_on_afterwards() -> None:
    seen: list[str] = []

    async def main() -> None:
        with pytest.raises(SimulationFenceError):
            time.sleep(1.0)
        asyncio.get_running_loop().call_later(1.0, seen.append, "timer")
        thread = in_thread(lambda: (time.sleep(2.0), seen.append("thread")))
        thread.join()
        seen.append("joined")
        await asyncio.sleep(1.0)

    async def other() -> None:
        await asyncio.sleep(1.5)
        seen.append("other")

    with a_run() as loop:
        host, elsewhere = loop.add_host("p"), loop.add_host("q")

        async def world() -> None:
            await asyncio.gather(loop.spawn(host, main()), loop.spawn(elsewhere, other()))

        loop.run(world())
        assert seen == ["other", "thread", "joined", "timer"]
        assert loop.now == pytest.approx(3.0)


def test_a_thread_tells_its_process_loop_and_nobody_elses() -> None:
    hosts: list[tuple[Host, Host]] = []

    async def main(loop: SimLoop) -> None:
        told = asyncio.Event()

        def tell() -> None:
            hosts.append((HOST.get(), loop.current))
            told.set()

        def work() -> None:
            with pytest.raises(SimulationFenceError):
                loop.call_soon(tell)
            loop.call_soon_threadsafe(tell)

        in_thread(work, daemon=True)
        await told.wait()

    with a_run() as loop:
        host = loop.add_host("p")

        async def world() -> None:
            await loop.spawn(host, main(loop))

        loop.run(world())
        assert hosts == [(host, host)]


def test_a_program_may_run_loops_of_its_own() -> None:
    def program() -> list[Any]:
        seen: list[Any] = []
        left: set[Any] = set()

        async def items() -> Any:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(1.0)
                seen.append("closed")

        async def main() -> str:
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(9.0):
                async for item in items():
                    seen.append(item)
                    break
                await asyncio.sleep(2.0)
            seen.append(time.monotonic() - began)
            left.add(asyncio.create_task(asyncio.sleep(100.0)))
            return "main"

        seen.append(asyncio.run(main()))
        seen.append(asyncio.run(main()))
        return seen

    late = pytest.approx(2.0)
    assert plain(program) == [1, "closed", late, "main", 1, "closed", late, "main"]


def test_coroutines_run_in_the_loop_of_another_thread() -> None:
    def program() -> tuple[Any, ...]:
        started: Future[asyncio.AbstractEventLoop] = Future()

        async def stay() -> None:
            started.set_result(asyncio.get_running_loop())
            await asyncio.sleep(10.0)

        async def work() -> tuple[str, str]:
            await asyncio.sleep(1.0)
            return HOST.get().name, threading.current_thread().name

        thread = in_thread(lambda: asyncio.run(stay()), name="side")
        found = asyncio.run_coroutine_threadsafe(work(), started.result()).result(5.0)
        with pytest.raises(SimulationFenceError):
            started.result().call_soon(print)
        thread.join()
        return *found, time.monotonic()

    assert plain(program) == ("p/side", "side", pytest.approx(110.0))
