"""The faults: each is a coroutine that does its harm and mends what does not mend by itself, drawing from the world's seed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

import psutil
from redis.exceptions import RedisError

from tests.chaos.clocks import HOUR, SIGNAL, set_clock
from tests.chaos.program import Program, workers_of
from tests.chaos.world import World
from tests.ledger.causes import BROKER

__all__ = ["BROKER_FAULTS", "NETWORK_FAULTS", "PROGRAM_FAULTS", "WORKER_FAULTS", "Fault", "one_of", "roll_over"]

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
        with world.fault(f"kill -9 {server.name}", server.name, kills=True):
            world.end(server, signal.SIGKILL)
            await server.ended()
        await world.start_server()


async def pause_server(world: World) -> None:
    """SIGSTOP of a server for longer than its lease lasts, then SIGCONT."""
    server = one_of(world, world.servers)
    if server is not None:
        with world.fault(f"SIGSTOP {server.name}", server.name, mended=f"SIGCONT {server.name}"):
            server.kill(signal.SIGSTOP)
            await asyncio.sleep(standstill(world))
            server.kill(signal.SIGCONT)


async def kill_worker(world: World) -> None:
    """kill -9 of a worker process; its server replaces it."""
    workers = [(server, worker) for server in world.servers for worker in workers_of(server)]
    if workers:
        server, worker = world.random.choice(workers)
        with (
            world.fault(f"kill -9 worker process {worker.pid} of {server.name}", f"{server.name}-{worker.pid}"),
            contextlib.suppress(psutil.Error),
        ):
            worker.kill()


async def kill_client(world: World) -> None:
    """kill -9 of a client, and another one comes in its place."""
    client = one_of(world, world.clients)
    if client is not None:
        with world.fault(f"kill -9 {client.name}"):
            world.end(client, signal.SIGKILL)
            await client.ended()
            world.journal.write("gone", client=client.name)
        world.start_client()


async def restart_redis_with_data(world: World) -> None:
    """kill -9 of a Redis that keeps a log of every write, and its start."""
    away = world.random.choice((0.0, 0.3, 1.5))
    with world.fault(f"kill -9 Redis, {away:g} s later it starts with its data", BROKER, mended="Redis is back"):
        await world.redis.restart(away=away)


async def restart_redis_without_data(world: World) -> None:
    """kill -9 of a Redis that keeps nothing, and its start."""
    away = world.random.choice((0.0, 0.3, 1.5))
    with world.fault(f"kill -9 Redis, {away:g} s later it starts empty", BROKER, mended="Redis is back", forgets=True):
        await world.redis.restart(away=away)


async def freeze_redis(world: World, seconds: float | None = None) -> None:
    """SIGSTOP of Redis, unless told otherwise for about as long as a lease lasts or longer."""
    with world.fault("SIGSTOP Redis", BROKER, mended="SIGCONT Redis"):
        world.redis.broker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(standstill(world) if seconds is None else seconds)
        world.redis.broker.process.send_signal(signal.SIGCONT)


async def fill_memory(world: World) -> None:
    """Redis refuses every command that needs memory (OOM)."""
    with world.fault("Redis is out of memory", BROKER, mended="Redis has memory again"):
        await world.redis.admin.config_set("maxmemory", 1)
        await asyncio.sleep(world.random.uniform(0.3, 1.5))
        await world.redis.admin.config_set("maxmemory", 0)


async def fill_disk(world: World) -> None:
    """Redis cannot save and refuses every write (MISCONF)."""
    hindrance = world.folder / "redis" / "dump.rdb"
    hindrance.mkdir(exist_ok=True)
    with world.fault("Redis cannot save", BROKER, mended="Redis can save again"):
        await world.redis.admin.config_set("save", "3600 1")
        with contextlib.suppress(RedisError):
            await world.redis.admin.bgsave()
        while (await world.redis.admin.info("persistence"))["rdb_bgsave_in_progress"]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(world.random.uniform(0.3, 1.5))
        await world.redis.admin.config_set("save", "")
    hindrance.rmdir()


async def cut_at_bytes(world: World) -> None:
    """For a while every connection is cut after a number of bytes of its own, in either direction."""
    draw = world.random
    spans = (1, 40, 400, 4_000, 40_000)

    def budget() -> int | None:
        return draw.choice((None, draw.randint(1, draw.choice(spans))))

    before, cuts = world.proxy.budgets, world.proxy.cuts
    with world.fault("connections are cut after some bytes", BROKER, mended="connections hold again"):
        world.proxy.budgets = (budget, budget)
        world.proxy.cut_all()
        await asyncio.sleep(draw.uniform(1.0, 2.0))
        world.proxy.budgets = before
        world.proxy.cut_all()
    world.tell(f"{world.proxy.cuts - cuts} connections were cut at a byte")


async def cut_behind_a_byte(world: World) -> None:
    """Connections are cut one by one, each behind a byte that is drawn: between two commands, or inside one."""
    draw = world.random
    with world.fault("connections are cut behind a byte", BROKER, mended="connections hold again"):
        for _ in range(12):
            cut = world.proxy.light_fuse(draw.randint(1, draw.choice((30, 300, 3000))), up=draw.random() < 0.5)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await cut.wait()
            await asyncio.sleep(draw.uniform(0.0, 0.1))
        world.proxy.put_out_fuse()


async def freeze_connections(world: World) -> None:
    """The network stands still in both directions for longer than the leases last, with every connection open."""
    with world.fault("the network freezes", BROKER, mended="the network thaws"):
        world.proxy.freeze()
        await asyncio.sleep(standstill(world))
        world.proxy.thaw()


async def delay_connections(world: World) -> None:
    """Everything is late for a while."""
    seconds = world.random.choice((0.02, 0.1))
    with world.fault(f"the network is {seconds:g} s late", BROKER, mended="the network is quick again"):
        world.proxy.delay = seconds
        await asyncio.sleep(world.random.uniform(0.5, 1.5))
        world.proxy.delay = 0.0


async def jump_clock(world: World) -> None:
    """The wall clock of one program jumps to an hour ahead, an hour back, or to the right time."""
    program = one_of(world, [program for program in (*world.servers, *world.clients) if program.ready])
    if program is not None:
        with world.fault(f"the clock of {program.name} jumps to {jump(world, program.name):+g} s ahead"):
            program.kill(SIGNAL)


async def jump_redis_clock(world: World) -> None:
    """The wall clock of Redis jumps by an hour, ahead or back."""
    with world.fault("the clock of Redis jumps", BROKER):
        world.tell(f"it is {jump(world, 'redis'):+g} s ahead")


def jump(world: World, name: str) -> float:
    """Write another time into the file of a clock; returns the seconds that it is ahead from when it is read."""
    file = world.clock_of(name)
    ahead = world.random.choice([seconds for seconds in (-HOUR, 0.0, HOUR) if seconds != float(file.read_text())])
    set_clock(file, ahead)
    return ahead


async def roll_over(world: World) -> None:
    """SIGTERM to each server in turn, another one in its place."""
    for server in [server for server in world.servers if not server.expected]:
        with world.fault(f"SIGTERM {server.name}", server.name):
            world.end(server, signal.SIGTERM)
            await world.stopped(server)
        await world.start_server()


PROGRAM_FAULTS: tuple[Fault, ...] = (kill_server, pause_server, kill_client)
WORKER_FAULTS: tuple[Fault, ...] = (kill_worker,)
BROKER_FAULTS: tuple[Fault, ...] = (restart_redis_with_data, freeze_redis, fill_memory, fill_disk)
NETWORK_FAULTS: tuple[Fault, ...] = (cut_at_bytes, cut_behind_a_byte, freeze_connections, delay_connections)
