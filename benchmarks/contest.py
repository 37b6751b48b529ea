"""PRPC beside floors, gRPC and its peers, by turns in one run: `python -m benchmarks.contest [--peers] [--rounds N]`

Starts its own Redis. In each round every contestant gets a server process and a client process of its own, one contestant at a
time; all add two numbers, and every result is looked at. Printed are medians with their spreads, and the ratios that count,
each with what is wanted of it.
"""

from __future__ import annotations

import argparse
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
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.calls import QUEUE, ROOT
from benchmarks.contestants import HOME, PEERS, Contestant
from benchmarks.floors import FLOORS
from benchmarks.rig import Counts, Meter, given, measure, run_in
from prpc.app_client import AsyncClient, Client
from prpc.dev_broker import DevBroker, start_dev_broker

#: Threads that call through one client.
THREADS = 32
#: Seconds for all calls of one contestant.
MOST_SECONDS = 300
#: What is compared: figure, the one that it is divided by, and what is wanted.
RATIOS = (
    ("async p50_ms", "e1 p50_ms", "at most 1.0"),
    ("async p50_ms", "grpc p50_ms", "at most 0.65"),
    ("async per_s_256", "e1 per_s_256", "at least 0.8"),
    ("async per_s_256", "grpc per_s_256", "at least 5"),
    ("async per_s_1000", "async per_s_256", "at least 1.0"),
    ("async on uvloop p50_ms", "e3 p50_ms", "towards 1.0"),
    ("async on uvloop per_s_256", "e3 per_s_256", "towards 1.0"),
    ("async on uvloop p50_ms", "e1 p50_ms", "at most 1.0"),
    ("async on uvloop per_s_256", "e1 per_s_256", "at least 0.8"),
    ("async on uvloop per_s_256", "grpc per_s_256", "at least 5"),
    ("thread per_s_256", "async per_s_256", "at least 0.7"),
    ("process per_s_256", "async per_s_256", "at least 0.4"),
    ("plain p50_ms", "async p50_ms", "at most 1.5"),
    ("plain per_s_threads", "async per_s_256", "at least 0.35"),
    ("plain per_s_map", "async per_s_256", "at least 0.7"),
    *(("async per_s_256", f"{peer} per_s_256", "at least 10") for peer in PEERS if not peer.startswith("grpc")),
)


async def measure_prpc(function: str, url: str, counts: Counts, meter: Meter) -> dict[str, Any]:
    """A client of coroutines."""
    async with AsyncClient("redis", url, QUEUE) as client:

        async def add(a: int, b: int) -> int:
            result: int = await client.call(function, a, b)
            return result

        return await measure(add, counts, meter)


async def measure_floor(name: str, url: str, counts: Counts, meter: Meter) -> dict[str, Any]:
    """The same of a floor."""
    async with FLOORS[name][1](url) as add:
        return await measure(add, counts, meter)


def measure_plain(url: str, counts: Counts) -> dict[str, Any]:
    """A client of plain code: one call after another, many threads, one map."""
    calls = counts.calls
    with Client("redis", url, QUEUE) as client:

        def add(numbers: Sequence[int]) -> None:
            for i in numbers:
                assert client.call("add_async", i, 1).result() == i + 1

        add(range(1_000))
        taken = []
        for i in range(counts.sequential):
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


def client_main(name: str) -> None:
    """Body of a client process: prints what it measured."""
    url, meter, counts = given()
    loop = HOME[name].loop
    if name == "plain":
        found = measure_plain(url, counts)
    elif name in FLOORS:
        found = run_in(loop, measure_floor(name, url, counts, meter))
    else:
        found = run_in(loop, measure_prpc(f"add_{name.split()[0]}", url, counts, meter))
    print(json.dumps(found))


def _program(contestant: Contestant, name: str) -> str:
    return contestant.program(name, ROOT, Path(sys.executable).parent)


@contextmanager
def served(name: str, contestant: Contestant, url: str, environ: dict[str, str]) -> Iterator[int]:
    """The contestant's server, which may still be on its way; gives its process."""
    program, *arguments = contestant.server
    command = [_program(contestant, program), *arguments, *([url] if name in FLOORS else [])]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    server = psutil.Process(process.pid)
    family = [server, *server.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, 10)
    for each in left:
        each.kill()
    process.wait(10)


def turn(name: str, contestant: Contestant, broker: DevBroker) -> dict[str, Any]:
    """One contestant in one round. Raises CalledProcessError, TimeoutExpired."""
    with redis.Redis.from_url(broker.url) as bare:
        bare.flushall()
        facts: Any = bare.info("server")
    environ = {
        **os.environ,
        **{"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": broker.url, "PRPC_QUEUE_NAME": QUEUE, "PRPC_LOG_LEVEL": "warning"},
        **{"BENCH_URL": broker.url, "BENCH_VARIANT": contestant.variant, "PYTHONPATH": str(ROOT)},
        **{"RQ_REDIS_URL": broker.url, "PRPC_EVENT_LOOP": contestant.loop},
    }
    with served(name, contestant, broker.url, environ) as server:
        time.sleep(contestant.seconds_to_start)
        if contestant.server[1:3] == ("-m", "prpc"):
            _await(broker.url)
        of_client = ["client", name, broker.url, str(server), str(facts["process_id"]), json.dumps(astuple(contestant.counts))]
        command = [_program(contestant, "python"), "-m", contestant.module, *of_client]
        found = subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, timeout=MOST_SECONDS)
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def _await(url: str) -> None:
    """Until PRPC's server says that it is there."""
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
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
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
        return client_main(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contestants, by commas")
    parser.add_argument("--peers", action="store_true", help="with the peers, for which `make bench-peers` makes environments")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    known = {**HOME, **PEERS}
    names = options.only.split(",") if options.only else [*HOME, *(PEERS if options.peers else ())]
    figures: defaultdict[str, list[float]] = defaultdict(list)
    with start_dev_broker(0) as broker:
        for number in range(options.rounds):
            for name in names:
                try:
                    found = turn(name, known[name], broker)
                except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
                    print(f"round {number + 1}: {name} failed: {exc}", file=sys.stderr, flush=True)
                    continue
                for key, value in flat(found).items():
                    figures[f"{name} {key}"].append(value)
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
        with redis.Redis.from_url(broker.url) as bare:
            facts: Any = bare.info("server")
    result = {"redis": facts["redis_version"], **report(figures)}
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
