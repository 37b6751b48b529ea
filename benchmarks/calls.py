"""Calls over a local Redis: latency, throughput, growth and idling of the real product. `python -m benchmarks.calls`

Starts its own Redis and its own server process, prints what it measured and writes it as JSON with `--json FILE`.
The yardstick in the same run is the round trip of a bare redis-py `PING`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis.asyncio as redis

from benchmarks.rig import Meter, latencies, rate
from prpc.app_client import AsyncClient
from prpc.dev_broker import start_dev_broker

ROOT = Path(__file__).parent.parent
QUEUE = "bench"
#: Parts of the many calls whose cost is told apart.
STRETCHES = 10


@contextmanager
def server(url: str, kind: str = "redis") -> Iterator[psutil.Process]:
    """The benchmark server as a process of its own."""
    environ = {
        **os.environ,
        "PRPC_TYPE_BROKER": kind,
        "PRPC_URL_BROKER": url,
        "PRPC_QUEUE_NAME": QUEUE,
        "PRPC_LOG_LEVEL": "warning",
        # The default, one for each slot, is made for servers with few of them.
        "PRPC_KAFKA_QUEUE_TOPIC_NUMBER_PARTITIONS": "4",
    }
    process = subprocess.Popen([sys.executable, "-m", "prpc", "run", "benchmarks.server:app"], cwd=ROOT, env=environ)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def footprint(bare: redis.Redis, other: psutil.Process) -> dict[str, float]:
    """What Redis and both processes hold right now."""
    info = await bare.info("memory")
    return {
        "redis_mb": info["used_memory"] / 1e6,
        "stream_length": await bare.xlen(f"prpc_{QUEUE}"),
        "keys": await bare.dbsize(),
        "client_mb": psutil.Process().memory_info().rss / 1e6,
        "server_mb": other.memory_info().rss / 1e6,
    }


async def idle(bare: redis.Redis, other: psutil.Process, seconds: float) -> dict[str, float]:
    """Commands and CPU of a client and a server that have nothing to do."""
    me = psutil.Process()

    async def sample() -> tuple[int, float, float]:
        info = await bare.info("stats")
        mine, its = me.cpu_times(), other.cpu_times()
        return info["total_commands_processed"], mine.user + mine.system, its.user + its.system

    before = await sample()
    await asyncio.sleep(seconds)
    after = await sample()
    return {
        "commands_per_second": (after[0] - before[0] - 1) / seconds,
        "client_cpu_percent": 100 * (after[1] - before[1]) / seconds,
        "server_cpu_percent": 100 * (after[2] - before[2]) / seconds,
    }


async def stretches(call: Callable[[int], Awaitable[Any]], calls: int, meter: Meter) -> list[dict[str, float]]:
    """CPU milliseconds of one call in each tenth of many, of client, server and Redis: whether it grows with what was called."""
    found = []
    for _ in range(STRETCHES):
        before = meter.read()
        await rate(call, calls // STRETCHES, 256)
        found.append({name: seconds / 10 for name, seconds in meter.per_10k(before, calls // STRETCHES).items()})
    return found


async def measure(url: str, other: psutil.Process, calls: int, repeats: int) -> dict[str, Any]:
    """Everything, in one run."""
    bare = redis.Redis.from_url(url)
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "redis": (await bare.info("server"))["redis_version"],
        "cores": os.cpu_count(),
    }
    async with AsyncClient("redis", url, QUEUE) as client:
        while not await client.servers():
            await asyncio.sleep(0.05)

        async def add_async(i: int) -> None:
            assert await client.call("add_async", i, 1) == i + 1

        async def add_thread(i: int) -> None:
            assert await client.call("add_thread", i, 1) == i + 1

        await rate(add_async, 2000, 64)
        rounds = []
        for _ in range(repeats):
            rounds.append(
                {
                    "ping_p50_ms": statistics.median(await latencies(lambda i: bare.ping(), 1000)),
                    "call_p50_ms": statistics.median(await latencies(add_async, 2000)),
                    "calls_per_s_256": await rate(add_async, 20_000, 256),
                    "calls_per_s_1000": await rate(add_async, 20_000, 1000),
                    "calls_per_s_256_threads": await rate(add_thread, 10_000, 256),
                }
            )
        report["median"] = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        report["spread"] = {key: [min(r[key] for r in rounds), max(r[key] for r in rounds)] for key in rounds[0]}
        report["before"] = await footprint(bare, other)
        broker = int((await bare.info("server"))["process_id"])
        report["stretches"] = await stretches(add_async, calls, Meter(other.pid, broker))
        await asyncio.sleep(1)  # results are removed in batches just after their delivery
        report["after"] = {"calls": calls, **await footprint(bare, other)}
        report["idle"] = await idle(bare, other, 20)
    await bare.aclose()
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls between the two looks at the memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    with start_dev_broker(0) as broker, server(broker.url) as other:
        report = asyncio.run(measure(broker.url, other, options.calls, options.repeats))
    median = report["median"]
    report["ratios"] = {"call_p50 / ping_p50": median["call_p50_ms"] / median["ping_p50_ms"]}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
