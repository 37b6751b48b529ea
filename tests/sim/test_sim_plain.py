"""PRPC's plain face and its thread workers inside the simulation: unchanged code, on simulated threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import pytest

from prpc import Client, as_completed, gather
from prpc.call_context import current_call
from prpc.client.channel import Channel
from prpc.exceptions import CallError, ClientTimeOutError, WorkerTimeoutError
from prpc.server.registry import Registry
from tests.sim.fence import fenced
from tests.sim.loop import SimLoop
from tests.sim.options import Options
from tests.sim.programs import spawn_plain
from tests.sim.run import prepared
from tests.sim.world import World


@pytest.fixture(autouse=True)
def _walls() -> Iterator[None]:
    with prepared():
        yield


def slow(seconds: float) -> str:
    time.sleep(seconds)
    return threading.current_thread().name


def progress(steps: int) -> int:
    for step in range(steps):
        current_call().progress(step, steps, f"step {step}")
        time.sleep(0.5)
    return steps


def numbers(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.01)
        yield number


def endless() -> Iterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        CLOSED.append(number)


CLOSED: list[int] = []


def total(items: Iterator[int]) -> int:
    return sum(items)


async def double(number: int) -> int:
    await asyncio.sleep(0.01)
    return 2 * number


def outer(number: int) -> int:
    """Calls on, from a thread of the server."""
    world = HERE["world"]
    with Client._over(Channel(world.settings)) as client:
        answer: int = client.call("double", number).result()
    return answer + 1


HERE: dict[str, World] = {}


def registry() -> Registry:
    made = Registry()
    for function in (slow, progress, numbers, endless, total, outer):
        made.add(function, "thread", idempotent=function is slow)
    made.add(double, "async")
    return made


Program = Callable[[Client], Any]


def simulate(
    *programs: Program,
    seed: int = 1,
    servers: int = 1,
    demotions: frozenset[int] | None = None,
    meanwhile: Callable[[World], Awaitable[None]] | None = None,
) -> Any:
    """What these plain client programs return, each a process of its own, and the run's trace."""
    options = Options(seed=seed, servers=servers)
    loop = SimLoop(Random(f"{seed} order"), demotions)
    with fenced(loop, Random(f"{seed} ids")):
        world = HERE["world"] = World(loop, options, registry())

        def program(function: Program) -> Any:
            with Client._over(Channel(world.settings)) as client:
                return function(client)

        async def live() -> list[Any]:
            for server in world.servers:
                world.start_server(server)
            done = [
                spawn_plain(loop, world.add_process(f"c{number}"), program, function) for number, function in enumerate(programs)
            ]
            if meanwhile is not None:
                await meanwhile(world)
            values = await asyncio.wait_for(asyncio.gather(*done), 300)
            for server in world.servers:
                if server.alive:
                    assert server.service is not None and server.host is not None and server.task is not None
                    loop.on(server.host, server.service.request_stop)
                    await asyncio.wait_for(server.task, 60)
            return values

        try:
            values = loop.run(live())
        except BaseException:
            print(loop.dump())
            raise
        assert loop.errors == []
    loop.close()
    return (values[0] if len(values) == 1 else values), loop.trace


def test_calls_of_plain_code() -> None:
    def program(client: Client) -> Any:
        task = client.call("slow", 0.5)
        with pytest.raises(ClientTimeOutError):
            task.sync_wait_result_task(0.1)
        return client.ping(), task.result(), client.call("double", 4).result()

    value, _ = simulate(program)
    assert value == ("pong", "prpc-thread-1", 8)


def test_several_processes_have_several_portals() -> None:
    seen: list[Any] = []

    def program(client: Client) -> int:
        from prpc.client.portal import current_portal

        number: int = client.call("double", len(seen)).result()
        seen.append(current_portal())
        return number

    simulate(program, program, program)
    assert len(set(seen)) == 3


def test_streams_of_generators_in_threads() -> None:
    CLOSED.clear()

    def program(client: Client) -> Any:
        with client.stream("endless") as stream:
            first = [next(stream) for _ in range(3)]
        return list(client.stream("numbers", 30)), first, client.call("total", iter(range(40))).result()

    value, _ = simulate(program)
    assert value == (list(range(30)), [0, 1, 2], sum(range(40)))
    assert len(CLOSED) == 1


