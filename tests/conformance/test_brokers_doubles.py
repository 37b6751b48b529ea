"""At most once: of all entries of one message id one may run, whoever reads them, and every caller gets its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from broker_harness import (
    Harness,
    MemoryHarness,
    RedisHarness,
    SimHarness,
    connected,
    left,
    receive_all,
    reply_to,
    run,
    until,
    woken,
)

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Consumer, Delivery, Outgoing, Reply
from prpc.brokers.kafka import KafkaBroker
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.memory import MemoryBroker
from prpc.brokers.redis import RedisBroker
from prpc.exceptions import QueueFullError
from prpc.settings import Settings
from tests.sim.broker import SimBroker


@asynccontextmanager
async def connected_client(settings: Settings) -> AsyncIterator[Broker]:
    """A connection that declares nothing, as a client's."""
    broker = create_broker(settings)
    await broker.connect()
    try:
        yield broker
    finally:
        await broker.close()


def call(message_id: uuid.UUID | None = None, address: str | None = None) -> Outgoing:
    """A call whose body is its id."""
    message_id = message_id or uuid.uuid4()
    return Outgoing(message_id, message_id.bytes, {} if address is None else {"reply_to": address}, address)


def by_hand(harness: Harness, call: Outgoing, *, raw: bool = False) -> None:
    """An entry with the fields that a foreign program writes."""
    harness.put({"message": call.body, **{k: v.encode() for k, v in call.facts.items()}}, raw=raw)


def copied(harness: Harness, calls: Sequence[Outgoing]) -> None:
    """Repeat the entries with all their fields, as a proxy or an operator may."""
    if isinstance(harness, RedisHarness):
        for _, fields in harness.client.xrange(harness.names.calls, count=len(calls)) or ():
            harness.client.xadd(harness.names.calls, dict(fields or {}))
    else:
        for each in calls:
            by_hand(harness, each)


@dataclass
class Worker:
    """Runs what may run, and counts it."""

    consumer: Consumer
    ran: Counter[bytes] = field(default_factory=Counter)
    dropped: int = 0

    async def take(self, most: int = 64) -> tuple[list[Delivery], int]:
        """What may run of one read, and how many could not."""
        found = await self.consumer.take(most)
        verdicts = await asyncio.gather(*(self._may_run(delivery) for delivery in found))
        return [d for d, may_run in zip(found, verdicts, strict=True) if may_run], verdicts.count(False)

    async def _may_run(self, delivery: Delivery) -> bool:
        if delivery.admitted:
            return True
        assert delivery.body is not None
        return await delivery.claim(uuid.UUID(bytes=delivery.body), delivery.facts.get("reply_to"))

    async def work(self, count: int, most: int = 64) -> None:
        """Until `count` entries were run or dropped."""
        while count > 0:
            count -= await self.once(most)

    async def serve(self) -> None:
        """Until the consumer is stopped."""
        while await self.once():
            pass

    async def once(self, most: int = 64) -> int:
        taken, dropped = await self.take(most)
        for delivery in taken:
            assert delivery.body is not None
            self.ran[delivery.body] += 1
            address = delivery.facts.get("reply_to")
            assert await delivery.settle(Reply(uuid.UUID(bytes=delivery.body), b"outcome", address=address))
        self.dropped += dropped
        return len(taken) + dropped


async def first_of(*workers: Worker) -> tuple[list[Delivery], int]:
    """What comes to one of them; which of them has it is the broker's affair."""
    takes = [asyncio.create_task(worker.take()) for worker in workers]
    await asyncio.wait(takes, return_when=asyncio.FIRST_COMPLETED)
    for each in takes:
        each.cancel()
    await asyncio.gather(*takes, return_exceptions=True)
    ((found, dropped),) = [each.result() for each in takes if not each.cancelled()]
    return found, dropped


Make = Callable[[Broker, Harness, Sequence[Outgoing]], Awaitable[None]]


async def admitted(broker: Broker, _: Harness, calls: Sequence[Outgoing]) -> None:
    assert isinstance(broker, MemoryBroker | RedisBroker | KafkaBroker | SimBroker)
    settings = broker.settings if isinstance(broker, SimBroker) else broker._settings
    await asyncio.gather(*(broker.publish(settings.queue_name, each) for each in calls))


async def hand_made(_: Broker, harness: Harness, calls: Sequence[Outgoing]) -> None:
    for each in calls:
        by_hand(harness, each)


async def raw_made(_: Broker, harness: Harness, calls: Sequence[Outgoing]) -> None:
    for each in calls:
        by_hand(harness, each, raw=True)


async def copies(_: Broker, harness: Harness, calls: Sequence[Outgoing]) -> None:
    copied(harness, calls)


