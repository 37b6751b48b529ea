"""Mail, broadcasts and announcements: what every broker does beside the calls."""

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

from prpc.brokers.base import Broker, Mailbox, ServerRecord
from prpc.settings import Settings

#: Brokers that keep outcomes beside the mail.
KEEPING = ("memory", pytest.param("redis", marks=pytest.mark.real_redis), "sim_redis")
#: Brokers whose connections can be cut.
CUTTABLE = (pytest.param("redis", marks=pytest.mark.real_redis), "sim_redis")

AWKWARD = [b"", b"0:", b"5:five", b"\n", b"\x00" * 10, bytes(range(256)), b"9" * 40]


async def answer(broker: Broker, queue: str, mailbox: Mailbox, bodies: list[bytes]) -> list[uuid.UUID]:
    """Send one call per body and have each answered to the mailbox with its body, all in one go."""
    calls = numbered(len(bodies))
    await asyncio.gather(*(broker.publish(queue, call) for call in calls))
    consumer = broker.consume(queue, consumer=uuid.uuid4().hex)
    found = await take_all(consumer, len(bodies))
    replies = [reply_to(c, b"full", address=mailbox.address, wake=b) for c, b in zip(calls, bodies, strict=True)]
    assert all(await asyncio.gather(*(d.settle(r) for d, r in zip(found, replies, strict=True))))
    await consumer.close()
    return [call.message_id for call in calls]


