"""What the servers of scenes serve besides workload.py: functions of threads, and such as look closely at what they are given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NotRequired, TypedDict, Unpack

from prpc.call_context import current_call
from prpc.server.registry import Registry
from tests.sim.hosts import HOST
from tests.sim.workload import execution, finish, hear, make_registry, work, world_here

__all__ = ["bare_registry", "plain_registry", "rich_registry", "threaded_registry"]


# Of threads.


def thread_work(seconds: float, end: str) -> Any:
    with execution() as token:
        for part in range(3):
            if end == "progress":
                current_call().progress(part, 3, token)
            time.sleep(seconds / 3)
            if current_call().cancelled:
                break
    return finish(end, token)


def thread_stream(seconds: float, end: str, count: int) -> Iterator[str]:
    world, message_id = world_here(), current_call().message_id
    token = world.token()
    world.note("start", id=message_id, server=HOST.get().globals["process"], token=token)
    try:
        for index in range(count):
            time.sleep(seconds / count)
            world.note("made", id=message_id, token=token, index=index)
            yield f"{index}"
        world.note("end", id=message_id, token=token)
        finish(end, token)
    finally:
        world.note("closed", id=message_id, token=token)


def thread_feed(items: Iterator[int], end: str, seconds: float = 0.0) -> str:
    with execution() as token:
        for expected, item in enumerate(items):
            time.sleep(seconds)
            if item != expected:
                world_here().note("broken", what=f"a sent stream brought {item} in the place of {expected}")
            if end == "early" and expected == 3:
                break
    finish(end, token)
    return token


# That look at what they are given.


class Unlike(BaseException):
    """What no server expects."""


@dataclass
class Point:
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x == 13:
            raise RuntimeError("nobody likes 13")
        if self.x == 14:
            raise Unlike("14 is worse")


class Further(TypedDict):
    shade: str
    size: NotRequired[int]


async def typed_here(
    number: int,
    /,
    text: str = "",
    *rest: float,
    flag: bool,
    maybe: Point = None,  # type: ignore[assignment]
    **further: Unpack[Further],
) -> str:
    with execution() as token:
        right = type(number) is int and all(type(part) is float for part in rest) and (maybe is None or type(maybe) is Point)
        if not right:
            world_here().note("broken", what=f"typed() got {number!r}, {rest!r}, {maybe!r}")
    return token


async def free(*args: Any, **kwargs: Any) -> str:
    with execution() as token:
        await asyncio.sleep(0)
    return token


async def pair(number: int, other: int) -> str:
    with execution() as token:
        await asyncio.sleep(0)
    return token


async def nothing_by_name(number: int, /) -> str:
    with execution() as token:
        await asyncio.sleep(0)
    return token


async def headers() -> dict[str, Any]:
    with execution() as token:
        call = current_call()
    return {"token": token, "headers": dict(call.headers), "function": call.function}


async def big(size: int) -> str:
    with execution():
        await asyncio.sleep(0)
    return "x" * size


class Awkward:
    """Cannot be written, and says so in its own way."""

    def __reduce__(self) -> Any:
        raise KeyError("not me")

    def __getstate__(self) -> Any:
        raise KeyError("not me")


async def awkward() -> Any:
    with execution():
        await asyncio.sleep(0)
    return {"deep": [Awkward()]}


async def long_error(size: int) -> None:
    with execution():
        await asyncio.sleep(0)
    raise ValueError("x" * size)


async def feeds(first: AsyncIterator[int], second: AsyncIterator[int] | None = None) -> str:
    """Reads two streams in turn, or one."""
    with execution() as token:
        async for _ in first:
            if second is not None:
                await anext(second, None)
    return token


async def limited(seconds: float) -> str:
    """Runs longer than it may."""
    with execution() as token:
        await asyncio.sleep(seconds)
    return token


# Events.


async def told_slowly(number: int) -> None:
    hear("events heard")
    await asyncio.sleep(0.3)


async def told_badly(number: int) -> None:
    hear("events heard")
    raise ValueError(f"{number}")


async def told_of_a_point(point: Point) -> None:
    hear("events heard")


async def stream_to(point: Point) -> AsyncIterator[int]:
    yield point.x


async def marked(seconds: float, count: int) -> AsyncIterator[str]:
    """Items that say which run they are of."""
    world, message_id = world_here(), current_call().message_id
    token = world.token()
    world.note("start", id=message_id, server=HOST.get().globals["process"], token=token)
    try:
        for index in range(count):
            await asyncio.sleep(seconds)
            yield f"{token}:{index}"
        world.note("end", id=message_id, token=token)
    finally:
        world.note("closed", id=message_id, token=token)


def told_thread(number: int) -> None:
    hear("events in threads")
    time.sleep(0.2)


def told_process(number: int) -> None:
    raise NotImplementedError("the simulation runs `simulated`")


async def _told_process(number: int) -> None:
    hear("events in processes")
    await asyncio.sleep(0.2)


told_process.simulated = _told_process  # type: ignore[attr-defined]


class Counter:
    """Functions may be methods and objects that are called, too."""

    async def __call__(self, seconds: float) -> str:
        with execution() as token:
            await asyncio.sleep(seconds)
        return token


def rich_registry() -> Registry:
    """Everything that needs no threads; a new one."""
    registry = make_registry()
    registry.add(typed_here, "async", name="typed")
    for function in (free, pair, nothing_by_name, headers, big, awkward, long_error, feeds):
        registry.add(function, "async")
    registry.add(limited, "async", timeout=0.5)
    registry.add(partial(work, end="value"), "async", name="partial")
    registry.add(Counter(), "async", name="counter.count")
    registry.add(told_slowly, "async", broadcast=True, max_concurrency=1)
    registry.add(told_badly, "async", broadcast=True, timeout=5.0)
    registry.add(told_of_a_point, "async", broadcast=True)
    registry.add(stream_to, "async")
    registry.add(marked, "async", idempotent=True)
    registry.add(told_process, "process", broadcast=True)
    return registry


def make_threaded_registry() -> Registry:
    registry = rich_registry()
    registry.add(thread_work, "thread")
    registry.add(thread_work, "thread", name="thread_safe", idempotent=True)
    registry.add(thread_stream, "thread")
    registry.add(thread_feed, "thread")
    registry.add(told_thread, "thread", broadcast=True)
    return registry


bare_registry = cache(make_registry)
plain_registry = cache(rich_registry)
threaded_registry = cache(make_threaded_registry)
