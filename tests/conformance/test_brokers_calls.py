"""Work: every broker hands a call to one consumer, under a lease, and ends it once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest
from broker_harness import (
    PATIENCE,
    Harness,
    connected,
    kept,
    left,
    numbered,
    outgoing,
    reply_to,
    run,
    take,
    take_all,
    take_among,
    take_one,
    until,
    woken,
)

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Consumer, Delivery
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.settings import Settings

#: Brokers where a lease that ran out is lost only when somebody takes it over.
LEASING = ("memory", pytest.param("redis", marks=pytest.mark.real_redis), "sim_redis")
AWKWARD = bytes(range(256)) + b"12:\n\r\x00{}"


def test_a_call_arrives_as_it_was_sent(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            consumer = broker.consume(settings.queue_name, consumer="one")
            await broker.publish(settings.queue_name, outgoing(AWKWARD, reply_to="somebody", note="äöü ☂"))
            delivery = await take_one(consumer)
            assert delivery.body == AWKWARD
            assert dict(delivery.facts) == {"reply_to": "somebody", "note": "äöü ☂"}
            assert (delivery.attempt, delivery.raw) == (1, False)
            assert 0 <= delivery.age < 60
            assert await delivery.settle(None)
            assert await left(harness, 0)

    run(work())


def test_calls_sent_before_the_first_declare_are_served(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        client = create_broker(settings)
        await client.connect()
        await client.publish(settings.queue_name, outgoing(b"early"))
        async with connected(settings) as server:
            await server.declare(settings.queue_name)  # once more: it changes nothing
            delivery = await take_one(server.consume(settings.queue_name, consumer="one"))
            assert delivery.body == b"early"
            assert await delivery.settle(None)
        await client.close()

    run(work())


def test_one_consumer_gets_calls_in_their_order(settings: Settings) -> None:
    """On Kafka, those of one partition."""

    async def work() -> None:
        async with connected(replace(settings, kafka_queue_partitions=1)) as broker:
            calls = numbered(300)
            for call in calls:
                await broker.publish(settings.queue_name, call)
            found = await take_all(broker.consume(settings.queue_name, consumer="one"), 300, most=7)
            assert [d.body for d in found] == [c.body for c in calls]
            assert all(await asyncio.gather(*(d.settle(None) for d in found)))

    run(work())


def test_a_thousand_calls_at_once(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            calls = numbered(1000)
            await asyncio.gather(*(broker.publish(settings.queue_name, call) for call in calls))
            found = await take_all(broker.consume(settings.queue_name, consumer="one"), 1000, most=100)
            assert sorted(d.body or b"" for d in found) == sorted(c.body for c in calls)
            by_body = {c.body: c for c in calls}
            assert all(await asyncio.gather(*(d.settle(reply_to(by_body[d.body or b""])) for d in found)))
            assert await left(harness, harness.keeps * 1000)
            mailbox = await broker.open_mailbox(settings.queue_name)
            assert len(await mailbox.collect(c.message_id for c in calls)) == harness.keeps * 1000
            mailbox.forget(c.message_id for c in calls)
        assert await left(harness, 0)

    run(work())


def test_no_more_than_asked_for_is_taken(settings: Settings, harness: Harness) -> None:
    """Also while both queues are busy: what cannot be started stays for others."""

    async def work() -> None:
        async with connected(settings) as broker:
            for number in range(20):
                await broker.publish(settings.queue_name, outgoing(b"call"))
                harness.put({"message": b"raw %d" % number}, raw=True)
            busy, other = (broker.consume(settings.queue_name, consumer=name) for name in ("busy", "other"))
            first = await take(busy, 3)
            assert 1 <= len(first) <= 3
            rest = await take_among([busy, other], 40 - len(first))
            assert sorted(d.raw for d in (*first, *rest)) == [False] * 20 + [True] * 20
            assert all(await asyncio.gather(*(d.settle(None) for d in (*first, *rest))))

    run(work())


def test_both_queues_are_served_while_both_are_busy(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            for number in range(30):
                await broker.publish(settings.queue_name, outgoing(b"call"))
                harness.put({"message": b"raw %d" % number}, raw=True)
            consumer = broker.consume(settings.queue_name, consumer="one")
            found = []
            while len(found) < 60:
                taken = await take(consumer, 2)
                assert len(taken) <= 2
                found += taken
                assert all(await asyncio.gather(*(d.settle(None) for d in taken)))
            assert sum(d.raw for d in found) == 30
            waiting = asyncio.create_task(take(consumer, 2))
            await broker.publish(settings.queue_name, outgoing(b"after"))
            (last,) = await waiting
            assert last.body == b"after"
            assert await last.settle(None)
        assert await left(harness, 0)

    run(work())


def test_consumers_share_the_work(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as one, connected(settings) as two:
            found: list[bytes | None] = []

            async def serve(consumer: Consumer) -> None:
                while taken := await consumer.take(3):
                    found.extend(d.body for d in taken)
                    assert all([await d.settle(None) for d in taken])

            consumers = [b.consume(settings.queue_name, consumer=f"consumer {b}") for b in (one, two)]
            servers = [asyncio.create_task(serve(consumer)) for consumer in consumers]
            calls = numbered(200)
            await asyncio.gather(*(one.publish(settings.queue_name, call) for call in calls))

            async def all_found() -> bool:
                return len(found) >= 200

            await until(all_found)
            for consumer in consumers:
                await consumer.stop()
            await asyncio.gather(*servers)
            assert sorted(found) == sorted(c.body for c in calls)

    run(work())


def test_a_released_call_goes_to_another_consumer(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            one = broker.consume(settings.queue_name, consumer="one")
            two = broker.consume(settings.queue_name, consumer="two")
            await broker.publish(settings.queue_name, outgoing(b"x", colour="red"))
            first = await take_one(one)
            assert await first.release()
            await one.close()
            again = await take_one(two)
            assert (again.body, dict(again.facts), again.attempt) == (b"x", {"colour": "red"}, 1)
            assert again.age > first.age - 0.1  # each consumer reads the broker's clock for itself
            assert await again.settle(None)
            assert not await first.settle(None) or await left(harness, 0)

    run(work())


def test_a_buried_call_is_kept_and_answered(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            consumer = broker.consume(settings.queue_name, consumer="one")
            calls = [outgoing(b"cannot be read"), outgoing(b"nobody asks")]
            for call in calls:
                await broker.publish(settings.queue_name, call)
            with_reply, without = sorted(await take_all(consumer, 2), key=lambda d: d.body or b"")
            assert await with_reply.bury("tag", reply_to(calls[0], b"why not", address=mailbox.address))
            assert (await mailbox.receive()).bodies == [b"why not"]
            assert await mailbox.collect([calls[0].message_id]) == kept(broker, {calls[0].message_id: b"why not"})
            assert await without.bury("depth")
            assert sorted(harness.dead_letters()) == [("depth", b"nobody asks"), ("tag", b"cannot be read")]
            mailbox.forget([calls[0].message_id])
        assert await left(harness, 0)

    run(work())


def test_a_reply_that_is_not_kept_only_wakes_its_address(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            consumer = broker.consume(settings.queue_name, consumer="one")
            call = outgoing()
            harness.put({"message": call.body}, raw=False)
            await broker.publish(settings.queue_name, call)
            stranger, own = await take_all(consumer, 2)
            assert await stranger.bury("signature", reply_to(call, b"refused", address=mailbox.address), keep=False)
            assert (await mailbox.receive()).bodies == [b"refused"]
            assert await mailbox.collect([call.message_id]) == {}
            assert await own.settle(reply_to(call, b"result", address=mailbox.address))
            assert (await mailbox.receive()).bodies == [b"result"]
            mailbox.forget([call.message_id])

    run(work())


def test_the_brokers_clock_goes_on(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            first = broker.now()
            await broker.publish(settings.queue_name, outgoing())
            delivery = await take_one(broker.consume(settings.queue_name, consumer="one"))
            assert broker.now() >= first > 1_700_000_000
            assert broker.now() - delivery.age >= first - 1
            await delivery.settle(None)

    run(work())


def test_an_entry_without_a_message_is_delivered(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            harness.put({"something": b"else"}, raw=False)
            delivery = await take_one(broker.consume(settings.queue_name, consumer="one"))
            assert (delivery.body, dict(delivery.facts)) == (None, {"something": "else"})
            assert await delivery.bury("form")
            assert harness.dead_letters() == [("form", None)]

    run(work())


def test_raw_calls_are_marked_and_answered_under_their_own_name(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            harness.put({"message": b'{"func_name": "ping"}'}, raw=True)
            delivery = await take_one(broker.consume(settings.queue_name, consumer="one"))
            assert (delivery.body, delivery.raw) == (b'{"func_name": "ping"}', True)
            call = outgoing()
            assert await delivery.settle(reply_to(call, b'"pong"', raw=True))
            assert harness.kept_raw(call.message_id) == b'"pong"'
            mailbox = await broker.open_mailbox(settings.queue_name)
            assert await mailbox.collect([call.message_id]) == {}

    run(work())


def test_stop_ends_a_waiting_take_and_loses_nothing(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            for number in range(20):
                consumer = broker.consume(settings.queue_name, consumer=f"stopped {number}")
                taking = asyncio.create_task(consumer.take(5))
                await broker.ping()
                sent = [broker.publish(settings.queue_name, outgoing(b"x")) for _ in range(3)]
                await consumer.stop()
                await asyncio.gather(*sent)
                for delivery in await taking:
                    assert await delivery.release()
                assert await consumer.take(1) == ()
                await consumer.stop()
                await consumer.close()
                await consumer.close()
            found = await take_all(broker.consume(settings.queue_name, consumer="last"), 60)
            assert {d.attempt for d in found} == {1}
            assert all([await d.settle(None) for d in found])
        assert await left(harness, 0)

    run(work())


def test_stop_before_the_first_take(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            consumer = broker.consume(settings.queue_name, consumer="one")
            await consumer.stop()
            assert list(await consumer.take(1)) == []

    run(work())


def test_a_cancelled_take_loses_nothing(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            consumer = broker.consume(settings.queue_name, consumer="one")
            found: list[Delivery] = []
            for number in range(5):
                taking = asyncio.create_task(consumer.take(1))
                await broker.ping()
                await broker.ping()
                if not taking.cancel():  # it was quicker than the two pings
                    found += taking.result()
                await asyncio.gather(taking, return_exceptions=True)
                await broker.publish(settings.queue_name, outgoing(b"%d" % number))
            found += await take_all(consumer, 5 - len(found))
            assert sorted(d.body or b"" for d in found) == [b"0", b"1", b"2", b"3", b"4"]
            assert {d.attempt for d in found} == {1}
            assert all([await d.settle(None) for d in found])

    run(work())


class Paused:
    """A server whose event loop runs only when the test says so: what a stopped process looks like from outside."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self.settings = settings
        self.broker = create_broker(settings)
        self._runner.run(self.broker.connect())
        self._runner.run(self.broker.declare(settings.queue_name))
        self.consumer = self.broker.consume(settings.queue_name, consumer="paused") if settings.type_broker != "memory" else None

    async def _take(self, count: int) -> list[Delivery]:
        if self.consumer is None:
            self.consumer = self.broker.consume(self.settings.queue_name, consumer="paused")
        return await take_all(self.consumer, count, most=count)

    def take(self, count: int) -> list[Delivery]:
        return self._runner.run(self._take(count))

    def settle(self, delivery: Delivery, reply: object = None) -> bool:
        async def settle() -> bool:
            return await delivery.settle(reply)  # type: ignore[arg-type]

        return self._runner.run(settle())

    def bury(self, delivery: Delivery) -> bool:
        async def bury() -> bool:
            return await delivery.bury("late")

        return self._runner.run(bury())

    def release(self, delivery: Delivery) -> bool:
        async def release() -> bool:
            return await delivery.release()

        return self._runner.run(release())

    def close(self) -> None:
        self._runner.run(self.broker.close())
        self._runner.close()