WAYS = {
    "copies with all fields": (admitted, copies),
    "copies of copies": (admitted, copies, copies),
    "raw twice": (raw_made, raw_made),
    "hand-made twice": (hand_made, hand_made),
    "admitted then raw": (admitted, raw_made),
    "admitted then hand-made": (admitted, hand_made),
    "hand-made then raw": (hand_made, raw_made),
    "hand-made then admitted": (hand_made, admitted),
    "admitted twice": (admitted, admitted),
}
#: Entries that publishing left out.
UNADDED = {"admitted twice": 1}


def added(way: str, harness: Harness) -> int:
    """Entries per call."""
    return len(WAYS[way]) - (UNADDED.get(way, 0) if harness.admits else 0)


@pytest.mark.parametrize("way", WAYS)
def test_doubles_do_not_run(settings: Settings, harness: Harness, way: str) -> None:
    async def work() -> None:
        calls: list[Outgoing] = []
        async with connected(settings) as broker:
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            for most in (1, 7, 64):
                fresh = [call() for _ in range(20)]
                for make in WAYS[way]:
                    await make(broker, harness, fresh)
                await worker.work(20 * added(way, harness), most)
                calls += fresh
                assert worker.ran == Counter(each.body for each in calls), most
            assert await left(harness, harness.keeps * 60)  # the outcomes: every entry is gone

    run(work())


@pytest.mark.parametrize("way", ["copies with all fields", "hand-made twice", "admitted then hand-made", "admitted twice"])
def test_two_servers_that_read_at_once(settings: Settings, harness: Harness, way: str) -> None:
    async def work() -> None:
        count = 1000 if harness.admits else 300  # on Kafka one of the two decides about all doubles of a call
        calls = [call() for _ in range(count)]
        async with connected(settings) as broker, connected(settings) as other:
            for make in WAYS[way]:
                await make(broker, harness, calls)
            ran: Counter[bytes] = Counter()
            workers = [Worker(b.consume(settings.queue_name, consumer=str(n)), ran) for n, b in enumerate((broker, other))]

            async def end() -> None:
                while len(ran) < count or not await left(harness, count * harness.keeps):
                    await asyncio.sleep(0.02)
                for worker in workers:
                    await worker.consumer.stop()

            await asyncio.gather(end(), *(worker.serve() for worker in workers))
            assert ran == Counter(each.body for each in calls)

    run(work())