def test_many_calls_at_once() -> None:
    def program(client: Client) -> Any:
        tasks = [client.call("double", number) for number in range(10)]
        done = sorted(task.result() for task in as_completed(tasks))
        return (
            done,
            gather(*[client.call("double", n) for n in range(3)]).result(),
            list(client.map("double", range(20), max_in_flight=4)),
        )

    value, _ = simulate(program)
    assert value[0] == [2 * n for n in range(10)]
    assert value[1] == [0, 2, 4]
    assert value[2] == [2 * n for n in range(20)]


def test_progress_is_told_in_the_loops_thread() -> None:
    def program(client: Client) -> Any:
        seen: list[Any] = []
        task = client.call("progress", 3)
        task.on_progress(lambda word: seen.append((word.done, threading.current_thread().name)))
        return task.result(), {name for _, name in seen}, seen[-1][0]

    value, _ = simulate(program)
    assert value[:2] == (3, {"prpc-client"})


def test_a_function_in_a_thread_calls_on() -> None:
    assert simulate(lambda client: client.call("outer", 5).result())[0] == 11


def test_an_abandoned_thread_holds_up_nobody() -> None:
    def program(client: Client) -> Any:
        with pytest.raises((WorkerTimeoutError, ClientTimeOutError)):
            client.options(timeout=1.0).call("slow", 1000.0).result()
        return client.call("double", 1).result()

    assert simulate(program)[0] == 2


def test_threads_of_a_client_share_its_connection() -> None:
    def program(client: Client) -> Any:
        seen: list[int] = []
        threads = [
            threading.Thread(target=lambda number=number: seen.append(client.call("double", number).result()))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(seen)

    assert simulate(program)[0] == [2 * n for n in range(8)]


def test_a_program_with_asyncio_run() -> None:
    def program(client: Client) -> Any:
        async def main() -> Any:
            return await client.call("double", 3), await client.call("slow", 0.1)

        (doubled, thread), then = asyncio.run(main()), client.call("double", 5).result()
        return doubled, thread.rpartition("-")[0], then

    assert simulate(program)[0] == (6, "prpc-thread", 10)


def test_connections_break_under_plain_code() -> None:
    async def cuts(world: World) -> None:
        for _ in range(10):
            await asyncio.sleep(0.3)
            world.network.cut(None, every=True)

    def program(client: Client) -> Any:
        client = client.options(idempotent=True)
        seen = []
        for number in range(20):
            try:
                seen.append(client.call("double", number).result())
            except CallError:
                seen.append(None)
            time.sleep(0.2)
        return seen

    value, _ = simulate(program, meanwhile=cuts)
    assert all(each in (None, 2 * number) for number, each in enumerate(value))
    assert sum(each is not None for each in value) > 10


def test_a_server_with_threads_dies_and_another_takes_over() -> None:
    async def kill(world: World) -> None:
        await asyncio.sleep(2.0)
        server = world.servers[0]
        assert server.host is not None
        world.kill(server.host)
        await asyncio.sleep(1.0)
        world.start_server(server)

    def program(client: Client) -> Any:
        return gather(*[client.options(idempotent=True, timeout=60).call("slow", 1.0) for _ in range(12)]).result()

    value, _ = simulate(program, servers=2, meanwhile=kill)
    assert len(value) == 12


def test_the_same_seed_makes_the_same_run() -> None:
    def program(client: Client) -> Any:
        tasks = [client.call("slow", 0.1) for _ in range(6)]
        return [task.result() for task in tasks], list(client.stream("numbers", 20))

    runs = [simulate(program, program, seed=seed) for seed in (1, 2, 1)]
    assert runs[0] == runs[2]
    assert runs[0][1] != runs[1][1]


@pytest.mark.parametrize("seed", range(6))
def test_priorities_in_the_place_of_chance(seed: int) -> None:
    def program(client: Client) -> Any:
        tasks = [client.call("slow", 0.1) for _ in range(6)]
        return len([task.result() for task in tasks]), list(client.stream("numbers", 20))

    value, _ = simulate(program, program, seed=seed, demotions=frozenset({50, 300, 900}))
    assert value == [(6, list(range(20)))] * 2
