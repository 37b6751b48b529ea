"""`map` over a local Redis: calls a second by the number in flight, beside `gather` in chunks. `python -m benchmarks.mapping`

Starts its own Redis and its own server process, as `benchmarks.calls` does. The cases take turns, so that what else the machine
does meets them all. The memory is what Python allocated at most while 100,000 items went through, and what the process grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.calls import QUEUE, server
from prpc.app_client import AsyncClient, Client, gather
from prpc.dev_broker import start_dev_broker

IN_FLIGHT = (10, 30, 100, 200, 300, 1000)
CHUNK = 1000


def plain_gather(client: Client, count: int) -> int:
    """Chunks of calls in plain code, one after another."""
    seen = 0
    for start in range(0, count, CHUNK):
        chunk = range(start, min(start + CHUNK, count))
        seen += len(gather(*(client.call("add_async", i, 1) for i in chunk)).result())
    return seen


def plain_map(client: Client, count: int, in_flight: int, ordered: bool = True) -> int:
    """The same through one map."""
    return sum(1 for _ in client.map("add_async", range(count), [1] * count, max_in_flight=in_flight, ordered=ordered))


async def async_gather(client: AsyncClient, count: int) -> int:
    """Chunks of calls in a coroutine."""
    seen = 0
    for start in range(0, count, CHUNK):
        chunk = range(start, min(start + CHUNK, count))
        seen += len(await gather(*(client.call("add_async", i, 1) for i in chunk)))
    return seen


async def async_map(client: AsyncClient, count: int, in_flight: int, ordered: bool = True) -> int:
    """The same through one map."""
    seen = 0
    async for _ in client.map("add_async", range(count), [1] * count, max_in_flight=in_flight, ordered=ordered):
        seen += 1
    return seen


class Round:
    """Calls a second of one case, and what they cost: a busy machine changes the first more than the second."""

    def __init__(self, other: psutil.Process) -> None:
        self._other = other
        self._began, self._mine, self._its = time.perf_counter(), time.process_time(), self._cpu()

    def _cpu(self) -> float:
        times = self._other.cpu_times()
        return times.user + times.system

    def figures(self, count: int) -> dict[str, float]:
        """Of so many calls since it was made."""
        return {
            "calls_per_s": count / (time.perf_counter() - self._began),
            "client_us_per_call": 1e6 * (time.process_time() - self._mine) / count,
            "server_us_per_call": 1e6 * (self._cpu() - self._its) / count,
        }


Rounds = dict[str, list[dict[str, float]]]


def plain_rounds(url: str, other: psutil.Process, count: int, repeats: int) -> Rounds:
    """Every case in plain code."""
    with Client("redis", url, QUEUE) as client:
        while not client.servers():
            time.sleep(0.05)
        cases: dict[str, Callable[[], int]] = {f"gather, chunks of {CHUNK}": partial(plain_gather, client, count)}
        cases |= {f"map, {n} in flight": partial(plain_map, client, count, n) for n in IN_FLIGHT}
        cases["map, 100 in flight, as completed"] = partial(plain_map, client, count, 100, ordered=False)
        plain_map(client, 2000, 100)
        rounds: Rounds = {name: [] for name in cases}
        for _ in range(repeats):
            for name, case in cases.items():
                watch = Round(other)
                assert case() == count
                rounds[name].append(watch.figures(count))
        return rounds


async def async_rounds(url: str, other: psutil.Process, count: int, repeats: int) -> Rounds:
    """The same in coroutines."""
    async with AsyncClient("redis", url, QUEUE) as client:
        cases: dict[str, Callable[[], Awaitable[int]]] = {f"gather, chunks of {CHUNK}": partial(async_gather, client, count)}
        cases |= {f"map, {n} in flight": partial(async_map, client, count, n) for n in IN_FLIGHT}
        cases["map, 100 in flight, as completed"] = partial(async_map, client, count, 100, ordered=False)
        await async_map(client, 2000, 100)
        rounds: Rounds = {name: [] for name in cases}
        for _ in range(repeats):
            for name, case in cases.items():
                watch = Round(other)
                assert await case() == count
                rounds[name].append(watch.figures(count))
        return rounds


def memory(url: str, count: int, in_flight: int) -> dict[str, float]:
    """What one map over `count` items needs at most, in megabytes."""
    with Client("redis", url, QUEUE) as client:
        plain_map(client, 5000, in_flight)
        before = psutil.Process().memory_info().rss
        plain_map(client, count, in_flight)
        grown = psutil.Process().memory_info().rss - before
        tracemalloc.start()
        seen = sum(1 for _ in client.map("add_async", range(count), range(count), max_in_flight=in_flight))
        assert seen == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {"items": count, "in_flight": in_flight, "rss_growth_mb": grown / 1e6, "traced_peak_mb": most / 1e6}


def summary(rounds: Rounds) -> dict[str, dict[str, float]]:
    """The median of each figure, and the fastest round: the one that other work on the machine disturbed least."""
    return {
        name: {
            **{key: round(statistics.median(r[key] for r in taken)) for key in taken[0]},
            "fastest_calls_per_s": round(max(r["calls_per_s"] for r in taken)),
        }
        for name, taken in rounds.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=100_000, help="items whose memory is looked at")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with start_dev_broker(0) as broker, server(broker.url) as other:
        report = {
            "plain code": summary(plain_rounds(broker.url, other, options.calls, options.repeats)),
            "coroutines": summary(asyncio.run(async_rounds(broker.url, other, options.calls, options.repeats))),
            "memory": [memory(broker.url, options.items, n) for n in (100, 1000)],
        }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
