"""The faults: each is a coroutine that does its harm and mends what does not mend by itself, drawing from the world's seed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

import psutil
from redis.exceptions import RedisError

from tests.chaos.world import Program, World

__all__ = ["BROKER_FAULTS", "NETWORK_FAULTS", "PROGRAM_FAULTS", "WORKER_FAULTS", "Fault", "roll_over"]

Fault = Callable[[World], Awaitable[None]]


def standstill(world: World) -> float:
    """Seconds for which something stands still: mostly longer than a lease lasts, sometimes just about as long."""
    return world.options.recover * world.random.choice((0.9, 1.1, 1.5, 2.5))


def one_of(world: World, programs: list[Program]) -> Program | None:
    """A program that runs and was not ended; None where there is none."""
    running = [program for program in programs if not program.expected and program.alive]
    return world.random.choice(running) if running else None


async def kill_server(world: World) -> None:
    """kill -9 of a server, and another one comes in its place."""
    server = one_of(world, world.servers)
    if server is not None:
        world.fault(f"kill -9 {server.name}")
        world.end(server, signal.SIGKILL)
        await world.start_server()


async def pause_server(world: World) -> None:
    """SIGSTOP of a server for longer than its lease lasts, then SIGCONT."""
    server = one_of(world, world.servers)
    if server is not None:
        world.fault(f"SIGSTOP {server.name}")
        server.kill(signal.SIGSTOP)
        await asyncio.sleep(standstill(world))
        world.tell(f"SIGCONT {server.name}")
        server.kill(signal.SIGCONT)


async def kill_worker(world: World) -> None:
    """kill -9 of a worker process; its server replaces it."""
    workers = world.worker_processes()
    if workers:
        worker = world.random.choice(workers)
        world.fault(f"kill -9 worker process {worker.pid}")
        with contextlib.suppress(psutil.Error):
            worker.kill()


async def kill_client(world: World) -> None:
    """kill -9 of a client, and another one comes in its place."""
    client = one_of(world, world.clients)
    if client is not None:
        world.fault(f"kill -9 {client.name}")
        world.end(client, signal.SIGKILL)
        await client.ended()
        world.journal.write("gone", client=client.name)
        world.start_client()


async def restart_redis_with_data(world: World) -> None:
    """kill -9 of a Redis that keeps a log of every write, and its start."""
    away = world.random.choice((0.0, 0.3, 1.5))
    world.fault(f"kill -9 Redis, {away:g} s later it starts with its data")
    await world.restart_redis(away=away)


async def restart_redis_without_data(world: World) -> None:
    """kill -9 of a Redis that keeps nothing, and its start."""
    away = world.random.choice((0.0, 0.3, 1.5))
    world.fault(f"kill -9 Redis, {away:g} s later it starts empty")
    world.journal.write("forgotten")
    await world.restart_redis(away=away)


async def freeze_redis(world: World) -> None:
    """SIGSTOP of Redis for longer than every lease lasts."""
    world.fault("SIGSTOP Redis")
    world.broker.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(standstill(world))
    world.tell("SIGCONT Redis")
    world.broker.process.send_signal(signal.SIGCONT)


async def fill_memory(world: World) -> None:
    """Redis refuses every command that needs memory (OOM)."""
    world.fault("Redis is out of memory")
    await world.admin.config_set("maxmemory", 1)
    await asyncio.sleep(world.random.uniform(0.3, 1.5))
    world.tell("Redis has memory again")
    await world.admin.config_set("maxmemory", 0)


async def fill_disk(world: World) -> None:
    """Redis cannot save and refuses every write (MISCONF)."""
    world.fault("Redis cannot save")
    hindrance = world.folder / "redis" / "dump.rdb"
    hindrance.mkdir(exist_ok=True)
    await world.admin.config_set("save", "3600 1")
    with contextlib.suppress(RedisError):
        await world.admin.bgsave()
    while (await world.admin.info("persistence"))["rdb_bgsave_in_progress"]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(world.random.uniform(0.3, 1.5))
    world.tell("Redis can save again")
    await world.admin.config_set("save", "")
    hindrance.rmdir()


async def cut_at_bytes(world: World) -> None:
    """For a while every connection is cut after a number of bytes of its own, in either direction."""
    world.fault("connections are cut after some bytes")
    draw = world.random
    spans = (1, 40, 400, 4_000, 40_000)

    def budget() -> int | None:
        return draw.choice((None, draw.randint(1, draw.choice(spans))))

    before, world.proxy.budgets = world.proxy.budgets, (budget, budget)
    cuts = world.proxy.cuts
    world.proxy.cut_all()
    await asyncio.sleep(draw.uniform(1.0, 2.0))
    world.proxy.budgets = before
    world.proxy.cut_all()
    world.tell(f"connections hold again, {world.proxy.cuts - cuts} were cut")


async def cut_behind_a_byte(world: World) -> None:
    """Connections are cut one by one, each behind a byte that is drawn: between two commands, or inside one."""
    world.fault("connections are cut behind a byte")
    draw = world.random
    for _ in range(12):
        cut = world.proxy.light_fuse(draw.randint(1, draw.choice((30, 300, 3000))), up=draw.random() < 0.5)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await cut.wait()
        await asyncio.sleep(draw.uniform(0.0, 0.1))
    world.tell("connections hold again")


async def freeze_connections(world: World) -> None:
    """The network stands still in both directions for longer than the leases last, with every connection open."""
    world.fault("the network freezes")
    world.proxy.freeze()
    await asyncio.sleep(standstill(world))
    world.tell("the network thaws")
    world.proxy.thaw()


async def delay_connections(world: World) -> None:
    """Everything is late for a while."""
    seconds = world.random.choice((0.02, 0.1))
    world.fault(f"the network is {seconds:g} s late")
    world.proxy.delay = seconds
    await asyncio.sleep(world.random.uniform(0.5, 1.5))
    world.proxy.delay = 0.0
    world.tell("the network is quick again")


async def roll_over(world: World) -> None:
    """SIGTERM to each server in turn, another one in its place."""
    for server in [server for server in world.servers if not server.expected]:
        world.fault(f"SIGTERM {server.name}")
        world.end(server, signal.SIGTERM)
        code = await server.ended()
        if code != 0:
            world.journal.write("broken", what=f"{server.name} stopped with {code}:\n{server.tail()}")
        await world.start_server()


PROGRAM_FAULTS: tuple[Fault, ...] = (kill_server, pause_server, kill_client)
WORKER_FAULTS: tuple[Fault, ...] = (kill_worker,)
BROKER_FAULTS: tuple[Fault, ...] = (restart_redis_with_data, freeze_redis, fill_memory, fill_disk)
NETWORK_FAULTS: tuple[Fault, ...] = (cut_at_bytes, cut_behind_a_byte, freeze_connections, delay_connections)