def test_a_lost_lease_is_taken_over_and_its_owner_cannot_end_the_calls(settings: Settings, harness: Harness) -> None:
    paused = Paused(settings)
    try:
        calls = numbered(4)

        async def send() -> None:
            async with connected(settings) as broker:
                for call in calls:
                    await broker.publish(settings.queue_name, call)

        run(send())
        lost = paused.take(4)
        assert [d.attempt for d in lost] == [1] * 4

        async def take_over() -> None:
            async with connected(settings) as broker:
                heir = broker.consume(settings.queue_name, consumer="other")
                found = await take_all(heir, 4)
                calls_of = {c.body: c for c in calls}
                assert sorted(d.body or b"" for d in found) == [c.body for c in calls]
                assert [d.attempt for d in found] == [2] * 4
                mailbox = await broker.open_mailbox(settings.queue_name)
                assert await found[0].settle(reply_to(calls_of[found[0].body or b""], b"by the other"))
                # The rest goes back to the queue and comes a second time to nobody but us.
                assert all([await d.release() for d in found[1:]])
                await heir.close()
                again = await take_all(broker.consume(settings.queue_name, consumer="third"), 3)
                assert [d.attempt for d in again] == [2] * 3
                for delivery in again:
                    assert await delivery.settle(None)
                ended = calls_of[found[0].body or b""].message_id
                assert await mailbox.collect([ended]) == kept(broker, {ended: b"by the other"})

        run(take_over())
        assert not paused.settle(lost[0], reply_to(calls[0], b"by the first"))
        assert not paused.bury(lost[1])
        assert not paused.release(lost[2])
        assert run(left(harness, harness.keeps))
        assert harness.dead_letters() == []

        async def go_on() -> None:
            async with connected(settings) as broker:
                await broker.publish(settings.queue_name, outgoing(b"new"))

        run(go_on())
        (fresh,) = paused.take(1)
        assert (fresh.body, fresh.attempt) == (b"new", 1)
        assert paused.settle(fresh)
    finally:
        paused.close()


