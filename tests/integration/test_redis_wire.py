"""What stands in Redis: the wire contract, seen with a plain client; and that nothing stays there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis_kit import connected, run, take_one, until

from prpc.brokers import redis_consumer
from prpc.brokers.base import Mailbox, Outgoing, Reply, ServerRecord
from prpc.brokers.redis import RedisBroker
from prpc.brokers.redis_memory import remembered
from prpc.brokers.redis_scripts import RECLAIM, Script
from prpc.dev_broker import DevBroker
from prpc.names import QueueNames
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis


@pytest.fixture
def settings(settings_for: Callable[..., Settings]) -> Settings:
    return settings_for("redis", redis_heartbeat=0.2, redis_recover=0.6)


@pytest.fixture
def names(queue: str) -> QueueNames:
    return QueueNames(queue)


@pytest.fixture
def admin(redis_url: str, queue: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        for key in client.scan_iter(f"prpc_*{queue}*"):
            client.delete(key)


def test_streams_groups_fields_and_keys(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    call = Outgoing(uuid.uuid4(), b"the message", {"reply_to": "x", "timeout_ms": "5"})

    async def work() -> None:
        async with connected(replace(settings, redis_expire=100)) as broker:
            await broker.publish(names.queue, call)
            ((entry, fields),) = admin.xrange(f"prpc_{names.queue}")
            assert fields == {b"own": entry, b"message": b"the message", b"reply_to": b"x", b"timeout_ms": b"5"}
            for stream in (f"prpc_{names.queue}", f"prpc_raw_{names.queue}"):
                (group,) = admin.xinfo_groups(stream)
                assert (group["name"], group["last-delivered-id"]) == (b"prpc_group_consumers", b"0-0")
            consumer = broker.consume(names.queue, consumer="one")
            delivery = await take_one(consumer)
            assert admin.get(f"prpc_lease_{names.queue}_one") == b"one"
            assert 0 < admin.pttl(f"prpc_lease_{names.queue}_one") <= 600
            assert await delivery.settle(Reply(call.message_id, b"outcome"))
            key = f"prpc_feedback_{names.queue}_{call.message_id}"
            assert admin.get(key) == b"outcome"
            assert 90 < admin.ttl(key) <= 100
            assert admin.xlen(f"prpc_{names.queue}") == 0

    run(work())
    (ids,) = admin.scan_iter(f"prpc_admitted_{names.queue}_*")
    assert admin.smembers(ids) == {remembered(call.message_id)}
    assert admin.hgetall(f"prpc_limits_{names.queue}") == {b"window": b"300", b"length": b"0"}
    assert sorted(admin.scan_iter(f"prpc_*{names.queue}*")) == sorted(
        (ids, *(key.encode() for key in (names.calls, names.raw_calls, names.limits, names.feedback(call.message_id))))
    )
    assert admin.xinfo_consumers(names.calls, "prpc_group_consumers") == []


def test_a_group_of_another_name(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    async def work() -> None:
        async with connected(replace(settings, group_name="mine")) as broker:
            await broker.publish(names.queue, Outgoing(uuid.uuid4(), b"x", {}))
            delivery = await take_one(broker.consume(names.queue, consumer="one"))
            assert await delivery.settle(None)
            assert [g["name"] for g in admin.xinfo_groups(names.calls)] == [b"mine"]

    run(work())


def test_a_hash_tag_puts_every_key_of_a_queue_in_one_slot(queue: str) -> None:
    names, id_ = QueueNames("{" + queue + "}"), uuid.uuid4()
    keys = [names.calls, names.raw_calls, names.servers, names.server("i"), names.dead, names.control]
    keys += [names.feedback(id_), names.raw_feedback(id_), names.lease("c"), names.reply("c")]
    assert {redis.crc.key_slot(key.encode()) for key in keys} == {redis.crc.key_slot(queue.encode())}


def test_age_counts_from_the_entry_by_redis_own_clock(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    seconds, _ = admin.time()
    admin.xadd(names.calls, {"message": "old"}, id=f"{(seconds - 100) * 1000}-1")
    admin.xadd(names.calls, {"message": "from the future"}, id=f"{(seconds + 1000) * 1000}-1")

    async def work() -> None:
        async with connected(settings) as broker:
            one, two = (broker.consume(names.queue, consumer=name) for name in ("one", "two"))
            old, future = await one.take(2)
            assert 99 < old.age < 160
            assert future.age == 0
            assert await old.release()
            again = await take_one(two)
            assert (again.body, again.attempt) == (b"old", 1)
            assert 99 < again.age < 160
            assert all([await d.settle(None) for d in (again, future)])

    run(work())


def test_awkward_entries(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    """Fields that are no text, thousands of them, and forged ones of our own."""
    admin.xadd(names.calls, {b"message": b"\xff", b"\xfe": b"\xfd", "prpc_crashes": "x", "prpc_born_ms": "-5"})
    admin.xadd(names.calls, {f"field {number}": "x" for number in range(9000)})
    admin.xadd(names.calls, {f"field {number}": "x" for number in range(9000)})

    async def work() -> None:
        async with connected(settings) as broker:
            consumer = broker.consume(names.queue, consumer="one")
            forged, many, more = await consumer.take(3)
            assert (forged.body, dict(forged.facts), forged.attempt) == (b"\xff", {"\ufffd": "\ufffd"}, 1)
            assert 0 <= forged.age < 60
            assert len(many.facts) == 9000
            assert await many.bury("form")
            assert await more.release()
            assert await forged.settle(None)
            assert len((await take_one(consumer)).facts) > 1000
            ((_, fields),) = admin.xrange(names.dead)
            assert fields[b"reason"] == b"form"
            assert fields[b"stream"] == names.calls.encode()
            assert fields[b"field 0"] == b"x"
            await broker.close()

    run(work())


def test_what_is_no_text_was_never_an_outcome(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    """Somebody wrote to the key of one result: neither this call nor those that end in one step with it go without."""

    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(names.queue)
            consumer = broker.consume(names.queue, consumer="one")
            calls = [Outgoing(uuid.uuid4(), b"x", {}, mailbox.address) for _ in range(4)]
            for call in calls:
                admin.rpush(names.feedback(call.message_id), "rubbish")
                await broker.publish(names.queue, call)
                await broker.publish(names.queue, call)  # whoever sends it again gets no rubbish, either
            first, *found = await consumer.take(4)
            replies = [Reply(call.message_id, b"result", mailbox.address) for call in calls]
            ends = [delivery.settle(reply) for delivery, reply in zip(found, replies[1:], strict=True)]
            ends.append(first.bury("attempts", replies[0]))
            assert all(await asyncio.gather(*ends))
            received: list[bytes] = []
            while len(received) < 8:
                received += (await mailbox.receive()).bodies
            assert received == [b"result"] * 8
            assert [admin.get(names.feedback(call.message_id)) for call in calls] == [b"result"] * 4
            admin.rpush(names.feedback(uuid.UUID(int=1)), "rubbish")
            await broker.publish(names.queue, Outgoing(uuid.UUID(int=1), b"x", {}, mailbox.address, again=True))
            admin.xadd(names.calls, {"message": "by hand"})
            for delivery in await consumer.take(2):
                assert await delivery.claim(uuid.UUID(int=1), mailbox.address) == delivery.admitted
                assert not delivery.admitted or await delivery.settle(None)

    run(work())


def test_what_is_given_back_keeps_its_message(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    """A script has no room for all of thousands of fields."""
    fields = {f"field {number}": "x" for number in range(5000)}
    for stream in (names.calls, names.raw_calls):
        admin.xadd(stream, {**fields, "message": "last", "prpc_crashes": "1"})

    async def work() -> None:
        async with connected(settings) as broker:
            consumer = broker.consume(names.queue, consumer="one")
            for _ in range(2):
                delivery = await take_one(consumer)
                assert await delivery.release()
            for _ in range(2):
                delivery = await take_one(consumer)
                assert (delivery.body, delivery.attempt) == (b"last", 2)
                assert len(delivery.facts) > 2900
                assert await delivery.settle(None)

    run(work())


def test_large_replies_go_out_in_several_steps(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(names.queue)
            calls = [Outgoing(uuid.uuid4(), b"x", {}) for _ in range(5)]
            for call in calls:
                await broker.publish(names.queue, call)
            found = await broker.consume(names.queue, consumer="one").take(5)
            bodies = [bytes([65 + n]) * 700_000 for n in range(5)]
            ends = [d.settle(Reply(c.message_id, b, mailbox.address)) for d, c, b in zip(found, calls, bodies, strict=True)]
            assert all(await asyncio.gather(*ends))
            received: list[bytes] = []
            while len(received) < 5:
                received += (await mailbox.receive()).bodies
            assert received == bodies
            mailbox.forget(c.message_id for c in calls)

    run(work())
    assert list(admin.scan_iter(f"prpc_feedback_{names.queue}*")) == []


def test_announcements_leave_nothing_behind(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            await broker.announce(names.queue, ServerRecord("long", {}), 60)
            await broker.announce(names.queue, ServerRecord("short", {}), 0.05)
            assert admin.pttl(names.servers) > 50_000
            await until(lambda: not admin.exists(names.server("short")))
            assert [r.instance for r in await broker.servers(names.queue)] == ["long"]
            await broker.announce(names.queue, ServerRecord("long", {}), 60)
            assert admin.zrange(names.servers, 0, -1) == [b"long"]
            endless = '{"prpc_ttl_ms": 1%s}' % ("0" * 400)
            for text in ("no JSON", "[1]", '{"prpc_ttl_ms": "soon"}', "[" * 100_000, endless):  # of whoever else writes there
                admin.set(names.server("long"), text)
                assert list(await broker.servers(names.queue)) == []
            await broker.withdraw(names.queue, "long")
            assert not admin.exists(names.servers, names.server("long"))

    run(work())


def test_a_dead_consumer_without_work_is_removed(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            admin.xgroup_createconsumer(names.calls, "prpc_group_consumers", "ghost")
            consumer = broker.consume(names.queue, consumer="one")
            taking = asyncio.create_task(consumer.take(1))
            await until(lambda: "ghost" not in str(admin.xinfo_consumers(names.calls, "prpc_group_consumers")))
            assert not admin.exists(names.lease("ghost"))
            await consumer.stop()
            assert list(await taking) == []

    run(work())


def test_what_a_read_brings_under_a_lost_name_is_no_lost_call(
    settings: Settings, names: QueueNames, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that was blocked when the lease was lost: its call has not started anywhere, unless others took it over since."""
    taken_by_others: list[bytes] = []
    slow = replace(settings, redis_heartbeat=3600.0, redis_recover=7200.0)

    async def work() -> None:
        async with connected(slow) as broker:
            consumer = broker.consume(names.queue, consumer="one")
            run_script, reading = broker._link.run, asyncio.create_task(consumer.take(1))
            await until(lambda: consumer._reading)
            admin.set(names.lease("one"), "")
            await consumer._keeper.renew()
            admin.xadd(names.calls, {"message": "first"})
            (first,) = await reading
            assert (first.body, first.attempt) == (b"first", 1)
            assert await first.settle(None)
            assert admin.xpending(names.calls, "prpc_group_consumers")["pending"] == 0

            def others_first(script: Script, *more: Any) -> asyncio.Future[Any]:
                if script is RECLAIM:
                    admin.xclaim(names.calls, "prpc_group_consumers", "two", 0, [taken_by_others[0]])
                return run_script(script, *more)

            monkeypatch.setattr(broker._link, "run", others_first)
            reading = asyncio.create_task(consumer.take(1))
            await until(lambda: consumer._reading)
            admin.set(names.lease("one.2"), "")
            await consumer._keeper.renew()
            taken_by_others.append(admin.xadd(names.calls, {"message": "second"}))
            await until(lambda: admin.xpending(names.calls, "prpc_group_consumers")["pending"] == 1)
            admin.xadd(names.calls, {"message": "third"})
            (third,) = await reading
            assert (third.body, third.attempt) == (b"third", 1)
            assert await third.settle(None)

    run(work())


