"""PRPC beside floors and beside gRPC, by turns in one run: `python -m benchmarks.contest [--rounds N] [--only NAMES]`

Starts its own Redis. In each round every contestant gets a server process and a client process of its own, one contestant at a
time; all add two numbers, and every result is looked at. Printed are medians with their spreads, and the ratios that count
(docs/explanation/performance.md), each with what is wanted of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.calls import QUEUE, ROOT, latencies, rate
from benchmarks.floors import FLOORS, Add
from prpc.app_client import AsyncClient, Client
from prpc.dev_broker import DevBroker, start_dev_broker

IN_FLIGHT = (16, 256, 1000)
#: Threads that call through one client.
THREADS = 32
SEQUENTIAL = 2_000


@dataclass(frozen=True)
class Contestant:
    """`server`: of the command. `calls`: measured with so many in flight, fewer where it is slow."""

    server: tuple[str, ...]
    calls: int = 20_000


_PRPC = ("-m", "prpc", "run")
CONTESTANTS = {
    "e1": Contestant(("-m", "benchmarks.floors", "e1")),
    "grpc": Contestant(("-m", "benchmarks.floors", "grpc"), 10_000),
    "async": Contestant((*_PRPC, "benchmarks.server:app")),
    "thread": Contestant((*_PRPC, "benchmarks.server:app")),
    "process": Contestant((*_PRPC, "benchmarks.processes:app"), 10_000),
    "plain": Contestant((*_PRPC, "benchmarks.server:app"), 10_000),
}
#: What is compared: figure, the one that it is divided by, and what is wanted.
RATIOS = (
    ("async p50_ms", "e1 p50_ms", "at most 1.0"),
    ("async p50_ms", "grpc p50_ms", "at most 0.65"),
    ("async per_s_256", "e1 per_s_256", "at least 0.8"),
    ("async per_s_256", "grpc per_s_256", "at least 5"),
    ("async per_s_1000", "async per_s_256", "at least 1.0"),
    ("thread per_s_256", "async per_s_256", "at least 0.7"),
    ("process per_s_256", "async per_s_256", "at least 0.4"),
    ("plain p50_ms", "async p50_ms", "at most 1.5"),
    ("plain per_s_threads", "async per_s_256", "at least 0.35"),
    ("plain per_s_map", "async per_s_256", "at least 0.7"),
)


class Meter:
    """CPU seconds of this process, the server with its children, and the broker."""

    def __init__(self, server: int, broker: int) -> None:
        self._others = {"server": psutil.Process(server), "broker": psutil.Process(broker)}

    def read(self) -> dict[str, float]:
        return {"client": time.process_time(), **{name: self._of(process) for name, process in self._others.items()}}

    def _of(self, process: psutil.Process) -> float:
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def per_10k(self, before: dict[str, float], calls: int) -> dict[str, float]:
        return {name: (now - before[name]) / calls * 10_000 for name, now in self.read().items()}


async def measure(add: Add, calls: int, meter: Meter) -> dict[str, Any]:
    """A client of coroutines."""

    async def checked(i: int) -> None:
        assert await add(i, 1) == i + 1

    await rate(checked, min(calls, 2_000), 64)
    taken = await latencies(checked, SEQUENTIAL)
    found: dict[str, Any] = {"p50_ms": statistics.median(taken), "p99_ms": statistics.quantiles(taken, n=100)[98]}
    for in_flight in IN_FLIGHT:
        before = meter.read()
        found[f"per_s_{in_flight}"] = await rate(checked, calls, in_flight)
        found[f"cpu_{in_flight}"] = meter.per_10k(before, calls)
    return found


async def measure_prpc(function: str, url: str, calls: int, meter: Meter) -> dict[str, Any]:
    async with AsyncClient("redis", url, QUEUE) as client:

        async def add(a: int, b: int) -> int:
            result: int = await client.call(function, a, b)
            return result

        return await measure(add, calls, meter)


async def measure_floor(name: str, url: str, calls: int, meter: Meter) -> dict[str, Any]:
    async with FLOORS[name][1](url) as add:
        return await measure(add, calls, meter)


def measure_plain(url: str, calls: int) -> dict[str, Any]:
    """A client of plain code: one call after another, many threads, one map."""
    with Client("redis", url, QUEUE) as client:

        def add(numbers: Sequence[int]) -> None:
            for i in numbers:
                assert client.call("add_async", i, 1).result() == i + 1

        add(range(1_000))
        taken = []
        for i in range(SEQUENTIAL):
            start = time.perf_counter()
            add((i,))
            taken.append(1000 * (time.perf_counter() - start))
        threads = [threading.Thread(target=add, args=(range(calls // THREADS),)) for _ in range(THREADS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        in_threads = calls // THREADS * THREADS / (time.perf_counter() - start)
        start = time.perf_counter()
        assert sum(client.map("add_async", range(calls), [1] * calls)) == calls * (calls + 1) // 2
        return {
            "p50_ms": statistics.median(taken),
            "p99_ms": statistics.quantiles(taken, n=100)[98],
            "per_s_threads": in_threads,
            "per_s_map": calls / (time.perf_counter() - start),
        }


def client_main(name: str, url: str, server: str, broker: str) -> None:
    """Body of a client process: prints what it measured."""
    calls, meter = CONTESTANTS[name].calls, Meter(int(server), int(broker))
    if name == "plain":
        found = measure_plain(url, calls)
    elif name in FLOORS:
        found = asyncio.run(measure_floor(name, url, calls, meter))
    else:
        found = asyncio.run(measure_prpc(f"add_{name}", url, calls, meter))
    print(json.dumps(found))


@contextmanager
def served(name: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The contestant's server, which may still be on its way."""
    environ = {
        **os.environ,
        **{"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": url, "PRPC_QUEUE_NAME": QUEUE, "PRPC_LOG_LEVEL": "warning"},
    }
    arguments = CONTESTANTS[name].server
    process = subprocess.Popen([sys.executable, *arguments, *([url] if name in FLOORS else [])], cwd=ROOT, env=environ)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def turn(name: str, broker: DevBroker) -> dict[str, Any]:
    """One contestant in one round."""
    with served(name, broker.url) as server:
        _await(name, broker.url)
        command = [sys.executable, "-m", "benchmarks.contest", "client", name, broker.url, str(server.pid), _pid(broker)]
        found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=300)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def _pid(broker: DevBroker) -> str:
    with redis.Redis.from_url(broker.url) as bare:
        facts: Any = bare.info("server")
    return str(facts["process_id"])


