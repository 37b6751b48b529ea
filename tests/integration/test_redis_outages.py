"""A Redis that goes, comes back, forgets, refuses or stalls: nothing that was finished is lost."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from prpc.brokers import create_broker, redis_consumer, redis_link, redis_push
from prpc.brokers.base import Delivery, Outgoing, Reply
from prpc.brokers.redis import RedisBroker
from prpc.dev_broker import DevBroker
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis

Start = Callable[..., DevBroker]
PATIENCE = 40


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE))


def settings(redis_: DevBroker, **given: Any) -> Settings:
    return Settings(**{"url_broker": redis_.url, "queue_name": "q", "redis_heartbeat": 0.2, "redis_recover": 0.6, **given})


@asynccontextmanager
async def connected(given: Settings) -> AsyncIterator[RedisBroker]:
    broker = create_broker(given)
    assert isinstance(broker, RedisBroker)
    await broker.connect()
    try:
        await broker.declare("q")
        yield broker
    finally:
        await broker.close()


def call(body: bytes = b"x") -> Outgoing:
    return Outgoing(uuid.uuid4(), body, {})


async def take_one(consumer: redis_consumer.RedisConsumer) -> Delivery:
    (delivery,) = await consumer.take(1)
    return delivery


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_a_restart_without_memory_loses_no_finished_outcome(private_redis: Start) -> None:
    """The streams are gone, and so is what waited in them; the call that ran is answered, and work goes on."""
    first = private_redis()

    async def work() -> None:
        async with connected(settings(first)) as server, connected(settings(first)) as client:
            mailbox = await client.open_mailbox("q")
            consumer = server.consume("q", consumer="one")
            asked = call()
            await client.publish("q", asked)
            delivery = await take_one(consumer)
            taking = asyncio.create_task(consumer.take(1))
            first.close()
            settled = delivery.settle(Reply(asked.message_id, b"done", mailbox.address))
            await until(lambda: not server._link._sent)
            private_redis(port=first.port)
            assert await settled
            mail = await mailbox.receive()
            kept = await mailbox.collect([asked.message_id])
            assert b"done" in mail.bodies or (mail.gap and kept == {asked.message_id: b"done"})
            await client.publish("q", call(b"after"))
            (second,) = await taking
            assert second.body == b"after"
            assert await second.settle(None)

    run(work())


def test_a_flush_makes_the_groups_again(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as server:
                consumer = server.consume("q", consumer="one")
                taking = asyncio.create_task(consumer.take(1))
                await server.ping()
                admin.flushall()
                await server.publish("q", call(b"after the flush"))
                (delivery,) = await taking
                assert delivery.body == b"after the flush"
                assert await delivery.settle(None)
                admin.script_flush()  # scripts that Redis forgot are loaded again
                await server.publish("q", call(b"after the scripts"))
                delivery = await take_one(consumer)
                assert await delivery.settle(None)
                assert admin.xlen("prpc_q") == 0

    run(work())


def test_publishing_without_a_connection_fails_in_time_and_a_settle_waits(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker, connect_timeout=0.3)) as server:
            mailbox = await server.open_mailbox("q")
            consumer = server.consume("q", consumer="one")
            await server.publish("q", call())
            delivery = await take_one(consumer)
            broker.close()
            with pytest.raises(BrokerUnavailableError, match=r"is not known|nothing listens there"):
                while True:
                    await server.publish("q", call())
            with pytest.raises(BrokerUnavailableError, match="nothing listens there"):
                await server.publish("q", call())
            with pytest.raises(BrokerUnavailableError):
                await mailbox.collect([uuid.uuid4()])
            with pytest.raises(BrokerUnavailableError):
                await server.ping()
            with pytest.raises(BrokerUnavailableError):
                await server.listen("q")
            settled = asyncio.ensure_future(delivery.settle(None))
            stopping = asyncio.create_task(consumer.stop())
            assert list(await consumer.take(1)) == []
            await stopping
            assert not settled.done()
            mailbox.forget([uuid.uuid4()])
        # Closing does not wait for ever for a Redis that is gone.
        with pytest.raises(BrokerUnavailableError):
            await settled

    run(work())


def test_a_call_that_was_under_way_is_not_sent_twice(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker)) as client:
            await client.ping()
            broker.process.send_signal(signal.SIGSTOP)
            under_way = asyncio.ensure_future(client.publish("q", call()))
            await until(lambda: bool(client._link._sent))
            broker.process.kill()
            with pytest.raises(BrokerUnavailableError):
                await under_way

    run(work())


def test_a_redis_that_stalls_is_left(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "STALLED", 0.2)
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker, connect_timeout=1.0)) as client:
            broker.process.send_signal(signal.SIGSTOP)
            with pytest.raises(BrokerUnavailableError):
                await client.publish("q", call())
            broker.process.send_signal(signal.SIGCONT)
            await client.publish("q", call())

    run(work())


def test_a_blocked_read_without_an_answer_is_begun_anew(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer is silent: neither an entry nor the end of the block. What was delivered meanwhile still comes, once."""
    monkeypatch.setattr(redis_consumer, "BLOCK", 0.2)
    monkeypatch.setattr(redis_consumer, "SLACK", 0.2)
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker)) as server:
            consumer = server.consume("q", consumer="one")
            taking = asyncio.create_task(consumer.take(1))
            await until(lambda: consumer._reading)
            broker.process.send_signal(signal.SIGSTOP)
            connection = consumer._connection
            await until(lambda: consumer._connection is not connection)
            broker.process.send_signal(signal.SIGCONT)
            await server.publish("q", call(b"first"))
            (delivery,) = await taking
            assert (delivery.body, delivery.attempt) == (b"first", 1)
            assert await delivery.settle(None)

    run(work())


