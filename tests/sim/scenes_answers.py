"""Scenes of answers: who gets them, how soon they come after a gap, and what is said where time runs out."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

from prpc.app_client import AsyncClient, gather
from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Mailbox, Outgoing
from prpc.codec import Codec
from prpc.exceptions import CallCancelledError, ClientTimeOutError
from prpc.protocol.facts import CallFacts
from prpc.prpcmessage import PRPCMessage
from tests.ledger.causes import BROKER
from tests.sim.hosts import Host
from tests.sim.stage import Stage, ends
from tests.sim.world import QUEUE

__all__ = ["gaps", "late", "seconds", "twice"]

#: What a run of a function gives back: its own mark.
_TOKEN = re.compile(rb'"t\d+"')


def seconds(stage: Stage) -> None:
    """Another program sends the same call, too: on Kafka it need not be answered by who got the partition after the call ran."""
    if stage.peaceful or stage.world.options.broker == "redis":
        stage.acts(lambda client: _same_call(stage, client))


async def _same_call(stage: Stage, client: AsyncClient) -> None:
    broker = create_broker(client.channel.settings)
    await broker.connect()
    try:
        for function in ("work", "safe"):
            mailbox = await broker.open_mailbox(QUEUE)
            task = client.options(retries=0).call(function, 1.0, "value")
            message_id = UUID(str(task.message.message_id))
            await asyncio.sleep(0.2)
            entries = stage.world.store.queue(QUEUE).entries.values()
            bodies = [entry.body for entry in entries if entry.message_id == message_id]
            if bodies and bodies[0] is not None:
                facts = {"reply_to": mailbox.address, "timeout": "30"}
                await broker.publish(QUEUE, Outgoing(message_id, bodies[0], facts, mailbox.address))
                token = await task
                found = await _outcome(mailbox)
                assert found is None or token.encode() in found, f"{token} in {found!r}"
    finally:
        await broker.close()


async def _outcome(mailbox: Mailbox) -> bytes | None:
    """The next mail; None where some may have been lost."""
    try:
        async with asyncio.timeout(30.0):
            while True:
                mail = await mailbox.receive()
                if mail.gap:
                    return None
                if mail.bodies:
                    return mail.bodies[0]
    except TimeoutError:
        raise AssertionError("who sent a call as well got no outcome") from None


def twice(stage: Stage) -> None:
    """A call that may run twice does, at the same time: a further attempt of it came although it runs."""
    options = stage.world.options
    if stage.peaceful and options.broker == "redis" and not options.calls:
        stage.acts(lambda client: _runs_twice(stage, client))
        stage.acts(lambda client: _streams_twice(stage, client))


async def _again(stage: Stage, broker: Broker, message_id: UUID) -> None:
    """Its further attempt, as its caller would send it."""
    for entry in list(stage.world.store.queue(QUEUE).entries.values()):
        if entry.message_id == message_id and entry.body is not None:
            facts = {**entry.facts, **CallFacts(attempt=2).to_fields()}
            await broker.publish(QUEUE, Outgoing(message_id, entry.body, facts, facts["reply_to"], again=True))
            return


async def _runs_twice(stage: Stage, client: AsyncClient) -> None:
    """Both attempts end with the first outcome, for a caller that has not let go of it."""
    broker = create_broker(client.channel.settings)
    await broker.connect()
    try:
        mailbox = await broker.open_mailbox(QUEUE)
        for _ in range(4):
            message_id, when = uuid4(), datetime.fromtimestamp(0, UTC)
            stage.world.note("call", id=message_id, client="twice", function="safe", idempotent=True, timeout=None, expects=[])
            stage.world.note("leave", id=message_id)
            body = Codec().write_call(PRPCMessage("safe", (1.0, "value"), {}, message_id, when))
            facts = CallFacts(reply_to=mailbox.address).to_fields()
            await broker.publish(QUEUE, Outgoing(message_id, body, facts, mailbox.address))
            await asyncio.sleep(0.3)
            await _again(stage, broker, message_id)
            outcomes: list[bytes] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(9.0):
                    while len(outcomes) < 2:
                        outcomes += (await mailbox.receive()).bodies
            tokens = {found[0] for body in outcomes if (found := _TOKEN.search(body))}
            assert len(tokens) < 2, f"one call had the outcomes {sorted(tokens)}"
    finally:
        await broker.close()


async def _streams_twice(stage: Stage, client: AsyncClient) -> None:
    """Its reader reads one run, or goes over to the other, and never back."""
    broker = create_broker(client.channel.settings)
    await broker.connect()
    try:
        way = stage.world.options.latency
        for _ in range(5):
            stream = client.options(timeout=60.0, retries=0).stream("marked", way, 80)  # some are under way as it goes over
            await asyncio.sleep(10 * way)
            await _again(stage, broker, UUID(str(stream.message.message_id)))
            try:
                runs = [item.partition(":")[0] async for item in stream]
            except ClientTimeOutError:
                raise AssertionError("the stream of two runs did not end") from None
            assert len([run for run, _ in groupby(runs)]) == len(set(runs)), f"items of {runs}"
            stage.leave(stream, silent=True)
    finally:
        await broker.close()


#: Seconds between the items of a stream, within which no beat repeats its phase.
_BETWEEN = 1.3


def gaps(stage: Stage) -> None:
    """Items get lost on the way, again and again."""
    options = stage.world.options
    if stage.peaceful and options.broker == "redis":
        stage.acts(lambda client: _given_up(stage, client))
        if options.latency < 0.01 and options.window > 1:  # the writer waits for no word of a reader that cannot be heard
            stage.acts(lambda client: _missed(stage, client))


def _host(stage: Stage, client: AsyncClient) -> Host:
    return next(guest.host for guest in stage.world.guests if guest.client is client)


async def _given_up(stage: Stage, client: AsyncClient) -> None:
    """A reader that hears nothing for so long that the server gives it up learns of that as soon as it hears again."""
    world, host = stage.world, _host(stage, client)
    stream = client.options(timeout=60.0).stream("stream", 30.0, "value", 30)
    reading = asyncio.ensure_future(stage.read(stream, 30))
    await asyncio.sleep(2.5)
    fault = world.fault("deaf", BROKER, host.name)
    world.network.way(host).home = False
    await asyncio.sleep(9.0)
    world.network.way(host).home = True
    world.network.cut(host)
    world.mended(fault)
    await ends(reading, CallCancelledError)


async def _missed(stage: Stage, client: AsyncClient) -> None:
    """What was lost comes at once when the way is there again, not with one of the beats of either side."""
    world, count = stage.world, 9
    host = _host(stage, client)
    way, loop = world.network.way(host), asyncio.get_running_loop()
    stream = client.stream("stream", _BETWEEN * count, "value", count)
    reading = loop.create_task(stage.read(stream, count))
    while not _read(stage, stream):
        await asyncio.sleep(0.01)
    began = loop.time()
    for number in range(1, count):
        await asyncio.sleep(began + number * _BETWEEN - 0.1 - loop.time())
        fault = world.fault("deaf", BROKER, host.name)
        way.home = False
        await asyncio.sleep(0.15 + 0.5 * stage.draw.random())
        way.home = True
        world.network.cut(host, listening=True)
        world.mended(fault)
        await asyncio.sleep(0.12 + 30 * world.options.latency)
        assert _read(stage, stream) > number, f"item {number} was not there at once"
    await reading


def _read(stage: Stage, stream: Any) -> int:
    message_id = str(stream.message.message_id)
    return sum(event["event"] == "read" and event["id"] == message_id for event in stage.world.events)


def late(stage: Stage) -> None:
    """All are busy, and who waits has a little less time than it must wait; clocks differ, so that a server may tell it first."""
    if not stage.world.options.calls:  # which would wait as long
        stage.acts(lambda client: _hurried(stage, client))


async def _hurried(stage: Stage, client: AsyncClient) -> None:
    options, calls = stage.world.options, []
    room = options.servers * options.slots
    for wait in range(1, max(4, 72 // room)):
        for _ in range(room):
            calls.append(client.call("work", 1.0, "value"))
        for _ in range(3):
            limit = wait * stage.draw.uniform(0.95, 1.0)
            calls.append(client.options(timeout=limit).call("work", 0.0, "value"))
    await gather(*calls, return_exceptions=True)