def test_what_reached_a_paused_server_is_not_started_after_it_was_taken_over(settings: Settings) -> None:
    """The entry was on its way into the paused server; when it wakes, another one has long answered the call."""
    with asyncio.Runner() as paused:

        async def begin() -> tuple[Broker, Consumer, asyncio.Task[Sequence[Delivery]]]:
            broker = create_broker(settings)
            await broker.connect()
            await broker.declare(settings.queue_name)
            consumer = broker.consume(settings.queue_name, consumer="paused")
            await broker.publish(settings.queue_name, outgoing(b"first"))
            first = await take_one(consumer)
            taking = asyncio.create_task(consumer.take(1))
            await broker.ping()
            assert await first.settle(None)
            return broker, consumer, taking

        broker, consumer, taking = paused.run(begin())

        async def elsewhere() -> list[int]:
            async with connected(settings) as other:
                await other.publish(settings.queue_name, outgoing(b"second"))
                heir = other.consume(settings.queue_name, consumer="other")
                delivery = await take_one(heir)
                if delivery.body == b"first":  # its end had not been written down yet when the server was paused
                    assert (settings.type_broker, delivery.attempt) == ("kafka", 2)
                    assert await delivery.settle(None)
                    delivery = await take_one(heir)
                assert delivery.body == b"second"
                assert await delivery.settle(None)
                await other.publish(settings.queue_name, outgoing(b"third"))
                return [delivery.attempt]

        (attempt,) = run(elsewhere())
        assert attempt == (2 if settings.type_broker == "redis" else 1)  # it was in the paused server's hands, unstarted

        async def wake() -> None:
            async with asyncio.timeout(PATIENCE):
                (third,) = await taking
                while not (third.admitted or await third.claim(uuid.uuid4(), None)) or third.body != b"third":
                    # What was read ahead may be another's now, and the end of the first one may not have been written down.
                    (third,) = await consumer.take(1)
                assert (third.body, third.attempt) == (b"third", 1)
                assert await third.settle(None)
                await consumer.close()
                await broker.close()

        paused.run(wake())