def _await(name: str, url: str) -> None:
    """Until PRPC's server says that it is there; the clients of the floors wait for theirs."""
    if name == "e1":
        time.sleep(1)
    elif name not in FLOORS:
        with Client("redis", url, QUEUE) as client:
            while not client.servers():
                time.sleep(0.05)


def flat(found: dict[str, Any]) -> dict[str, float]:
    """Figures by their paths."""
    figures = {}
    for key, value in found.items():
        figures.update({f"{key} {who}": each for who, each in value.items()} if isinstance(value, dict) else {key: value})
    return figures


def report(figures: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, spreads, ratios."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {
        f"{one} / {other}": {"ratio": medians[one] / medians[other], "wanted": wanted}
        for one, other, wanted in RATIOS
        if one in medians and other in medians
    }
    return {
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {name: version(name) for name in ("prpc", "redis", "hiredis", "msgspec", "grpcio")},
        "figures": {name: {"median": medians[name], "least": min(all_), "most": max(all_)} for name, all_ in figures.items()},
        "ratios": ratios,
    }


def table(found: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{name:32} {each['median']:12,.3f}   ({each['least']:,.3f} to {each['most']:,.3f})"
        for name, each in found["figures"].items()
    ]
    lines += [f"{name:48} {each['ratio']:6.2f}   wanted: {each['wanted']}" for name, each in found["ratios"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["client"]:
        return client_main(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contestants, by commas")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(CONTESTANTS)
    figures: defaultdict[str, list[float]] = defaultdict(list)
    with start_dev_broker(0) as broker:
        for number in range(options.rounds):
            for name in names:
                for key, value in flat(turn(name, broker)).items():
                    figures[f"{name} {key}"].append(value)
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
    found = report(figures)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
