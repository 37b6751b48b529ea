"""Scenes of events, and of functions that may not run as often as they are called."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from prpc.app_client import AsyncClient, gather
from prpc.exceptions import BadArgumentsError, CallError
from prpc.protocol.facts import CallFacts, Event, write_cancel, write_event
from tests.sim.fence import EPOCH
from tests.sim.nemesis import Nemesis
from tests.sim.stage import Stage, ends
from tests.sim.world import QUEUE

__all__ = ["crowd", "events", "flood", "hostile_words"]


def events(stage: Stage) -> None:
    """Calls of broadcast functions, in workers of all kinds, while a server stops."""
    stage.acts(lambda client: _tells(stage, client), expects={"*": ("anything",)})
    stage.directs(_stops_in_the_middle(stage))


async def _tells(stage: Stage, client: AsyncClient) -> None:
    world = stage.world
    if stage.peaceful:
        before = world.counts["events heard"]
        assert await client.call("told", 1) is None
        await asyncio.sleep(1.0)
        heard = world.counts["events heard"] - before
        assert heard == len(world.servers), f"{heard} of {len(world.servers)} servers heard an event"
    for number in range(3):
        for name in ("told", "told_slowly", "told_badly", "told_thread", "told_process"):
            await client.options(headers={"a": "b"}).call(name, number)
    await ends(client.call("told", "no number", "one too many"), BadArgumentsError)
    await gather(*(client.options(timeout=0.6).call("told_slowly", number) for number in range(8)), return_exceptions=True)
    await ends(client.call("told_of_a_point", {"x": 14}), Exception)
    await ends(client.call("told", "x" * 1_100_000), CallError, TypeError)
    late = client.call("told_slowly", 5)
    await asyncio.sleep(0.01)
    late.cancel()


async def _stops_in_the_middle(stage: Stage) -> None:
    await asyncio.sleep(1.3)
    await Nemesis(stage.world).stop()


def _call(name: str, *args: Any, message_id: Any = None) -> bytes:
    return json.dumps({"func_name": name, "func_args": args, "message_id": str(message_id or uuid4())}).encode()


def _event(stage: Stage, call: bytes, *, ago: float = 0.0, timeout: float | None = None, strict: bool = True) -> bytes:
    return write_event(Event(call, EPOCH + stage.world.loop.now - ago, CallFacts(timeout=timeout), raw=True, strict=strict))


def hostile_words(stage: Stage) -> None:
    """What anybody may say on the channel of control messages, and what a broker brings twice."""
    stage.directs(_says(stage))


async def _says(stage: Stage) -> None:
    twice = _event(stage, _call("told", 1))
    words = [
        b"{",
        b"[]",
        b"\xff",
        b'{"cancel": 3}',
        b'{"cancel": ["no uuid"]}',
        b'{"cancel": {"a": 1}}',
        b'{"event": []}',
        b'{"event": {"message": 3}}',
        b'{"event": {"message": "x"}}',
        b'{"event": {"message": "x", "sent_ms": "soon"}}',
        b'{"event": {"message": "x", "sent_ms": "1"}}',
        b'{"event": {"message": "x", "sent_ms": "1", "timeout_ms": "soon"}}',
        b'{"event": {"message": "x", "sent_ms": "1", "headers": "[]"}}',
        b'{"event": {"message": "x", "sent_ms": "1", "headers": "{"}}',
        b'{"event": {"message": "' + b"x" * 1_000_001 + b'", "sent_ms": "1"}}',
        b'{"event": {"message": "x", "sent_ms": "1", "headers": "' + b"x" * 17_000 + b'"}}',
        b'{"something": "else"}',
        write_cancel([uuid4() for _ in range(3)]),
        twice,
        twice,
        _event(stage, _call("told", 1), ago=1000.0),
        _event(stage, _call("told", 1), ago=-1000.0),
        _event(stage, _call("told", 1), ago=-2.0),
        _event(stage, _call("work", 1.0, "value")),
        _event(stage, _call("nobody", 1)),
        _event(stage, _call("told", 1, 2, 3)),
        _event(stage, _call("told", 1), timeout=0.0),
        _event(stage, _call("told", 1), timeout=0.0001),
        _event(stage, _call("told_badly", {"x": 14})),
        _event(stage, _call("told_of_a_point", {"x": 14})),
        _event(stage, _call("told", "x"), strict=False),
        _event(stage, b"{"),
    ]
    for word in words:
        stage.world.store.broadcast(QUEUE, word)
        await asyncio.sleep(0.02)
    await asyncio.sleep(70.0)  # what was heard is forgotten
    for _ in range(2):
        stage.world.store.broadcast(QUEUE, _event(stage, _call("told", 1)))
    stage.world.store.broadcast(QUEUE, twice)
    await asyncio.sleep(1.0)


def flood(stage: Stage) -> None:
    """More events than a server keeps."""
    stage.directs(_floods(stage))


async def _floods(stage: Stage) -> None:
    for number in range(1_020):
        stage.world.store.broadcast(QUEUE, _event(stage, _call("told_slowly", number), timeout=3.0))
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(10.0)


def crowd(stage: Stage) -> None:
    """More calls of a limited function than a server holds, while it stops."""
    stage.acts(_crowds)
    stage.directs(_stops_in_the_middle(stage))


async def _crowds(client: AsyncClient) -> None:
    tasks = [client.call("capped", 0.02, "value") for _ in range(130)]
    tasks += [client.options(timeout=0.3).call("capped", 0.02, "value") for _ in range(3)]
    await gather(*tasks, return_exceptions=True)