def test_an_entry_that_was_deleted_under_a_lost_consumer(settings: Settings, names: QueueNames, admin: redis.Redis) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            ids = [admin.xadd(names.calls, {"message": text}) for text in ("gone", "there")]
            admin.xreadgroup("prpc_group_consumers", "lost", {names.calls: ">"})
            admin.xdel(names.calls, ids[0])
            delivery = await take_one(broker.consume(names.queue, consumer="one"))
            assert (delivery.body, delivery.attempt) == (b"there", 2)
            assert await delivery.settle(None)
            assert admin.xpending(names.calls, "prpc_group_consumers")["pending"] == 0
            assert admin.get(names.lease("lost")) == b""  # the mark that its owner cannot come back

    run(work())


def test_an_idle_server_and_client_send_next_to_nothing(private_redis: Callable[..., DevBroker]) -> None:
    """With the default settings: counted over three seconds in which nobody calls."""
    broker_ = private_redis()
    settings = Settings(url_broker=broker_.url, queue_name="idle")

    async def work() -> None:
        with redis.Redis.from_url(broker_.url) as admin:
            async with connected(settings) as server, connected(settings) as client:
                await client.open_mailbox("idle")
                await server.listen("idle")
                consumer = server.consume("idle", consumer="one")
                taking = asyncio.create_task(consumer.take(1))
                await until(lambda: consumer._reading)
                before = _sent(admin)
                await asyncio.wait((taking,), timeout=3)
                assert _sent(admin) - before <= 3
                await consumer.stop()
                await taking

    run(work())


