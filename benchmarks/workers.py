"""How fast the workers are: latency, calls a second with 256 waiting, and how soon a killed process is replaced.

Run with `python benchmarks/workers.py [--calls N] [--rounds N]`. No broker is involved. Prints medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import Job, Outcome, WorkerKind, WorkerPool

SLOTS = 2
WAITING = 256


def add(a: int, b: int) -> int:
    return a + b


async def async_add(a: int, b: int) -> int:
    return a + b


def die() -> None:
    os._exit(1)


def make_job(function: Callable[..., Any], *args: Any) -> Job:
    return Job(
        "id", function.__name__, function, args, {}, 60.0, contextvars.copy_context(), {"message_id": "id", "timeout": 60.0}
    )


async def latency(pool: WorkerPool, function: Callable[..., Any], calls: int) -> float:
    """Median seconds of one call after another."""
    times = []
    for number in range(calls):
        began = time.perf_counter()
        await pool.submit(make_job(function, number, 1)).outcome
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def throughput(pool: WorkerPool, function: Callable[..., Any], calls: int) -> float:
    """Calls a second with WAITING of them under way; every result is checked."""
    numbers = iter(range(calls))
    done = asyncio.get_running_loop().create_future()
    left = calls

    def submit() -> None:
        number = next(numbers, None)
        if number is not None:
            execution = pool.submit(make_job(function, number, 1))
            execution.outcome.add_done_callback(lambda future: finish(future, number + 1))

    def finish(future: asyncio.Future[Outcome], expected: int) -> None:
        nonlocal left
        left -= 1
        if future.result().value != expected:
            done.set_exception(AssertionError(future.result()))
        elif not left:
            done.set_result(None)
        else:
            submit()

    began = time.perf_counter()
    for _ in range(WAITING):
        submit()
    await done
    return calls / (time.perf_counter() - began)


async def replacement(pool: WorkerPool) -> tuple[float, float]:
    """Seconds until the death is answered, and from there until the slot is free again."""
    began = time.perf_counter()
    execution = pool.submit(make_job(die))
    await execution.outcome
    answered = time.perf_counter()
    await execution.released
    return answered - began, time.perf_counter() - answered


async def measure(kind: WorkerKind, method: str, calls: int, rounds: int) -> None:
    """Print one line for one kind of worker."""
    function = async_add if kind is WorkerKind.ASYNC else add
    began = time.perf_counter()
    pool = create_pool(kind, SLOTS, Settings(process_start_method=method), functions=[function])
    await pool.start()
    start = time.perf_counter() - began
    waits = [await latency(pool, function, calls // 10) for _ in range(rounds)]
    rates = [await throughput(pool, function, calls) for _ in range(rounds)]
    line = f"{kind:8}{method:11} start {start * 1e3:6.0f} ms  p50 {statistics.median(waits) * 1e3:6.3f} ms"
    line += f"  {statistics.median(rates):9,.0f} calls/s ({min(rates):,.0f}-{max(rates):,.0f})"
    if kind is WorkerKind.PROCESS:
        deaths = [await replacement(pool) for _ in range(10)]
        answered, replaced = (statistics.median(column) * 1e3 for column in zip(*deaths, strict=True))
        line += f"  death answered {answered:.1f} ms, replaced {replaced:.1f} ms"
    await pool.stop()
    sys.stdout.write(line + "\n")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for kind, method in (("thread", "auto"), ("async", "auto"), ("process", "forkserver"), ("process", "spawn")):
        await measure(WorkerKind(kind), method, given.calls, given.rounds)


if __name__ == "__main__":
    asyncio.run(main())
