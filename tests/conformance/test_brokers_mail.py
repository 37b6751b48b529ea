"""Mail from one process to another beside the calls: `Broker.post`."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import replace

import pytest
from broker_harness import (
    Harness,
    connected,
    kept,
    left,
    numbered,
    outgoing,
    receive_all,
    reply_to,
    run,
    take_all,
    take_one,
    until,
    woken,
)

from prpc.brokers.base import Broker
from prpc.settings import Settings

CUTTABLE = (pytest.param("redis", marks=pytest.mark.real_redis), "sim_redis")

AWKWARD = [b"", b"0:", b"5:five", b"\n", b"\x00" * 10, bytes(range(256)), b"9" * 40, b"x" * 300_000]


async def post_all(broker: Broker, queue: str, address: str, bodies: list[bytes]) -> None:
    await asyncio.gather(*(broker.post(queue, address, body, message_id=uuid.uuid4()) for body in bodies))


def test_mail_arrives_as_it_is_and_in_order(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as one, connected(settings) as two:
            mailbox = await one.open_mailbox(settings.queue_name)
            bodies = [b"%d" % number for number in range(300)]
            for sender in (two, one):
                await post_all(sender, settings.queue_name, mailbox.address, bodies + AWKWARD)
                assert await receive_all(mailbox, len(bodies + AWKWARD)) == bodies + AWKWARD
            for body in bodies[:20]:
                await two.post(settings.queue_name, mailbox.address, body, message_id=uuid.uuid4())
            assert await receive_all(mailbox, 20) == bodies[:20]

    run(work())


def test_mail_and_replies_keep_their_order(settings: Settings) -> None:
    """Whatever is sent in one tick, too."""

    async def work() -> None:
        async with connected(settings) as client, connected(settings) as server:
            queue, mailbox = settings.queue_name, await client.open_mailbox(settings.queue_name)
            calls = numbered(30)
            await asyncio.gather(*(client.publish(queue, call) for call in calls))
            found = await take_all(server.consume(queue, consumer="one"), 30)
            sent: list[bytes] = []
            ends = []
            for number, (call, delivery) in enumerate(zip(calls, found, strict=True)):
                for letter in "ab"[: number % 3]:
                    sent.append(f"{number}{letter}".encode())
                    ends.append(server.post(queue, mailbox.address, sent[-1], message_id=call.message_id))
                ends.append(delivery.settle(reply_to(call, b"reply %d" % number, address=mailbox.address)))
                sent.append(b"reply %d" % number)
                if number % 10 == 9:
                    await asyncio.sleep(0)
            await asyncio.gather(*ends)
            assert await receive_all(mailbox, len(sent)) == sent

    run(work())


def test_mail_is_no_outcome(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            queue, mailbox = settings.queue_name, await broker.open_mailbox(settings.queue_name)
            call = outgoing()
            await broker.publish(queue, call)
            delivery = await take_one(broker.consume(queue, consumer="one"))
            await broker.post(queue, mailbox.address, b"about it", message_id=call.message_id)
            assert await receive_all(mailbox, 1) == [b"about it"]
            assert await mailbox.collect([call.message_id]) == {}
            assert await delivery.settle(reply_to(call, b"full", address=mailbox.address, wake=b"short"))
            await broker.post(queue, mailbox.address, b"late", message_id=call.message_id)
            assert await receive_all(mailbox, 2) == [woken(broker, b"short", b"full"), b"late"]
            assert await mailbox.collect([call.message_id]) == kept(broker, {call.message_id: b"full"})
            assert await left(harness, harness.keeps)

    run(work())


def test_mail_that_nobody_reads_does_no_harm(settings: Settings) -> None:
    async def work() -> None:
        other = settings.queue_name + "x"
        async with connected(settings) as broker, connected(replace(settings, queue_name=other)) as second:
            gone = await broker.open_mailbox(settings.queue_name)
            await gone.close()
            here, there = await broker.open_mailbox(settings.queue_name), await second.open_mailbox(other)
            addresses = ["", " ", "\n", "no body", "nobody", "99:nobody", ":", "0:", "1" * 300, "\ud800", "é:\0", there.address]
            addresses += [f"{here.address}x", f"{here.address} ", f" {here.address}", here.address[:-1], gone.address]
            for address in addresses:
                await broker.post(settings.queue_name, address, b"lost", message_id=uuid.uuid4())
            await broker.post(settings.queue_name, here.address, b"last", message_id=uuid.uuid4())
            await second.post(other, there.address, b"other", message_id=uuid.uuid4())
            assert await receive_all(here, 1) == [b"last"]
            assert await receive_all(there, 1) == [b"other"]

    run(work())


def test_a_server_has_a_mailbox_too(settings: Settings) -> None:
    """One connection takes calls, answers them, reads its own mail and hears what is said to all."""

    async def work() -> None:
        async with connected(settings) as client, connected(settings) as server:
            queue = settings.queue_name
            theirs, ours = await client.open_mailbox(queue), await server.open_mailbox(queue)
            listener, consumer = await server.listen(queue), server.consume(queue, consumer="one")
            for number in range(20):
                call = outgoing(b"%d" % number, to=theirs.address)
                await client.publish(queue, call)
                delivery = await take_one(consumer)
                await server.post(queue, delivery.facts["to"], ours.address.encode(), message_id=call.message_id)
                (address,) = await receive_all(theirs, 1)
                await client.post(queue, address.decode(), b"more %d" % number, message_id=call.message_id)
                assert await receive_all(ours, 1) == [b"more %d" % number]
                await client.broadcast(queue, b"all %d" % number)
                assert list(await listener.receive()) == [b"all %d" % number]
                assert await delivery.settle(reply_to(call, call.body, address=theirs.address))
                assert await receive_all(theirs, 1) == [call.body]

    run(work())


def test_mail_between_threads_of_their_own(settings: Settings) -> None:
    opened: list[str] = []
    is_open = threading.Event()

    async def read() -> list[bytes]:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            opened.append(mailbox.address)
            is_open.set()
            return await receive_all(mailbox, 500)

    async def write() -> None:
        async with connected(settings) as broker:
            for number in range(500):
                sent = broker.post(settings.queue_name, opened[0], b"%d" % number, message_id=uuid.uuid4())
                if number % 7 == 0:
                    await sent
            await sent

    found: list[list[bytes]] = []
    reader = threading.Thread(target=lambda: found.append(run(read())))
    reader.start()
    is_open.wait()
    run(write())
    reader.join()
    assert found == [[b"%d" % number for number in range(500)]]


@pytest.mark.parametrize("broker_kind", CUTTABLE, indirect=True)
def test_mail_goes_on_after_a_cut(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(harness.named("cut-me")) as server, connected(settings) as client:
            mailbox = await client.open_mailbox(settings.queue_name)
            assert harness.cut("cut-me") == 1
            await post_all(server, settings.queue_name, mailbox.address, [b"1", b"2"])
            assert await receive_all(mailbox, 2) == [b"1", b"2"]

    run(work())


@pytest.mark.parametrize("broker_kind", CUTTABLE, indirect=True)
def test_mail_to_a_cut_mailbox_is_lost_and_said_to_be(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(harness.named("cut-me")) as client, connected(settings) as server:
            mailbox = await client.open_mailbox(settings.queue_name)
            assert harness.cut("cut-me") == 2
            await server.post(settings.queue_name, mailbox.address, b"missed", message_id=uuid.uuid4())
            heard, gap = [], False

            async def hears_again() -> bool:
                await server.post(settings.queue_name, mailbox.address, b"again", message_id=uuid.uuid4())
                return gap and b"again" in heard

            async def listen() -> None:
                nonlocal gap
                while not (gap and b"again" in heard):
                    mail = await mailbox.receive()
                    gap = gap or mail.gap
                    heard.extend(mail.bodies)

            listening = asyncio.create_task(listen())
            await until(hears_again)
            await listening

    run(work())
