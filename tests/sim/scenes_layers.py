"""Scenes with middleware on both sides: that passes, changes, answers by itself, raises, swallows, proceeds again, or leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from prpc.app_client import AsyncClient, Client, OutgoingCall, Proceed, gather
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, CallError, RemoteError
from prpc.server.middleware import IncomingCall
from prpc.server.middleware import Proceed as ServerProceed
from tests.sim.caller import name_of
from tests.sim.noted import LATE
from tests.sim.stage import Stage, ends, sync_ends
from tests.sim.workload import world_here

__all__ = ["SERVER_LAYERS", "layers", "server_layers"]


# Clients.


async def _stamps(call: OutgoingCall, proceed: Proceed) -> Any:
    """Every call is stamped, and passes."""
    return await proceed(dataclasses.replace(call, headers={**call.headers, "stamp": "s"}))


async def _meddles(call: OutgoingCall, proceed: Proceed) -> Any:
    """What the function's name asks for."""
    match call.function:
        case "renamed":
            return await proceed(dataclasses.replace(call, function="work"))
        case "answered":
            return "by the middleware"
        case "raised":
            raise ValueError("by the middleware")
        case "twice":
            await proceed(dataclasses.replace(call, function="headers"))
            return await proceed(call)
        case "swallowed":
            try:
                return await proceed(dataclasses.replace(call, function="work"))
            except ValueError:
                return "swallowed"
        case "hurried":
            async with asyncio.timeout(0.2):
                return await proceed(dataclasses.replace(call, function="work"))
        case "impatient":  # leaves the stream before its end
            try:
                async with asyncio.timeout(0.3):
                    return await proceed(dataclasses.replace(call, function="stream"))
            except TimeoutError:
                return 2
    return await proceed(call)


ODD = ("answered", "raised", "twice", "swallowed", "hurried", "impatient")
EXPECTS = {"*": ("ValueError", "RuntimeError"), **dict.fromkeys(ODD, ("anything",))}


def layers(stage: Stage) -> None:
    """Clients with middleware."""
    both = (_stamps, _meddles)
    stage.acts(_layered, both, EXPECTS)
    stage.acts(lambda client: _layered_streams(stage, client), both, EXPECTS)
    stage.plays(_layered_plainly, both, EXPECTS)
    stage.acts(_layered_end, both, EXPECTS)


async def _layered(client: AsyncClient) -> None:
    assert (await client.options(headers={"a": "b"}).call("headers"))["headers"] == {"a": "b", "stamp": "s"}
    await client.call("renamed", 0.0, "value")
    assert await client.call("answered") == "by the middleware"
    await ends(client.call("raised"), ValueError)
    await ends(client.call("twice"), RuntimeError)
    assert await client.call("swallowed", 0.0, "raise") == "swallowed"
    await ends(client.call("hurried", 5.0, "value"), TimeoutError)
    await ends(client.call("work", 0.0, "raise"), ValueError)
    await client.options(retries=2, attempt_timeout=2.0).call("safe", 0.0, "value")
    await client.call("feed", range(9), "value")
    seen: list[Any] = []
    task = client.call("work", 0.6, "progress")
    task.on_progress(seen.append)
    await task
    assert seen and task.progress == seen[-1]
    running = client.call("work", 5.0, "value")
    await asyncio.sleep(0.2)
    running.cancel()
    await ends(running, CallCancelledError)
    unsent = client.call("work", 5.0, "value")
    unsent.cancel()
    await ends(unsent, CallCancelledError)
    assert len(await gather(*(client.call("work", 0.0, "value") for _ in range(5)))) == 5


async def _layered_streams(stage: Stage, client: AsyncClient) -> None:
    await stage.read(client.stream("stream", 0.1, "value", 20), 20)
    await ends(stage.read(client.stream("stream", 0.1, "raise", 4), 4), ValueError)
    await stage.read(client.stream("stream", 0.1, "value", 20), 20, most=2)
    left = client.stream("impatient", 9.0, "value", 90)
    async for _ in left:
        pass
    stage.leave(left)
    dropped = client.stream("stream", 3.0, "value", 30)
    await anext(dropped)
    stage.leave(dropped)
    del dropped