def test_a_call_sent_again_after_its_outcome_gets_it(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            serving = asyncio.create_task(worker.serve())
            again = call(address=mailbox.address)
            await broker.publish(settings.queue_name, again)
            assert (await mailbox.receive()).bodies == [b"outcome"]
            await broker.publish(settings.queue_name, again)
            assert (await mailbox.receive()).bodies == [b"outcome"]
            await broker.publish(settings.queue_name, replace(again, address=None))  # nobody to tell
            await worker.consumer.stop()
            await serving
            assert worker.ran[again.body] == 1

    run(work())


@pytest.mark.parametrize("sent", ["again", "by hand"])
def test_a_call_sent_again_while_it_runs_gets_the_first_outcome(settings: Settings, harness: Harness, sent: str) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            first, second, third = [await broker.open_mailbox(settings.queue_name) for _ in range(3)]
            one, other = (Worker(broker.consume(settings.queue_name, consumer=name)) for name in ("one", "other"))
            original = call(address=first.address)
            await broker.publish(settings.queue_name, original)
            ((delivery,), _) = await one.take()
            reader = other if harness.admits else one  # the owner of the partition
            for address in (second.address, third.address, third.address):
                double = call(original.message_id, address)
                if sent == "again":
                    await broker.publish(settings.queue_name, double)
                else:
                    by_hand(harness, double)
                if sent == "by hand" or not harness.admits:
                    assert await reader.take() == ([], 1)
            assert await delivery.settle(reply_to(original, b"full", address=first.address, wake=b"short"))
            assert (await first.receive()).bodies == [woken(broker, b"short", b"full")]
            assert (await second.receive()).bodies == [b"full"]
            assert (await third.receive()).bodies == [b"full"]

    run(work())


def test_a_buried_call_answers_its_doubles(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            original = call()
            await broker.publish(settings.queue_name, original)
            ((delivery,), _) = await worker.take()
            by_hand(harness, call(original.message_id, mailbox.address))
            assert await worker.take() == ([], 1)
            assert await delivery.bury("broken", reply_to(original, b"why"))
            assert (await mailbox.receive()).bodies == [b"why"]

    run(work())


def test_a_double_that_is_refused_does_not_decide_the_outcome(settings: Settings, harness: Harness) -> None:
    """A damaged copy, say: it is a dead letter, and its caller gets what the call that runs ends in."""

    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            consumer = broker.consume(settings.queue_name, consumer="one")
            original = call()
            await broker.publish(settings.queue_name, original)
            ((running,), _) = await Worker(consumer).take(1)
            for address in (mailbox.address, None):
                by_hand(harness, call(original.message_id, address))
                (double,) = await consumer.take(1)
                assert await double.bury("form", reply_to(original, b"refused", address=address), claim=True)
            assert await running.settle(reply_to(original, b"outcome"))
            assert (await mailbox.receive()).bodies == [b"outcome"]
            by_hand(harness, call(original.message_id, mailbox.address))
            (late,) = await consumer.take(1)
            assert await late.bury("form", reply_to(original, b"refused", address=mailbox.address), claim=True)
            assert (await mailbox.receive()).bodies == [b"outcome"]
            assert harness.dead_letters() == [("form", original.body)] * 3

    run(work())


def test_the_refusal_of_the_first_entry_is_the_outcome(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            first, second = [await broker.open_mailbox(settings.queue_name) for _ in range(2)]
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            broken = call(address=first.address)
            by_hand(harness, broken)
            (delivery,) = await worker.consumer.take(1)
            assert await delivery.bury("form", reply_to(broken, b"full", address=first.address, wake=b"short"), claim=True)
            assert (await first.receive()).bodies == [woken(broker, b"short", b"full")]
            await broker.publish(settings.queue_name, call(broken.message_id, second.address))
            by_hand(harness, call(broken.message_id, second.address))
            for _ in range(1 if harness.admits else 2):
                assert await worker.take(1) == ([], 1)
            assert await receive_all(second, 2) == [b"full"] * 2

    run(work())


@pytest.mark.parametrize("made", [admitted, hand_made], ids=["admitted", "hand-made"])
def test_what_was_given_back_is_no_double_of_itself(settings: Settings, harness: Harness, made: Make) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            one, other = (Worker(broker.consume(settings.queue_name, consumer=name)) for name in ("one", "other"))
            original = call()
            await made(broker, harness, [original])
            for _ in range(3):
                found: list[Delivery] = []
                while not found:
                    found, dropped = await first_of(one, other)
                    assert not dropped or not harness.admits  # where the shares change meanwhile, it comes again
                (delivery,) = found
                assert delivery.attempt == 1
                assert await delivery.release()
            await other.consumer.close()
            by_hand(harness, original)
            serving = asyncio.create_task(one.serve())
            assert await left(harness, harness.keeps)
            await one.consumer.stop()
            await serving
            assert one.ran == {original.body: 1}

    run(work())


@pytest.mark.parametrize("made", [admitted, hand_made], ids=["admitted", "hand-made"])
def test_what_was_given_back_before_it_was_claimed_is_no_double_of_itself(
    settings: Settings, harness: Harness, made: Make
) -> None:
    """A call that may run is given back, and so is what came of it, again and again, by servers that have no worker for it."""

    async def work() -> None:
        async with connected(settings) as broker:
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            original = call()
            await made(broker, harness, [original])
            found: list[Delivery] = []
            while not found:
                found, _ = await worker.take()
            for _ in range(4):
                (delivery,) = found
                assert await delivery.release()
                found = list(await worker.consumer.take(1))
            by_hand(harness, original)
            assert await found[0].release()
            serving = asyncio.create_task(worker.serve())
            assert await left(harness, harness.keeps)
            await worker.consumer.stop()
            await serving
            assert worker.ran == {original.body: 1}

    run(work())


@pytest.mark.parametrize("made", [admitted, hand_made], ids=["admitted", "hand-made"])
def test_what_was_taken_over_is_no_double_of_itself(settings: Settings, harness: Harness, made: Make) -> None:
    async def work() -> None:
        async with connected(settings) as broker, connected(settings) as lost:
            original = call()
            await made(broker, harness, [original])
            ((_,), _) = await Worker(lost.consume(settings.queue_name, consumer="lost")).take()
            await lost.close()
            worker = Worker(broker.consume(settings.queue_name, consumer="heir"))
            ((delivery,), _) = await worker.take()
            assert delivery.attempt == 2
            by_hand(harness, original)
            assert await worker.take() == ([], 1)
            assert await delivery.settle(None)

    run(work())


def test_an_id_runs_again_when_the_window_has_passed(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            first, second = call(), call()
            for times in (1, 2):
                await broker.publish(settings.queue_name, first)
                by_hand(harness, second)
                await worker.work(2)
                assert worker.ran == {first.body: times, second.body: times}
                pass_window(harness, settings, worker.consumer)

    run(work())


def pass_window(harness: Harness, settings: Settings, consumer: Consumer) -> None:
    if isinstance(harness, RedisHarness):
        keys = [k for name in ("admitted", "claimed") for k in harness.client.scan_iter(f"prpc_{name}_{settings.queue_name}_*")]
        assert len(keys) >= 2
        for key in keys:
            assert settings.duplicate_window <= harness.client.ttl(key) + 1 <= 1.5 * settings.duplicate_window + 1
            harness.client.delete(key)
    elif isinstance(harness, SimHarness):
        known_here = harness.store.queue(settings.queue_name).known
        assert len(known_here) == 2
        known_here.clear()
    elif isinstance(consumer, KafkaConsumer):
        for known in consumer._group._history._ids.values():
            known._known = {message_id: (place, 0.0, begun) for message_id, (place, _, begun) in known._known.items()}
    else:
        assert isinstance(harness, MemoryHarness)
        known = harness.broker._space._queue(settings.queue_name).known
        assert len(known) == 2
        known.owner(uuid.uuid4(), float("inf"))
        assert len(known) == 0


def test_a_further_attempt_is_added_while_there_is_no_outcome(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            first = call(address=mailbox.address)
            again = replace(first, again=True)
            for each in (first, again):
                await broker.publish(settings.queue_name, each)
            consumer = broker.consume(settings.queue_name, consumer="one")
            found = [*await consumer.take(1), *await consumer.take(1)]
            assert [delivery.admitted for delivery in found] == [harness.admits, False]
            for delivery in found:  # where it may not run twice, claiming says no
                assert delivery.admitted or await delivery.claim(first.message_id, mailbox.address, repeatable=True, again=True)
            assert await found[0].settle(reply_to(first, address=mailbox.address))
            assert await found[1].settle(reply_to(first, b"other", address=mailbox.address))
            await broker.publish(settings.queue_name, again)  # there is an outcome now
            if not harness.admits:
                (last,) = await consumer.take(1)
                assert not await last.claim(first.message_id, mailbox.address, repeatable=True, again=True)
            assert await receive_all(mailbox, 3) == [b"result"] * 3
            assert await left(harness, harness.keeps)  # the outcome: no entry

    run(work())


def test_a_further_attempt_of_a_call_that_never_came_is_the_first(settings: Settings) -> None:
    async def work() -> None:
        async with connected(settings) as broker:
            first = replace(call(), again=True)
            await broker.publish(settings.queue_name, first)
            await broker.publish(settings.queue_name, replace(first, again=False))
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            await worker.work(1)
            await broker.publish(settings.queue_name, call())
            await worker.work(1)
            assert set(worker.ran.values()) == {1}
            assert len(worker.ran) == 2

    run(work())


def test_a_stream_whose_ids_are_ahead_of_the_clock(settings: Settings, harness: Harness) -> None:
    if not isinstance(harness, RedisHarness):
        pytest.skip("only Redis orders entries by a clock")
    ahead = str(int(harness.client.time()[0] + 3600) * 1000)

    async def work() -> None:
        async with connected(settings) as broker:
            for last in (f"{ahead}-5", f"{ahead}-{2**64 - 3}"):
                harness.client.xadd(harness.names.calls, {"message": uuid.uuid4().bytes}, id=last)
            calls = [call() for _ in range(2)]
            await admitted(broker, harness, calls)
            worker = Worker(broker.consume(settings.queue_name, consumer="one"))
            copied(harness, [*calls, *calls])
            await worker.work(8)
            assert set(worker.ran.values()) == {1}

    run(work())


def test_a_full_queue_refuses(settings: Settings, harness: Harness) -> None:
    """On Kafka each client keeps the bound that it was given itself, and sees what ended within moments."""

    async def work() -> None:
        bounded = replace(settings, max_queue_length=3)
        async with connected(bounded) as server, connected_client(settings if harness.admits else bounded) as client:
            results = await asyncio.gather(
                *(client.publish(settings.queue_name, call()) for _ in range(5)), return_exceptions=True
            )
            assert results[:3] == [None] * 3
            for error in results[3:]:
                assert isinstance(error, QueueFullError)
                assert (error.queue, error.length) == (settings.queue_name, 3)
            worker = Worker(server.consume(settings.queue_name, consumer="one"))
            ((delivery,), _) = await worker.take(1)
            with pytest.raises(QueueFullError):  # what runs counts
                await client.publish(settings.queue_name, call())
            assert await delivery.settle(None)
            last = call()

            async def sent() -> bool:
                with contextlib.suppress(QueueFullError):
                    await client.publish(settings.queue_name, last)
                    return True
                assert not harness.admits
                return False

            await until(sent)
            if harness.admits:
                await client.publish(settings.queue_name, last)  # known: it needs no room
            await worker.work(3)

    run(work())


def test_a_client_alone_uses_its_own_bound(settings: Settings) -> None:
    async def work() -> None:
        async with connected_client(replace(settings, max_queue_length=1)) as client:
            await client.publish(settings.queue_name, call())
            with pytest.raises(QueueFullError):
                await client.publish(settings.queue_name, call())

    run(work())
