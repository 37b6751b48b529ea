"""A call that is put back stands in two records until the end of the first one is committed: one of them runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from prpc.brokers.base import Outgoing, Reply
from prpc.brokers.kafka import KafkaBroker
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.kafka_records import CONTINUES, CRASHES
from prpc.brokers.kafka_tenure import KafkaDelivery
from prpc.dev_kafka import FakeKafka
from prpc.names import QueueNames
from tests.kafka_talk import declared, run, slow_to_give_up

QUEUE = "q"
NAMES = QueueNames(QUEUE)
LOADING = 14


def connected(kafka: FakeKafka) -> AbstractAsyncContextManager[KafkaBroker]:
    return declared(slow_to_give_up(kafka, QUEUE, partitions=1))


def call() -> Outgoing:
    return Outgoing(uuid.uuid4(), b"call", {})


async def take(consumer: KafkaConsumer, count: int) -> list[KafkaDelivery]:
    found: list[KafkaDelivery] = []
    while len(found) < count:
        found += await consumer.take(count - len(found))
    return found


async def serve(broker: KafkaBroker, consumer: KafkaConsumer) -> None:
    """A call from its claim to its end: its server is known for a member then."""
    other = call()
    await broker.publish(QUEUE, other)
    (delivery,) = await take(consumer, 1)
    assert await delivery.claim(other.message_id, None)
    assert await delivery.settle(Reply(other.message_id, b"result"))


async def claims(deliveries: Sequence[KafkaDelivery], of: Outgoing) -> list[bool]:
    return list(await asyncio.gather(*(delivery.claim(of.message_id, None) for delivery in deliveries)))


async def continue_by_hand(broker: KafkaBroker, of: Outgoing, record: int) -> None:
    headers = [(CONTINUES, b"%d" % record), (CRASHES, b"0")]
    await broker._sender.send(NAMES.calls, of.body, key=str(of.message_id).encode(), headers=headers, partition=0)


@pytest.mark.parametrize("times", [1, 3])
def test_its_server_is_gone_before_the_first_ones_end_is_committed(fake_kafka: FakeKafka, times: int) -> None:
    async def scenario() -> None:
        async with connected(fake_kafka) as broker, connected(fake_kafka) as other:
            lost, heir = broker.consume(QUEUE, consumer="lost"), other.consume(QUEUE, consumer="heir")
            await serve(broker, lost)
            once = call()
            await broker.publish(QUEUE, once)
            for _ in range(times):
                (delivery,) = await take(lost, 1)
                fake_kafka.fail("OffsetCommit", LOADING, times=100_000)
                assert await delivery.release()
            await lost.close()
            fake_kafka.clear_faults()
            found: list[KafkaDelivery] = []
            while len(found) <= times:  # that another one has ended may not have been committed either
                found += [each for each in await take(heir, 1) if each.id == once.message_id]
            assert await claims(found, once) == [False] * times + [True]
            assert await found[-1].settle(Reply(once.message_id, b"result"))
            await heir.close()

    run(scenario())


def test_the_second_record_comes_when_the_first_one_has_begun(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            consumer = broker.consume(QUEUE, consumer="one")
            once = call()
            await broker.publish(QUEUE, once)
            (begun,) = await take(consumer, 1)
            assert await claims([begun], once) == [True]
            for ended in (False, True):
                await continue_by_hand(broker, once, begun.offset)
                (late,) = await take(consumer, 1)
                assert await claims([late], once) == [False]
                if not ended:
                    assert await begun.settle(Reply(once.message_id, b"result"))
            await consumer.close()

    run(scenario())


def test_the_second_record_is_here_before_its_server_hears_so(fake_kafka: FakeKafka) -> None:
    """The first one is over with it: whoever has it in hand may neither begin nor put it back once more."""

    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            consumer = broker.consume(QUEUE, consumer="one")
            once = call()
            await broker.publish(QUEUE, once)
            (first,) = await take(consumer, 1)
            await continue_by_hand(broker, once, first.offset)
            (second,) = await take(consumer, 1)
            assert first.lost
            assert await claims([first, second], once) == [False, True]
            assert not await first.release()
            assert await second.settle(Reply(once.message_id, b"result"))
            await consumer.close()

    run(scenario())


def test_a_stranger_that_names_a_call_ends_nothing_of_it(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            consumer = broker.consume(QUEUE, consumer="one")
            once, other = call(), call()
            await broker.publish(QUEUE, once)
            (first,) = await take(consumer, 1)
            await continue_by_hand(broker, other, first.offset)
            (second,) = await take(consumer, 1)
            assert await claims([first], once) == [True] and await claims([second], other) == [True]
            for delivery, of in ((first, once), (second, other)):
                assert await delivery.settle(Reply(of.message_id, b"result"))
            await consumer.close()

    run(scenario())


def test_a_record_that_continues_itself_is_an_ordinary_one(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            once = call()
            await continue_by_hand(broker, once, record=0)
            consumer = broker.consume(QUEUE, consumer="one")
            (delivery,) = await take(consumer, 1)
            assert delivery.offset == 0
            assert await claims([delivery], once) == [True]
            assert await delivery.settle(Reply(once.message_id, b"result"))
            await consumer.close()

    run(scenario())
