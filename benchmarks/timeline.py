"""One call after another, step by step: when each side read, ran and wrote. `python -m benchmarks.timeline`

Starts its own Redis and a server process. Both ends note the moments on the clock that processes share. Printed are the medians
of the most frequent order of steps: three processes on two cores do not always take turns in the same way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from typing import Any

from benchmarks.calls import QUEUE, ROOT
from prpc import AppServer
from prpc.app_client import AsyncClient
from prpc.brokers.redis_wire import Wire
from prpc.dev_broker import start_dev_broker

#: Seconds on `time.monotonic()`, which all processes of a machine share, and what was done.
Moment = tuple[float, str]
moments: list[Moment] = []
#: What counts as a step: what is left out follows on the outcome and is not waited for.
STEPS = {"client wrote", "server read", "function ran", "server wrote", "client read"}


def note_moments(side: str) -> None:
    """Have every connection of this process note when it read and wrote."""
    write, updated = Wire.write, Wire.buffer_updated

    def noting_write(wire: Wire, data: bytes) -> None:
        write(wire, data)
        moments.append((time.monotonic(), f"{side} wrote"))

    def noting_read(wire: Wire, nbytes: int) -> None:
        moments.append((time.monotonic(), f"{side} read"))
        updated(wire, nbytes)

    Wire.write = noting_write  # type: ignore[method-assign,assignment]
    Wire.buffer_updated = noting_read  # type: ignore[method-assign,assignment]


def serve() -> None:
    """Body of the server process."""
    note_moments("server")
    app = AppServer()

    @app.function("async")
    async def add(a: int, b: int) -> int:
        moments.append((time.monotonic(), "function ran"))
        return a + b

    @app.function("async")
    async def noted(count: int) -> list[Any]:
        return [list(moment) for moment in moments[-count:]]

    app.start()


async def measure(url: str, calls: int) -> None:
    """Make the calls and print what they were made of."""
    note_moments("client")
    async with AsyncClient("redis", url, QUEUE) as client:
        while not await client.servers():
            await asyncio.sleep(0.05)
        for i in range(500):
            await client.call("add", i, 1)
        spans = []
        for i in range(calls):
            began = time.monotonic()
            assert await client.call("add", i, 1) == i + 1
            spans.append((began, time.monotonic()))
        theirs = [(at, what) for at, what in await client.call("noted", 12 * calls)]
    report(spans, sorted([*moments, *theirs]))


def report(spans: list[tuple[float, float]], every: list[Moment]) -> None:
    """Print the steps of the most frequent order."""
    orders: Counter[tuple[str, ...]] = Counter()
    taken: defaultdict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    at = 0
    for began, ended in spans:
        while every[at][0] < began:
            at += 1
        steps = []
        while at < len(every) and every[at][0] <= ended:
            if every[at][1] in STEPS:
                steps.append(every[at])
            at += 1
        order = tuple(what for _, what in steps)
        orders[order] += 1
        taken[order].append([1e6 * (moment - began) for moment in (*(when for when, _ in steps), ended)])
    print(f"median of all: {1e6 * statistics.median(ended - began for began, ended in spans):.0f} us")
    ((order, count),) = orders.most_common(1)
    print(f"{count} of {len(spans)} calls in this order, us since the call:")
    before = 0.0
    for name, each in zip((*order, "result there"), zip(*taken[order], strict=True), strict=True):
        median = statistics.median(each)
        print(f"  {name:14} {median:6.0f}  (+{median - before:.0f})")
        before = median


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    with start_dev_broker(0) as broker:
        settings = {
            "PRPC_TYPE_BROKER": "redis",
            "PRPC_URL_BROKER": broker.url,
            "PRPC_QUEUE_NAME": QUEUE,
            "PRPC_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "benchmarks.timeline", "--serve"]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PRPC_LOG_LEVEL": "warning", "PRPC_EVENT_LOOP": "asyncio", **settings}
        )
        try:
            asyncio.run(measure(broker.url, options.calls))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return None


if __name__ == "__main__":
    main()