def _layered_plainly(client: Client) -> None:
    client.call("renamed", 0.0, "value").result()
    tasks = [client.call("work", 0.0, "value") for _ in range(5)]
    assert len(gather(*tasks).result()) == 5
    running = client.call("work", 9.0, "value")
    running.cancel()
    sync_ends(running.result, CallCancelledError)
    lost: list[Any] = []

    async def main() -> None:
        await client.call("work", 0.0, "value")
        lost.append(client.call("work", 9.0, "value"))
        lost.append(client.call("work", 9.0, "value"))

    asyncio.run(main())
    lost[0].cancel()
    sync_ends(lost[0].result, CallError, RuntimeError)


async def _layered_end(client: AsyncClient) -> None:
    task = client.call("work", 9.0, "value")
    await asyncio.sleep(0.2)
    await client.close()
    await ends(task, CallError)


# Servers.


async def _watches(call: IncomingCall, proceed: ServerProceed) -> Any:
    """Counts what passes; and proceeds again after a failure, where the function may run twice."""
    world_here().counts["middleware of servers"] += 1
    try:
        return await proceed(call)
    except ValueError:
        if call.function == "safe" and call.args[1] == "raise":
            return await proceed(call)
        raise


async def _acts(call: IncomingCall, proceed: ServerProceed) -> Any:
    """What the caller asks for in a header."""
    match call.context.headers.get("do"):
        case "change":
            return await proceed(dataclasses.replace(call, args=(0.0, "value"), kwargs={}))
        case "answer":
            return "by the middleware"
        case "raise":
            raise PermissionError("by the middleware")
        case "swallow":
            try:
                return await proceed(call)
            except ValueError:
                return "swallowed"
        case "after":
            await proceed(call)
            raise LookupError("after it")
        case "before":
            await asyncio.sleep(5.0)
        case "leave":
            async with asyncio.timeout(0.3):
                return await proceed(call)
        case "twice":
            await proceed(call)
            return await proceed(call)
    return await proceed(call)


SERVER_LAYERS = (_watches, _acts)


def server_layers(stage: Stage) -> None:
    """Servers with middleware."""
    anything = {"*": ("ValueError", "anything")}
    stage.acts(_asks, expects=anything)
    stage.acts(lambda client: _asks_for_streams(stage, client), expects=anything)
    stage.acts(_asks_plainly, expects={"*": ("ValueError",)})


async def _asks(client: AsyncClient) -> None:
    def doing(what: str, end: str = "value", seconds: float = 0.0, timeout: float = 20.0) -> Any:
        return client.options(headers={"do": what}, timeout=timeout).call("work", seconds, end)

    await doing("change", "raise")
    assert await doing("answer") == "by the middleware"
    assert "by the middleware" in str(await ends(doing("raise"), PermissionError, RemoteError))
    assert await doing("swallow", "raise") == "swallowed"
    await ends(doing("after"), LookupError)
    await ends(doing("before", timeout=0.5), CallError)
    await ends(doing("leave", seconds=5.0), TimeoutError, RemoteError)
    for what, seconds in (("before", 0.0), ("", 5.0)):
        task = doing(what, seconds=seconds)
        await asyncio.sleep(0.3)
        task.cancel()
        await ends(task, CallCancelledError)
    await client.call("told", 1)


async def _asks_for_streams(stage: Stage, client: AsyncClient) -> None:
    for what in ("twice", "leave", "raise", "answer"):
        stream = client.options(headers={"do": what}).stream("stream", 0.8, "value", 5)
        try:
            async for _ in stream:
                pass
        except (CallError, BrokerUnavailableError, PermissionError, TimeoutError, RuntimeError) as exc:
            assert what != "answer" or not stage.peaceful or name_of(exc) in LATE
        stage.leave(stream)


async def _asks_plainly(client: AsyncClient) -> None:
    await client.call("work", 0.0, "value")
    await ends(client.call("safe", 0.0, "raise"), ValueError)
    await ends(client.call("work", 0.0, "raise"), ValueError)
    await client.call("process", 0.0, "value")
