"""What the simulated servers serve: functions that follow a script and note every start and end in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prpc.call_context import current_call
from prpc.server.registry import Registry
from tests.sim.hosts import HOST

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["IDEMPOTENT", "STREAMS", "make_registry", "world_here"]

#: Functions that may run twice.
IDEMPOTENT = frozenset({"safe", "process_safe", "thread_safe", "safe_stream", "marked"})
STREAMS = frozenset({"stream", "safe_stream"})


def world_here() -> World:
    """The world whose code runs."""
    world: World = HOST.get().globals["world"]
    return world


@contextmanager
def execution(**more: Any) -> Iterator[str]:
    """Note the start and, where it comes to that, the end; the token belongs to this execution alone."""
    world, message_id = world_here(), current_call().message_id
    token = world.token()
    world.note("start", id=message_id, server=HOST.get().globals["process"], token=token, **more)
    yield token
    world.note("end", id=message_id, token=token)


async def follow(seconds: float, end: str, token: str) -> Any:
    """One script: so many seconds, then its end."""
    if end == "hold":
        hold(seconds)
        await asyncio.sleep(0)
        return token
    if end == "stubborn":
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
        return token
    for part in range(3):
        if end == "progress":
            _report(part, token)
        await asyncio.sleep(seconds / 3)
    return token


def _report(part: int, token: str) -> None:
    """As a pipe brings it, where the function runs in a process of its own."""
    call, home = current_call(), HOST.get().globals["host"]
    if HOST.get() is home:
        call.progress(part, 3, token)
    else:
        world_here().loop.on(home, call.progress, part, 3, token)


def hold(seconds: float) -> None:
    """The process's loop stands still, as under a blocking call; its other parts go on."""
    host = HOST.get()
    world_here().stand_still(host, seconds, parts=False)


def finish(end: str, token: str) -> Any:
    """What the script's function returns or raises."""
    if end == "raise":
        raise ValueError(token)
    if end == "exit":
        raise SystemExit(token)
    if end == "unwritable":
        return object()
    return token


async def work(seconds: float, end: str) -> Any:
    with execution() as token:
        await follow(seconds, end, token)
    return finish(end, token)


async def capped(seconds: float, end: str) -> Any:
    """No more than one runs at once in a server."""
    home = HOST.get().globals
    home["capped"] = home.get("capped", 0) + 1
    try:
        if home["capped"] > 1:
            world_here().note("broken", what=f"capped() runs {home['capped']} times at once")
        return await work(seconds, end)
    finally:
        home["capped"] -= 1


def process(seconds: float, end: str) -> Any:
    raise NotImplementedError("the simulation runs `simulated`")


def process_safe(seconds: float, end: str) -> Any:
    raise NotImplementedError("the simulation runs `simulated`")


process.simulated = process_safe.simulated = work  # type: ignore[attr-defined]


async def stream(seconds: float, end: str, count: int) -> AsyncIterator[str]:
    """`count` items, a short time apart."""
    world, message_id = world_here(), current_call().message_id
    token = world.token()
    world.note("start", id=message_id, server=HOST.get().globals["process"], token=token)
    try:
        for index in range(count):
            await asyncio.sleep(seconds / count)
            world.note("made", id=message_id, token=token, index=index)
            yield f"{index}"
        world.note("end", id=message_id, token=token)
        finish(end, token)
    finally:
        world.note("closed", id=message_id, token=token)


async def feed(items: AsyncIterator[int], end: str) -> str:
    """Reads what it is sent, which must come in order."""
    with execution() as token:
        expected = 0
        async for item in items:
            if item != expected:
                world_here().note("broken", what=f"a sent stream brought {item} in the place of {expected}")
            expected += 1
    finish(end, token)
    return token


async def nested(seconds: float, end: str) -> str:
    """Calls another function while it runs; what is left of its time is that one's limit."""
    with execution() as token:
        await asyncio.sleep(seconds / 2)
        try:
            await world_here().call_inside(seconds / 2, end)
        except Exception:
            pass
    return token


async def told(number: int) -> None:
    """An event for every server."""
    hear("events heard")


def hear(kind: str) -> None:
    """Count an event that runs; of each id, every process runs one."""
    world, heard = world_here(), (HOST.get().globals["process"], current_call().message_id)
    world.counts[kind] += 1
    if heard in world.heard:
        world.note("broken", what=f"the event {heard[1]} ran twice in {heard[0]}")
    world.heard.add(heard)


def make_registry() -> Registry:
    """All functions, under the names that options.KINDS and clients use."""
    registry = Registry()
    registry.add(work, "async", name="work")
    registry.add(work, "async", name="safe", idempotent=True)
    registry.add(capped, "async", name="capped", max_concurrency=1)
    registry.add(process, "process", name="process")
    registry.add(process_safe, "process", name="process_safe", idempotent=True)
    registry.add(stream, "async", name="stream")
    registry.add(stream, "async", name="safe_stream", idempotent=True)
    registry.add(feed, "async", name="feed")
    registry.add(nested, "async", name="nested")
    registry.add(told, "async", name="told", broadcast=True)
    return registry