def test_entries_lost_with_a_connection_come_again(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered by Redis to a connection that was dropped before the answer was read."""
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as server:
                consumer = server.consume("q", consumer="one")
                await server.publish("q", call(b"seen"))
                seen = await take_one(consumer)
                for body in (b"unseen", b"deleted"):
                    await server.publish("q", call(body))
                answer: Any = admin.xreadgroup("prpc_group_consumers", "one", {"prpc_q": ">"})
                ((_, entries),) = answer.items() if isinstance(answer, dict) else answer
                admin.xdel("prpc_q", entries[1][0] if isinstance(entries[1], tuple) else entries[0][1][0])
                await consumer._drop_connection()
                found = await take_one(consumer)
                assert (found.body, found.attempt) == (b"unseen", 1)
                assert await found.settle(None)
                assert await seen.settle(None)
                assert admin.xpending("prpc_q", "prpc_group_consumers")["pending"] == 0

    run(work())


def test_out_of_memory_is_waited_out(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "RETRY_AFTER", 0.05)
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as server:
                consumer = server.consume("q", consumer="one")
                asked = call()
                await server.publish("q", asked)
                delivery = await take_one(consumer)
                admin.config_set("maxmemory", 1)
                with pytest.raises(BrokerUnavailableError, match="memory"):
                    await server.publish("q", call())
                settled = asyncio.ensure_future(delivery.settle(Reply(asked.message_id, b"done")))
                await until(lambda: bool(server._link._later))
                admin.config_set("maxmemory", 0)
                assert await settled
                assert admin.get(QueueNames("q").feedback(asked.message_id)) == b"done"

    run(work())


def test_a_stream_of_the_wrong_kind_is_named(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            client = create_broker(settings(broker))
            await client.connect()
            admin.set("prpc_q", "not a stream")
            with pytest.raises(BrokerUnavailableError, match="WRONGTYPE"):
                await client.declare("q")
            await client.close()

    run(work())


def test_a_silent_push_connection_is_asked_and_replaced(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_push, "PING_EVERY", 0.1)
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as client:
                mailbox = await client.open_mailbox("q")
                channel = QueueNames("q").reply(mailbox.address)
                pings = lambda: admin.info("commandstats").get("cmdstat_ping", {}).get("calls", 0)  # noqa: E731
                before = pings()
                await until(lambda: pings() >= before + 2)  # a live one is kept
                broker.process.send_signal(signal.SIGSTOP)
                subscription = mailbox._subscription
                await until(lambda: not subscription._heard)
                receiving = asyncio.create_task(mailbox.receive())
                await asyncio.wait((receiving,), timeout=0.5)
                broker.process.send_signal(signal.SIGCONT)
                assert (await receiving).gap
                admin.publish(channel, b"3:abc2:de")
                assert list((await mailbox.receive()).bodies) == [b"abc", b"de"]
                admin.publish(channel, b"2:okbroken")
                assert list((await mailbox.receive()).bodies) == [b"ok"]
                await mailbox.close()
                with pytest.raises(BrokerUnavailableError):
                    await mailbox.receive()

    run(work())