def test_replies_reach_the_mailbox_as_they_are(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            ids = await answer(broker, settings.queue_name, mailbox, AWKWARD)
            expected = [woken(broker, body, b"full") for body in AWKWARD]
            assert await receive_all(mailbox, len(AWKWARD)) == expected
            assert await mailbox.collect(ids) == kept(broker, dict.fromkeys(ids, b"full"))
            mailbox.forget(ids[:3])

            async def forgotten() -> bool:
                return set(await mailbox.collect(ids)) == set(kept(broker, dict.fromkeys(ids[3:], b"")))

            await until(forgotten)
            mailbox.forget([])
            calls = [outgoing(body) for body in AWKWARD if body]
            await asyncio.gather(*(broker.publish(settings.queue_name, call) for call in calls))
            found = await take_all(broker.consume(settings.queue_name, consumer="another"), len(calls))
            for delivery in found:
                assert await delivery.settle(reply_to(outgoing(), delivery.body or b"", address=mailbox.address))
            assert sorted(await receive_all(mailbox, len(calls))) == sorted(filter(None, AWKWARD))

    run(work())


def test_a_body_without_a_shorter_form_wakes_as_it_is(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            call = outgoing()
            await broker.publish(settings.queue_name, call)
            delivery = await take_one(broker.consume(settings.queue_name, consumer="one"))
            assert await delivery.settle(reply_to(call, b"whole", address=mailbox.address))
            mail = await mailbox.receive()
            assert (list(mail.bodies), mail.gap) == ([b"whole"], False)

    run(work())


def test_each_mailbox_gets_its_own(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailboxes = [await broker.open_mailbox(settings.queue_name) for _ in range(3)]
            assert len({m.address for m in mailboxes}) == 3
            calls = numbered(90)
            await asyncio.gather(*(broker.publish(settings.queue_name, call) for call in calls))
            found = await take_all(broker.consume(settings.queue_name, consumer="one"), 90)
            found.sort(key=lambda delivery: int(delivery.body or b""))
            ends = [
                delivery.settle(reply_to(call, call.body, address=[*(m.address for m in mailboxes), None, "nobody"][number % 5]))
                for number, (call, delivery) in enumerate(zip(calls, found, strict=True))
            ]
            assert all(await asyncio.gather(*ends))
            for number, mailbox in enumerate(mailboxes):
                assert await receive_all(mailbox, 18) == [c.body for c in calls[number::5]]
                await mailbox.close()
                await mailbox.close()

    run(work())


def test_two_replies_of_one_tick_for_one_id(settings: Settings) -> None:
    """The first one is kept and both wake-ups speak of it; neighbours in the same batch are not harmed."""

    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            call, other = outgoing(), outgoing()
            for some in (call, outgoing(), other):
                await broker.publish(settings.queue_name, some)
            found = await take_all(broker.consume(settings.queue_name, consumer="one"), 3)
            replies = [reply_to(call, b"first"), reply_to(call, b"second"), reply_to(other, b"other")]
            ends = [d.settle(replace(r, address=mailbox.address)) for d, r in zip(found, replies, strict=True)]
            assert await asyncio.gather(*ends) == [True] * 3
            assert sorted(await receive_all(mailbox, 3)) == [b"first", b"first", b"other"]
            assert await mailbox.collect([call.message_id]) == kept(broker, {call.message_id: b"first"})

    run(work())


@pytest.mark.parametrize("broker_kind", KEEPING, indirect=True)
def test_kept_replies_run_out(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(replace(settings, redis_expire=1)) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            ids = await answer(broker, settings.queue_name, mailbox, [b"a", b"b"])

            async def gone() -> bool:
                return not await mailbox.collect(ids)

            assert not await gone()
            await until(gone)
            await answer(broker, settings.queue_name, mailbox, [b"c"])
            assert await left(harness, harness.keeps)

    run(work())


def test_client_and_server_in_threads_of_their_own(settings: Settings) -> None:
    served = threading.Thread(target=lambda: run(_serve(settings, 200)))
    served.start()

    async def ask() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            bodies = [str(number).encode() for number in range(200)]
            for body in bodies:
                await broker.publish(settings.queue_name, outgoing(body, to=mailbox.address))
            assert sorted(await receive_all(mailbox, 200)) == sorted(bodies)

    run(ask())
    served.join()


async def _serve(settings: Settings, count: int) -> None:
    async with connected(settings) as broker:
        consumer = broker.consume(settings.queue_name, consumer="one")
        for _ in range(count):
            delivery = await take_one(consumer)
            assert await delivery.settle(reply_to(outgoing(), delivery.body or b"", address=delivery.facts["to"]))


def test_every_listener_hears_a_broadcast(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as one, connected(settings) as two:
            listeners = [await one.listen(settings.queue_name), await two.listen(settings.queue_name)]
            deaf = await one.listen(settings.queue_name + "x")
            for number in range(10):
                await one.broadcast(settings.queue_name, b"%d" % number)
            for listener in listeners:
                heard: list[bytes] = []
                while len(heard) < 10:
                    heard += await listener.receive()
                assert heard == [b"%d" % number for number in range(10)]
            await two.broadcast(settings.queue_name + "x", b"for the deaf")
            assert list(await deaf.receive()) == [b"for the deaf"]
            await listeners[0].close()
            await listeners[0].close()
            await one.broadcast(settings.queue_name, b"last")
            assert list(await listeners[1].receive()) == [b"last"]

    run(work())


def test_servers_announce_themselves_run_out_and_withdraw(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as one, connected(settings) as two:
            queue = settings.queue_name
            assert list(await one.servers(queue)) == []
            short = ServerRecord("a", {"functions": ["f"], "schema": "1"})
            await one.announce(queue, short, 0.3)
            await one.announce(queue, ServerRecord("b", {"host": "here"}), 60)
            await one.announce(queue, ServerRecord("b", {"host": "there", "draining": True}), 60)
            await one.announce(queue, ServerRecord("c", {}), 60)
            records = {r.instance: dict(r.info) for r in await two.servers(queue)}
            assert records["b"] == {"host": "there", "draining": True}
            assert all(0 <= r.age < 60 for r in await two.servers(queue))
            assert records.get("a", short.info) == short.info

            async def ran_out() -> bool:
                return {r.instance for r in await two.servers(queue)} == {"b", "c"}

            await until(ran_out)
            await one.withdraw(queue, "b")
            await one.withdraw(queue, "never there")
            await one.announce(queue, ServerRecord("c", {}), 60)
            assert [r.instance for r in await two.servers(queue)] == ["c"]
            assert list(await one.servers(queue + "x")) == []

    run(work())


@pytest.mark.parametrize("broker_kind", CUTTABLE, indirect=True)
def test_a_cut_mailbox_says_that_it_missed_something(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(harness.named("cut-me")) as client, connected(settings) as server:
            mailbox = await client.open_mailbox(settings.queue_name)
            receiving = asyncio.create_task(mailbox.receive())
            assert harness.cut("cut-me") == 2
            ids = await answer(server, settings.queue_name, mailbox, [b"missed or not"])
            mail = await receiving
            if not mail.gap:
                mail = await mailbox.receive()
            assert mail.gap
            assert await mailbox.collect(ids) == {ids[0]: b"full"}
            await answer(server, settings.queue_name, mailbox, [b"heard"])
            heard: list[bytes] = []
            while b"heard" not in heard:
                mail = await mailbox.receive()
                heard += mail.bodies
                assert not mail.gap
            # The first one may have been sent when the mailbox heard again already.
            assert heard in ([b"heard"], [b"missed or not", b"heard"])

    run(work())


@pytest.mark.parametrize("broker_kind", CUTTABLE, indirect=True)
def test_a_cut_server_goes_on_and_settles(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(harness.named("cut-me")) as server, connected(settings) as client:
            mailbox = await client.open_mailbox(settings.queue_name)
            consumer = server.consume(settings.queue_name, consumer="one")
            call, later = outgoing(b"before"), outgoing(b"after")
            await client.publish(settings.queue_name, call)
            delivery = await take_one(consumer)
            taking = asyncio.create_task(consumer.take(5))
            await server.ping()
            assert harness.cut("cut-me") == 2
            settled = delivery.settle(reply_to(call, b"done", address=mailbox.address))
            await client.publish(settings.queue_name, later)
            assert await settled
            assert (await mailbox.receive()).bodies == [b"done"]
            (second,) = await taking
            assert (second.body, second.attempt) == (b"after", 1)
            assert await second.settle(None)

    run(work())


@pytest.mark.parametrize("broker_kind", CUTTABLE, indirect=True)
def test_a_cut_listener_hears_again(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(harness.named("cut-me")) as server, connected(settings) as client:
            listener = await server.listen(settings.queue_name)
            harness.cut("cut-me")
            hearing = asyncio.create_task(listener.receive())
            while not hearing.done():
                await client.broadcast(settings.queue_name, b"again")
                await asyncio.sleep(0.02)
            assert set(await hearing) == {b"again"}

    run(work())
