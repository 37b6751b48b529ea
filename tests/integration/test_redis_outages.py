"""A Redis that goes, comes back, forgets, refuses or stalls: nothing that was finished is lost."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis_kit import connected, run, take_one, until

from prpc.brokers import create_broker, redis_consumer, redis_lease, redis_link
from prpc.brokers.base import Outgoing, Reply, ServerRecord
from prpc.dev_broker import DevBroker
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis

Start = Callable[..., DevBroker]


def settings(redis_: DevBroker, **given: Any) -> Settings:
    return Settings(**{"url_broker": redis_.url, "queue_name": "q", "redis_heartbeat": 0.2, "redis_recover": 0.6, **given})


def call(body: bytes = b"x") -> Outgoing:
    return Outgoing(uuid.uuid4(), body, {})


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


def test_after_a_restart_without_memory_the_groups_are_made_at_once(private_redis: Start) -> None:
    """Not with the next heartbeat, which is an hour away here."""
    first = private_redis()
    slow = settings(first, redis_heartbeat=3600.0, redis_recover=7200.0)

    async def work() -> None:
        async with connected(slow) as server:
            consumer = server.consume("q", consumer="one")
            taking = asyncio.create_task(consumer.take(1))
            await until(lambda: consumer._reading)
            first.close()
            private_redis(port=first.port)
            async with connected(slow) as client:
                with redis.Redis.from_url(first.url) as admin:
                    admin.delete(QueueNames("q").calls)
                await client.publish("q", call(b"after"))
            (delivery,) = await taking
            assert delivery.body == b"after" and await delivery.settle(None)

    run(work())


def test_a_flush_makes_the_groups_again(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as server:
                consumer = server.consume("q", consumer="one")
                await server.announce("q", ServerRecord("one", {"x": 1}), 60)
                await server.announce("other", ServerRecord("two", {}), 60)
                taking = asyncio.create_task(consumer.take(1))
                await server.ping()
                admin.flushall()
                await server.publish("q", call(b"after the flush"))
                (delivery,) = await taking
                assert delivery.body == b"after the flush"
                assert list(await server.servers("q")) == [ServerRecord("one", {"x": 1})]  # said again without being asked
                assert list(await server.servers("other")) == []
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


def test_what_a_slow_redis_does_not_take_waits_in_the_queue(private_redis: Start) -> None:
    """A call keeps its own memory, but the transport does not hold a second copy of a long backlog."""
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as client:
                await client.ping()
                broker.process.send_signal(signal.SIGSTOP)
                sent = [asyncio.ensure_future(client.publish("q", call(b"x" * 100_000))) for _ in range(300)]
                wire = client._link._wire
                assert wire is not None
                await until(lambda: not wire.writable)
                assert wire._transport.get_write_buffer_size() <= redis_link.MOST_BYTES + 200_000
                assert sum(len(command.data) for command in client._link._queue) > 10_000_000
                broker.process.send_signal(signal.SIGCONT)
                await asyncio.gather(*sent)
                assert admin.xlen("prpc_q") == 300

    run(work())


def test_a_redis_that_stalls_is_left(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker, connect_timeout=1.0, broker_silence=0.2)) as client:
            broker.process.send_signal(signal.SIGSTOP)
            with pytest.raises(BrokerUnavailableError):
                await client.publish("q", call())
            broker.process.send_signal(signal.SIGCONT)
            await client.publish("q", call())

    run(work())


def test_a_blocked_read_without_an_answer_is_begun_anew(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer is silent: neither an entry nor the end of the block. What was delivered meanwhile still comes, once."""
    monkeypatch.setattr(redis_consumer, "BLOCK", 0.2)
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker, broker_silence=0.4)) as server:
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
    monkeypatch.setattr(redis_consumer, "PAGE", 1)
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


def test_a_lost_server_is_noticed_when_its_lease_ends(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at the next renewal of another one, which is 50 s away here: more than a test's patience."""
    broker = private_redis()
    slow = {"redis_heartbeat": 50.0, "redis_recover": 100.0}

    async def long_ago(keeper: redis_lease.LeaseKeeper) -> float:
        return time.monotonic() - 1000

    monkeypatch.setattr(redis_lease.LeaseKeeper, "_redis_began", long_ago)

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker, **slow)) as gone, connected(settings(broker, **slow)) as other:
                await gone.publish("q", call(b"taken"))
                await take_one(gone.consume("q", consumer="gone"))
                admin.pexpire(QueueNames("q").lease("gone"), 300)
                delivery = await take_one(other.consume("q", consumer="other"))
                assert (delivery.body, delivery.attempt) == (b"taken", 2)
                assert await delivery.settle(None)

    run(work())