@pytest.mark.parametrize("broker_kind", LEASING, indirect=True)
def test_an_owner_that_nobody_replaced_goes_on_after_its_lease_ran_out(settings: Settings, harness: Harness) -> None:
    short = replace(settings, redis_heartbeat=0.05, redis_recover=0.1)
    paused = Paused(short)
    try:

        async def send() -> None:
            async with connected(short) as broker:
                await broker.publish(short.queue_name, outgoing(b"x"))

        run(send())
        (delivery,) = paused.take(1)
        run(asyncio.sleep(0.2))  # the lease's own time passes; nothing else is waited for
        assert paused.settle(delivery)
        assert run(left(harness, 0))
    finally:
        paused.close()


@pytest.mark.parametrize("broker_kind", LEASING, indirect=True)
def test_a_consumer_without_room_is_told_what_was_taken_over(settings: Settings) -> None:
    """Its own calls may run for hours; whoever called the lost server knows it in seconds."""
    paused = Paused(settings)
    try:

        async def send(body: bytes) -> None:
            async with connected(settings) as broker:
                await broker.publish(settings.queue_name, outgoing(body))

        run(send(b"lost"))
        paused.take(1)

        async def serve() -> None:
            async with connected(settings) as broker:
                await broker.publish(settings.queue_name, outgoing(b"long"))
                busy, told = broker.consume(settings.queue_name, consumer="busy"), asyncio.Event()
                busy.on_lost(told.set)
                (long,) = await take_all(busy, 1, most=1)
                if long.body == b"lost":  # the lease ran out before this one came
                    long, _ = await take_one(busy), await long.settle(None)
                else:
                    assert list(busy.take_lost()) == []
                    await told.wait()
                    (lost,) = busy.take_lost()
                    assert (lost.body, lost.attempt) == (b"lost", 2)
                    assert list(busy.take_lost()) == []
                    assert await lost.settle(None)
                assert await long.settle(None)

        run(serve())
    finally:
        paused.close()


