"""Starts whose commit Kafka has and their server does not know of: nobody made them, and each is made once after all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

from aiokafka import TopicPartition

from prpc.brokers.base import Outgoing, Reply
from prpc.brokers.kafka import KafkaBroker
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.kafka_ids import id_of_key
from prpc.brokers.kafka_marks import read_marks
from prpc.brokers.kafka_tenure import KafkaDelivery
from prpc.dev_kafka import FakeKafka
from prpc.names import QueueNames
from tests.kafka_talk import declared, run, slow_to_give_up, until

QUEUE = "q"
NAMES = QueueNames(QUEUE)
PARTITIONS = 3
#: So many that each partition has some.
CALLS = 16
LOADING = 14


def connected(kafka: FakeKafka) -> AbstractAsyncContextManager[KafkaBroker]:
    return declared(slow_to_give_up(kafka, QUEUE, PARTITIONS))


async def publish(broker: KafkaBroker, numbers: Iterable[int]) -> None:
    for number in numbers:
        await broker.publish(QUEUE, Outgoing(uuid.UUID(int=number), b"call", {}))


async def take(consumer: KafkaConsumer, count: int) -> list[KafkaDelivery]:
    found: list[KafkaDelivery] = []
    while len(found) < count:
        found += await consumer.take(CALLS)
    return found


def number_of(delivery: KafkaDelivery) -> int:
    message_id = id_of_key(delivery.record.key)
    assert message_id is not None
    return message_id.int


async def claim(deliveries: Iterable[KafkaDelivery]) -> list[bool]:
    """In one commit."""
    return list(await asyncio.gather(*(each.claim(uuid.UUID(int=number_of(each)), None) for each in deliveries)))


def marked(kafka: FakeKafka) -> int:
    """Calls that are committed as started."""
    states = kafka.committed(NAMES.group("prpc_group_consumers")).values()
    return sum(mark.attempts > 0 for offset, text in states for mark in read_marks(offset, text).open.values())


async def begin_in_doubt(kafka: FakeKafka, consumer: KafkaConsumer) -> None:
    """Starts of all calls are committed, and their server does not know it; nothing is committed from then on."""
    while marked(kafka) < CALLS:
        kafka.clear_faults()
        deliveries = await take(consumer, CALLS)
        kafka.lose_reply("OffsetCommit")  # a sign of life may come first, and use it up
        kafka.fail("OffsetCommit", LOADING, times=1000)
        assert not any(await claim(deliveries))


def owns(consumer: KafkaConsumer, number: int) -> bool:
    return TopicPartition(NAMES.calls, number) in consumer._group.tenures


def test_a_call_that_moves_with_its_start_in_doubt_is_started_by_its_next_owner(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            first = broker.consume(QUEUE, consumer="first")
            await publish(broker, range(CALLS))
            await begin_in_doubt(fake_kafka, first)
            second = broker.consume(QUEUE, consumer="second")
            await second.open()
            fake_kafka.clear_faults()
            taking = [asyncio.create_task(take(each, 1)) for each in (first, second)]
            deliveries: list[KafkaDelivery] = []
            while len(deliveries) < CALLS:
                await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
                for index, each in enumerate((first, second)):
                    if taking[index].done():
                        deliveries += taking[index].result()
                        taking[index] = asyncio.create_task(take(each, 1))
            assert {delivery.attempt for delivery in deliveries} == {1}
            assert all(await claim(deliveries))
            assert sorted(map(number_of, deliveries)) == list(range(CALLS))
            for delivery in deliveries:
                await delivery.settle(Reply(uuid.UUID(int=number_of(delivery)), b"result"))
            for task in taking:
                task.cancel()
            for each in (first, second):
                await each.close()

    run(scenario())


def test_a_word_that_is_remembered_frees_no_later_start(fake_kafka: FakeKafka) -> None:
    """One server tells that its starts never were, and then makes them; whoever heard it gets their partition later."""

    async def scenario() -> None:
        async with connected(fake_kafka) as broker:
            runs, hears, between = (broker.consume(QUEUE, consumer=name) for name in ("b", "a", "c"))
            await publish(broker, range(CALLS))
            await begin_in_doubt(fake_kafka, runs)
            await hears.open()  # partition 2 is its own from now on
            fake_kafka.clear_faults()
            elsewhere = len(await take_all_of(hears, 2, fake_kafka))
            running = await take(runs, CALLS - elsewhere)
            assert all(await claim(running))
            await between.open()
            await until_true(lambda: owns(between, 1))
            await between.close()
            await until_true(lambda: owns(hears, 1))

            await publish(broker, range(CALLS, 2 * CALLS))
            found: list[KafkaDelivery] = []
            while not any(delivery.record.partition == 1 for delivery in found):
                found += await take(hears, 1)  # in the order of the log
            assert not {number_of(each) for each in found} & {number_of(each) for each in running}
            for delivery in running:
                assert await delivery.settle(Reply(uuid.UUID(int=number_of(delivery)), b"result"))
            for each in (runs, hears):
                await each.close()

    run(scenario())


async def take_all_of(consumer: KafkaConsumer, partition: int, kafka: FakeKafka) -> list[KafkaDelivery]:
    """Every call of a partition that is the consumer's only one."""
    _, end = kafka.offsets(NAMES.calls, partition)
    return await take(consumer, end)


async def until_true(check: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return check()

    await until(asked)