def test_a_server_that_starts_after_redis_waits_until_the_others_had_time(private_redis: Start) -> None:
    """Redis came back a moment ago: that a lease is missing says nothing yet."""
    broker, slow = private_redis(), {"redis_heartbeat": 10.0, "redis_recover": 60.0}

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker, **slow)) as one, connected(settings(broker, **slow)) as two:
                await one.publish("q", call(b"taken"))
                first = one.consume("q", consumer="one")
                delivery = await take_one(first)
                admin.delete(QueueNames("q").lease("one"))
                second = two.consume("q", consumer="two")
                taking = asyncio.create_task(second.take(1))
                await until(lambda: second._reading)
                assert await second._keeper.renew() == ()
                assert await delivery.settle(None)
                await second.stop()
                assert await taking == ()

    run(work())


def test_after_a_short_cut_the_others_have_a_whole_interval_to_come_back(
    private_redis: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was shorter than a lease: whose lease ends now may be about to open its connection again."""
    broker, slow = private_redis(), {"redis_heartbeat": 20.0, "redis_recover": 60.0}

    async def long_ago(keeper: redis_lease.LeaseKeeper) -> float:
        return time.monotonic() - 1000

    monkeypatch.setattr(redis_lease.LeaseKeeper, "_redis_began", long_ago)

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker, **slow)) as one, connected(settings(broker, **slow)) as two:
                await one.publish("q", call(b"taken"))
                delivery = await take_one(one.consume("q", consumer="one"))
                second = two.consume("q", consumer="two")
                taking = asyncio.create_task(second.take(1))
                await until(lambda: second._reading)
                epoch = two._link.epoch
                admin.client_kill_filter(_type="normal", skipme=True)
                admin.delete(QueueNames("q").lease("one"))
                await until(lambda: two._link.epoch > epoch)
                assert await second._keeper.renew() == ()
                assert await delivery.settle(None)
                await second.stop()
                assert await taking == ()

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


def test_a_silent_push_connection_is_asked_and_replaced(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker, broker_silence=0.1)) as client:
                mailbox = await client.open_mailbox("q")
                channel = QueueNames("q").reply(mailbox.address)
                pings = lambda: admin.info("commandstats").get("cmdstat_ping", {}).get("calls", 0)  # noqa: E731
                before = pings()
                await until(lambda: pings() >= before + 2)  # a live one is kept
                broker.process.send_signal(signal.SIGSTOP)
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


def test_a_stop_does_not_wait_for_a_redis_that_is_silent(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        async with connected(settings(broker)) as server:
            consumer = server.consume("q", consumer="one")
            taking = asyncio.create_task(consumer.take(1))
            await until(lambda: consumer._reading)
            broker.process.send_signal(signal.SIGSTOP)
            await consumer.stop()
            assert list(await taking) == []
            broker.process.send_signal(signal.SIGCONT)

    run(work())


def test_a_master_that_became_a_replica_is_waited_for(private_redis: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was written there: what it refused is sent again when it is a master."""
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker)) as server:
                consumer = server.consume("q", consumer="one")
                admin.replicaof("127.0.0.1", "1")
                taking = asyncio.create_task(consumer.take(1))
                sent = asyncio.ensure_future(server.publish("q", call(b"kept")))
                await until(lambda: "read only replica" in caplog.text)
                admin.replicaof("NO", "ONE")
                await sent
                (delivery,) = await taking
                assert delivery.body == b"kept"
                assert await delivery.settle(None)

    run(work())


def test_closing_gives_up_what_redis_cannot_take(private_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "RETRY_AFTER", 60)
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            async with connected(settings(broker, connect_timeout=0.5)) as server:
                await server.publish("q", call())
                delivery = await take_one(server.consume("q", consumer="one"))
                admin.config_set("maxmemory", 1)
                settled = asyncio.ensure_future(delivery.settle(Reply(uuid.uuid4(), b"done")))
                await until(lambda: bool(server._link._later))
            with pytest.raises(BrokerUnavailableError):
                await settled
            # Nothing was written, and the call is still there for whoever takes it over.
            assert admin.xpending("prpc_q", "prpc_group_consumers")["pending"] == 1

    run(work())


def test_a_consumer_that_may_not_read_goes_on_trying(private_redis: Start, caplog: pytest.LogCaptureFixture) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            admin.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "~*", "&*", "+@all", "-client", "+client|setname")
            poor = settings(broker, url_broker=f"redis://poor:x@127.0.0.1:{broker.port}/0")
            async with connected(poor) as server:
                await server.publish("q", call(b"in time"))
                taking = asyncio.create_task(server.consume("q", consumer="one").take(1))
                await until(lambda: "reading queue q failed" in caplog.text)
                admin.execute_command("ACL", "SETUSER", "poor", "+client")
                (delivery,) = await taking
                assert delivery.body == b"in time"
                assert await delivery.settle(None)

    run(work())


def test_a_client_that_may_not_subscribe_is_told(private_redis: Start) -> None:
    broker = private_redis()

    async def work() -> None:
        with redis.Redis.from_url(broker.url) as admin:
            admin.acl_setuser("poor", enabled=True, nopass=True, keys=["*"], reset_channels=True, categories=["+@all"])
            async with connected(settings(broker, url_broker=f"redis://poor:x@127.0.0.1:{broker.port}/0")) as client:
                with pytest.raises(BrokerUnavailableError, match="does not let this user do"):
                    await client.open_mailbox("q")

    run(work())
