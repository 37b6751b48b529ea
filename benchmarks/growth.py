"""How cost behaves with payload, backlog, servers and idle clients, and how long starting takes. `python -m benchmarks.growth`

Starts its own Redis. Each figure stands beside the one that it is compared with, measured in the same run by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks import floor_bare
from benchmarks.calls import QUEUE, ROOT, server
from benchmarks.rig import Meter, rate
from prpc.app_client import AsyncClient
from prpc.dev_broker import DevBroker, start_dev_broker

#: Clients that wait, and seconds for which a server is looked at that has nothing else.
IDLE_CLIENTS, SECONDS_IDLE = 1_000, 10.0
#: Seconds for anything that is waited for.
PATIENCE = 300


@dataclass(frozen=True)
class Size:
    """A payload that goes there and comes back, and how it is sent."""

    name: str
    characters: int
    calls: int
    in_flight: int


SIZES = (Size("100 B", 100, 10_000, 64), Size("10 kB", 10_000, 5_000, 64), Size("1 MB", 1_000_000, 100, 4))


async def _there(client: AsyncClient, servers: int) -> None:
    while len(await client.servers()) != servers:
        await asyncio.sleep(0.02)


def _pid_of(broker: DevBroker) -> int:
    with redis.Redis.from_url(broker.url) as bare:
        facts: Any = bare.info("server")
    return int(facts["process_id"])


async def measure_sizes(broker: DevBroker, server_pid: int) -> dict[str, float]:
    """Calls a second and CPU milliseconds of each payload."""
    meter = Meter(server_pid, _pid_of(broker))
    async with AsyncClient("redis", broker.url, QUEUE) as client:
        await _there(client, 1)
        return await _measure_echo(lambda text: client.call("echo_async", text), meter, "")


async def measure_bare_sizes(broker: DevBroker, server_pid: int) -> dict[str, float]:
    """The same of the floor e2: what the bytes cost that both must move."""
    meter = Meter(server_pid, _pid_of(broker))
    async with floor_bare.client(broker.url) as add:
        return await _measure_echo(lambda text: add("", text), meter, "floor, ")


async def _measure_echo(echo: Callable[[str], Awaitable[str]], meter: Meter, whose: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in SIZES:
        text = "x" * size.characters

        async def one(_: int, text: str = text) -> None:
            assert len(await echo(text)) == len(text)

        await rate(one, size.in_flight * 2, size.in_flight)
        before = meter.read()
        found[f"{whose}{size.name}: calls/s"] = await rate(one, size.calls, size.in_flight)
        for who, seconds in meter.per_10k(before, size.calls).items():
            found[f"{whose}{size.name}: ms of {who} a call"] = seconds / 10
    return found


@contextmanager
def bare_server(url: str) -> Iterator[int]:
    """The floor's server as a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.floors", "e2", url], cwd=ROOT)
    try:
        with redis.Redis.from_url(url) as bare:
            while not bare.exists("floor"):
                time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def idle_clients(url: str, count: int) -> Iterator[None]:
    """Clients that have called once and now wait, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.growth", "idle", url, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        process.wait(60)


async def be_idle(url: str, count: int) -> None:
    """Body of that process: it ends with its standard input."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with AsyncExitStack() as stack:
        for number in range(count):
            client = await stack.enter_async_context(AsyncClient("redis", url, QUEUE))
            assert await client.call("add_async", number, 1) == number + 1
        print("there", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def measure_idle_clients(broker: DevBroker, server_pid: int, calls: int) -> dict[str, float]:
    """What clients that only wait cost the server."""
    server_process = psutil.Process(server_pid)
    found = {}
    for count in (0, IDLE_CLIENTS):
        with idle_clients(broker.url, count):
            before = server_process.cpu_times()
            time.sleep(SECONDS_IDLE)
            after = server_process.cpu_times()
            cpu = after.user + after.system - before.user - before.system
            found[f"{count:,} idle clients: ms of the idle server a s"] = 1000 * cpu / SECONDS_IDLE
            found[f"{count:,} idle clients: calls/s"] = asyncio.run(measure_servers(broker, 1, calls))
    return found


async def _rate_of_adding(client: AsyncClient, calls: int) -> float:
    async def add(i: int) -> None:
        assert await client.call("add_async", i, 1) == i + 1

    return await rate(add, calls, 256)


async def measure_servers(broker: DevBroker, count: int, calls: int) -> float:
    """Calls a second with so many servers."""
    async with AsyncClient("redis", broker.url, QUEUE) as client:
        await _there(client, count)
        await _rate_of_adding(client, 3_000)
        return await _rate_of_adding(client, calls)


async def measure_backlog(broker: DevBroker, backlog: int) -> dict[str, float]:
    """A server that finds so many calls, beside one whose queue is empty but for what is in flight."""
    async with AsyncClient("redis", broker.url, QUEUE) as client:
        patient = client.options(timeout=PATIENCE)
        tasks = [patient.call("add_async", i, 1) for i in range(backlog)]
        with redis.Redis.from_url(broker.url) as bare:
            while bare.xlen(f"prpc_{QUEUE}") < backlog:
                await asyncio.sleep(0.05)
        with server(broker.url):
            await tasks[0]  # the start is no part of it
            start, done = time.perf_counter(), sum(task.is_done_task() for task in tasks)
            for i, task in enumerate(tasks):
                assert await task == i + 1
            drained = (backlog - done) / (time.perf_counter() - start)
            del tasks
            return {
                f"backlog of {backlog:,}: calls/s": drained,
                "256 in flight: calls/s": await _rate_of_adding(client, backlog // 2),
            }


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


async def _until_served(url: str) -> None:
    async with AsyncClient("redis", url, QUEUE) as client:
        await _there(client, 1)


def measure_start(broker: DevBroker) -> dict[str, float]:
    """Seconds of an import, of a server's start and of writing stubs, each as a process of its own."""
    bare = _seconds("-c", "pass")
    imported, used = _seconds("-c", "import prpc"), _seconds("-c", "from prpc import AppServer, AsyncClient, Client")
    start = time.perf_counter()
    with server(broker.url), tempfile.TemporaryDirectory() as folder:
        asyncio.run(_until_served(broker.url))
        ready = time.perf_counter() - start
        environ = {"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": broker.url, "PRPC_QUEUE_NAME": QUEUE, "PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        command = [sys.executable, "-m", "prpc.create_server_func"]
        subprocess.run(command, cwd=folder, env={**os.environ, **environ}, check=True, stdout=subprocess.DEVNULL)
        stubs = time.perf_counter() - start
    return {
        "import prpc: s": imported - bare,
        "import of servers and clients: s": used - bare,
        "server ready: s": ready,
        "create_server_func: s": stubs,
    }


def measure(broker: DevBroker, calls: int, backlog: int) -> dict[str, float]:
    """Everything, once."""
    found = measure_start(broker)
    with server(broker.url) as process:
        found |= asyncio.run(measure_sizes(broker, process.pid))
        found |= measure_idle_clients(broker, process.pid, calls)
    with bare_server(broker.url) as pid:
        found |= asyncio.run(measure_bare_sizes(broker, pid))
    for count in (1, 2):
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(server(broker.url))
            found[f"servers {count}: calls/s"] = asyncio.run(measure_servers(broker, count, calls))
    return found | asyncio.run(measure_backlog(broker, backlog))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["idle"]:
        return asyncio.run(be_idle(sys.argv[2], int(sys.argv[3])))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        with start_dev_broker(0) as broker:
            for name, value in measure(broker, options.calls, options.backlog).items():
                figures[name].append(value)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        print(f"{name:36} {medians[name]:12,.3f}   ({min(values):,.3f} to {max(values):,.3f})")
    if options.json:
        facts = {"python": sys.version.split()[0], "cores": os.cpu_count(), "memory_mb": psutil.virtual_memory().total // 2**20}
        options.json.write_text(json.dumps({"machine": facts, "medians": medians, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