@pytest.mark.parametrize("broker_kind", LEASING[1:], indirect=True)
def test_who_is_stopping_gives_back_what_it_takes_over(settings: Settings) -> None:
    """It still renews its lease for the call that it has in hand, so it finds others' that ran out."""
    paused = Paused(settings)
    try:

        async def work() -> None:
            async with connected(settings) as broker:
                await broker.publish(settings.queue_name, outgoing(b"in hand"))
                stopping = broker.consume(settings.queue_name, consumer="stopping")
                in_hand = await take_one(stopping)
                await broker.publish(settings.queue_name, outgoing(b"lost"))
                await asyncio.get_running_loop().run_in_executor(None, paused.take, 1)
                await stopping.stop()

                async def is_back() -> bool:
                    return (await broker.state(settings.queue_name)).waiting == 1

                await until(is_back)
                lost = await take_one(broker.consume(settings.queue_name, consumer="other"))
                assert (lost.body, lost.attempt) == (b"lost", 2)
                assert await lost.settle(None)
                assert await in_hand.settle(None)

        run(work())
    finally:
        paused.close()


def test_a_long_call_keeps_its_lease(settings: Settings) -> None:
    """Another server is there and looks for lost leases all the time."""

    async def work() -> None:
        async with connected(settings) as one, connected(settings) as two:
            await one.publish(settings.queue_name, outgoing(b"long"))
            delivery = await take_one(one.consume(settings.queue_name, consumer="one"))
            other = two.consume(settings.queue_name, consumer="two")
            taking = asyncio.create_task(other.take(1))
            done, _ = await asyncio.wait((taking,), timeout=2.5 * settings.redis_recover)
            assert not done
            assert await delivery.settle(None)
            await other.stop()
            assert list(await taking) == []

    run(work())


def test_close_gives_back_nothing_that_runs(settings: Settings) -> None:
    """A consumer that leaves with a call in hand: the call is taken over as lost, never started again as new."""

    async def work() -> None:
        async with connected(settings) as broker:
            await broker.publish(settings.queue_name, outgoing(b"x"))
            leaving = create_broker(settings)
            await leaving.connect()
            await take_one(leaving.consume(settings.queue_name, consumer="leaving"))
            await leaving.close()
            delivery = await take_one(broker.consume(settings.queue_name, consumer="other"))
            assert delivery.attempt == 2
            assert await delivery.settle(None)

    run(work())


def test_a_closed_broker_says_so(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            assert await broker.ping() >= 0
        await broker.close()
        with pytest.raises(BrokerUnavailableError):
            await broker.publish(settings.queue_name, outgoing())

    run(work())


def test_an_impossible_queue_name_is_refused(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            with pytest.raises(ConfigurationError):
                await broker.declare("no blanks")

    run(work())


def test_a_settled_call_cannot_be_settled_by_a_copy(settings: Settings, harness: Harness) -> None:
    """Two entries with one message id: the first outcome stays, and the second reader is woken with it."""

    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            call = outgoing(b"twice")
            for entry in (call, outgoing(b"twice")):  # the broker does not read what it carries
                await broker.publish(settings.queue_name, entry)
            consumer = broker.consume(settings.queue_name, consumer="one")
            first, second = await take_all(consumer, 2)
            assert await first.settle(reply_to(call, b"first", address=mailbox.address, wake=b"short first"))
            assert (await mailbox.receive()).bodies == [woken(broker, b"short first", b"first")]
            assert await second.settle(reply_to(call, b"second", address=mailbox.address, wake=b"short second"))
            assert (await mailbox.receive()).bodies == [b"first"]
            assert await mailbox.collect([call.message_id, uuid.uuid4()]) == kept(broker, {call.message_id: b"first"})
            assert await left(harness, harness.keeps)

    run(work())
