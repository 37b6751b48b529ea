"""How calls are measured, whoever makes them. Needs psutil and nothing of PRPC: it runs in the environments of others, too."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

__all__ = ["Add", "Counts", "Meter", "given", "latencies", "measure", "measure_handles", "rate", "run_in"]

T = TypeVar("T")

#: Adds two numbers, elsewhere.
Add = Callable[[int, int], Awaitable[int]]


@dataclass(frozen=True)
class Counts:
    """How many calls: one after another, and at once with so many in flight."""

    sequential: int = 2_000
    calls: int = 20_000
    in_flight: tuple[int, ...] = (16, 256, 1000)


class Meter:
    """CPU seconds of this process, the server with its children, and the broker."""

    def __init__(self, server: int, broker: int) -> None:
        self._others = {"server": psutil.Process(server), "broker": psutil.Process(broker)}

    def read(self) -> dict[str, float]:
        """Since each of them began."""
        return {"client": time.process_time(), **{name: self._of(process) for name, process in self._others.items()}}

    @staticmethod
    def _of(process: psutil.Process) -> float:
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def per_10k(self, before: dict[str, float], calls: int) -> dict[str, float]:
        """Of 10,000 calls, where so many were made since `before` was read."""
        return {name: (now - before[name]) / calls * 10_000 for name, now in self.read().items()}


def run_in(loop: str, work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in asyncio's own loop, or in uvloop's."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def given() -> tuple[str, Meter, Counts]:
    """What a client process is told by its arguments: URL of the broker, whom to meter, and how many calls to make."""
    url, server, broker, counts = sys.argv[-4:]
    sequential, calls, in_flight = json.loads(counts)
    return url, Meter(int(server), int(broker)), Counts(sequential, calls, tuple(in_flight))


async def latencies(call: Callable[[int], Awaitable[Any]], count: int) -> list[float]:
    """Milliseconds of `count` calls, one after another."""
    taken = []
    for i in range(count):
        start = time.perf_counter()
        await call(i)
        taken.append(1000 * (time.perf_counter() - start))
    return taken


async def rate(call: Callable[[int], Awaitable[Any]], count: int, in_flight: int) -> float:
    """Calls a second with `in_flight` of them at once."""
    numbers = iter(range(count))

    async def caller() -> None:
        for i in numbers:
            await call(i)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return count / (time.perf_counter() - start)


async def measure(add: Add, counts: Counts, meter: Meter) -> dict[str, Any]:
    """A client of coroutines."""

    async def checked(i: int) -> None:
        result = await add(i, 1)
        assert result == i + 1, result

    await rate(checked, min(counts.calls, 2_000), 64)
    found = _latency(await latencies(checked, counts.sequential))
    for in_flight in counts.in_flight:
        before = meter.read()
        found[f"per_s_{in_flight}"] = await rate(checked, counts.calls, in_flight)
        found[f"cpu_{in_flight}"] = meter.per_10k(before, counts.calls)
    return found


def measure_handles(send: Callable[[int, int], Any], get: Callable[[Any], int], counts: Counts, meter: Meter) -> dict[str, Any]:
    """A client of plain code, whose calls give handles that are waited for: so many of them are out at a time."""

    def checked(i: int, handle: Any) -> None:
        result = get(handle)
        assert result == i + 1, result

    def window(count: int, in_flight: int) -> float:
        out: deque[tuple[int, Any]] = deque()
        start = time.perf_counter()
        for i in range(count):
            if len(out) >= in_flight:
                checked(*out.popleft())
            out.append((i, send(i, 1)))
        for pair in out:
            checked(*pair)
        return count / (time.perf_counter() - start)

    window(min(counts.calls, 500), 64)
    taken = []
    for i in range(counts.sequential):
        start = time.perf_counter()
        checked(i, send(i, 1))
        taken.append(1000 * (time.perf_counter() - start))
    found = _latency(taken)
    for in_flight in counts.in_flight:
        before = meter.read()
        found[f"per_s_{in_flight}"] = window(counts.calls, in_flight)
        found[f"cpu_{in_flight}"] = meter.per_10k(before, counts.calls)
    return found


def _latency(taken: list[float]) -> dict[str, Any]:
    ordered = sorted(taken)
    return {"p50_ms": statistics.median(ordered), "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]}