def _sent(admin: redis.Redis) -> int:
    """Commands that came over the wire; what scripts call inside Redis is not among them."""
    stats = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "xreadgroup", "ping", "xpending", "mget"))


async def _round(broker: RedisBroker, consumer: redis_consumer.RedisConsumer, mailbox: Mailbox, queue: str, count: int) -> None:
    calls = [Outgoing(uuid.uuid4(), b"x" * 300, {"n": "1"}) for _ in range(count)]
    for call in calls:
        _ = broker.publish(queue, call)
    done = 0
    while done < count:
        taken = await consumer.take(200)
        for delivery, call in zip(taken, calls[done : done + len(taken)], strict=True):
            _ = delivery.settle(Reply(call.message_id, b"y" * 500, mailbox.address, b"z"))
        done += len(taken)
    received = 0
    while received < count:
        received += len((await mailbox.receive()).bodies)
    mailbox.forget(call.message_id for call in calls)


def forgotten(admin: redis.Redis) -> redis.Redis:
    """As it is when the window has passed."""
    for key in admin.scan_iter("prpc_admitted_*"):
        admin.delete(key)
    return admin


def test_many_calls_leave_redis_where_it_was(private_redis: Callable[..., DevBroker]) -> None:
    broker_ = private_redis()
    settings = Settings(url_broker=broker_.url, queue_name="many")

    async def work() -> None:
        with redis.Redis.from_url(broker_.url) as admin:
            async with connected(settings) as broker:
                mailbox = await broker.open_mailbox("many")
                consumer = broker.consume("many", consumer="one")
                await _round(broker, consumer, mailbox, "many", 2000)
                await until(lambda: forgotten(admin).dbsize() <= 4)
                before = admin.info("memory")["used_memory_dataset"]
                for _ in range(10):
                    await _round(broker, consumer, mailbox, "many", 2000)
                sets = list(admin.scan_iter("prpc_admitted_many_*"))
                remembered = sum(admin.scard(key) for key in sets)
                assert 20_000 <= remembered <= 22_000
                assert sum(admin.memory_usage(key, samples=0) for key in sets) / remembered < 100  # bytes a call
                assert all(0 < admin.ttl(key) <= 1.5 * settings.duplicate_window for key in sets)
                await until(lambda: forgotten(admin).dbsize() <= 4)
                assert admin.xlen("prpc_many") == 0
                # Buffers of connections shrink when Redis comes round to it.
                await until(lambda: admin.info("memory")["used_memory_dataset"] < before + 200_000)

    run(work())
