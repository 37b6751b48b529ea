"""Streams over a local broker: first item, throughput both ways, many at once. `python -m benchmarks.streams`

Starts its own Redis (with `--kafka` its own Kafka) and its own server process. The yardstick in the same run is the median of a
plain call, which is one round trip to the server through the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import psutil

from benchmarks.calls import QUEUE, server
from benchmarks.rig import latencies
from prpc import AsyncClient, Stream
from prpc.dev_broker import start_dev_broker, start_dev_kafka


async def first_items(client: AsyncClient, count: int) -> list[float]:
    """Milliseconds from the call to its first item, one stream after another."""

    async def first(_: int) -> None:
        async with client.stream("count_async", 10) as stream:
            assert await anext(stream) == 0

    return await latencies(first, count)


async def read(stream: AbstractAsyncContextManager[Stream[Any]], count: int) -> float:
    """Items a second of one stream."""
    start = time.perf_counter()
    async with stream as items:
        got = 0
        async for _ in items:
            got += 1
    assert got == count
    return count / (time.perf_counter() - start)


async def send(client: AsyncClient, count: int) -> float:
    """Items a second of one argument that is a stream."""

    async def numbers() -> AsyncIterator[int]:
        for i in range(count):
            yield i

    start = time.perf_counter()
    assert await client.call("sum_async", numbers()) == count * (count - 1) // 2
    return count / (time.perf_counter() - start)


async def many(client: AsyncClient, streams: int, items: int, other: psutil.Process) -> dict[str, float]:
    """So many streams open at the same time."""
    before = other.memory_info().rss
    opened = [client.stream("wait_and_count", items) for _ in range(streams)]
    await asyncio.gather(*(anext(stream) for stream in opened))
    held = other.memory_info().rss - before
    start = time.perf_counter()
    await client.call("let_go")

    async def rest(stream: Stream[Any]) -> None:
        async for _ in stream:
            pass

    await asyncio.gather(*map(rest, opened))
    return {"server_kb_each": held / 1e3 / streams, "items_per_s": streams * items / (time.perf_counter() - start)}


async def measure(kind: str, url: str, other: psutil.Process, repeats: int) -> dict[str, Any]:
    """Everything, in one run."""
    async with AsyncClient(kind, url, QUEUE) as client:
        while not await client.servers():
            await asyncio.sleep(0.05)
        await first_items(client, 20)
        rounds = []
        for _ in range(repeats):
            rounds.append(
                {
                    "call_p50_ms": statistics.median(await latencies(lambda i: client.call("add_async", i, 1), 500)),
                    "first_item_p50_ms": statistics.median(await first_items(client, 300)),
                    "async_items_per_s": await read(client.stream("count_async", 100_000), 100_000),
                    "thread_items_per_s": await read(client.stream("count_thread", 100_000), 100_000),
                    "kilobytes_per_s": await read(client.stream("chunks", 5_000, 10_000), 5_000) * 10,
                    "sent_items_per_s": await send(client, 50_000),
                    **await many(client, 1000, 20, other),
                }
            )
    report: dict[str, Any] = {"median": {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}}
    report["spread"] = {key: [min(r[key] for r in rounds), max(r[key] for r in rounds)] for key in rounds[0]}
    report["ratios"] = {"first_item / call": report["median"]["first_item_p50_ms"] / report["median"]["call_p50_ms"]}
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", action="store_true", help="over Kafka instead of Redis")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    kind, start = ("kafka", start_dev_kafka) if options.kafka else ("redis", start_dev_broker)
    with start(0) as broker, server(broker.url, kind) as other:
        print(json.dumps(asyncio.run(measure(kind, broker.url, other, options.repeats)), indent=2))


if __name__ == "__main__":
    main()
