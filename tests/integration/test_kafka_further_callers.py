"""Further callers of calls whose partition has moved: who answers them, and who remembers them until then."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from prpc.brokers.base import Outgoing, Reply
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.kafka_tenure import KafkaDelivery
from prpc.brokers.kafka_words import Word, write_word
from prpc.dev_kafka import FakeKafka
from prpc.settings import Settings
from tests.kafka_talk import declared, run, slow_to_give_up, until

QUEUE = "q"
PARTITIONS = 4
#: With ids from 0 on there are some of them in each partition.
CALLS = 16


@pytest.fixture
def settings(fake_kafka: FakeKafka) -> Settings:
    return slow_to_give_up(fake_kafka, QUEUE, PARTITIONS)


async def take(consumers: Sequence[KafkaConsumer], count: int) -> list[tuple[KafkaConsumer, KafkaDelivery]]:
    """So many deliveries, and who got each."""
    found: list[tuple[KafkaConsumer, KafkaDelivery]] = []
    enough = asyncio.Event()

    async def serve(consumer: KafkaConsumer) -> None:
        while True:
            found.extend((consumer, delivery) for delivery in await consumer.take(CALLS))
            if len(found) >= count:
                enough.set()

    tasks = [asyncio.create_task(serve(consumer)) for consumer in consumers]
    await enough.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def askers(consumer: KafkaConsumer) -> set[uuid.UUID]:
    """Calls that this server remembers further callers of."""
    return set(consumer._endings._outcomes._others)


def test_who_runs_a_call_answers_and_nobody_else_remembers_who_asked(settings: Settings) -> None:
    async def scenario() -> None:
        async with declared(settings) as broker:
            first = broker.consume(QUEUE, consumer="first")
            calls = [Outgoing(uuid.UUID(int=number), b"call", {}) for number in range(CALLS)]
            for call in calls:
                await broker.publish(QUEUE, call)
            running = [(call, delivery) for _, delivery in await take([first], CALLS) for call in calls if is_of(call, delivery)]
            assert all([await delivery.claim(call.message_id, None) for call, delivery in running])

            others = [broker.consume(QUEUE, consumer=name) for name in ("second", "third")]
            await asyncio.gather(*(other.open() for other in others))
            mailbox = await broker.open_mailbox(QUEUE)
            for call in calls:
                await broker.publish(QUEUE, call)
            asked: dict[KafkaConsumer, set[uuid.UUID]] = {first: set(), others[0]: set(), others[1]: set()}
            for consumer, delivery in await take([first, *others], CALLS):
                (call,) = (call for call in calls if is_of(call, delivery))
                asked[consumer].add(call.message_id)
                assert not await delivery.claim(call.message_id, mailbox.address)
            assert all(asked[other] for other in others)

            await until(lambda: told(first, calls))
            assert [askers(other) for other in others] == [asked[other] for other in others]
            for call, delivery in running:
                assert await delivery.settle(Reply(call.message_id, str(call.message_id).encode()))
            answers: list[bytes] = []
            while len(answers) < CALLS:
                answers += (await mailbox.receive()).bodies
            assert sorted(answers) == sorted(str(call.message_id).encode() for call in calls)

    run(scenario())


async def told(consumer: KafkaConsumer, calls: Sequence[Outgoing]) -> bool:
    return askers(consumer) == {call.message_id for call in calls}


def is_of(call: Outgoing, delivery: KafkaDelivery) -> bool:
    return bool(delivery.record.key == str(call.message_id).encode())


def test_who_asks_for_calls_that_nobody_has_is_forgotten_at_once(settings: Settings) -> None:
    async def scenario() -> None:
        async with declared(settings) as broker:
            consumer = broker.consume(QUEUE, consumer="one")
            await broker.publish(QUEUE, call := Outgoing(uuid.uuid4(), b"call", {}))
            ((_, delivery),) = await take([consumer], 1)
            assert await delivery.claim(call.message_id, None)
            for message_id in (*(uuid.uuid4() for _ in range(100)), call.message_id):
                consumer._hear(write_word(Word("stranger", asks=(message_id, "0:somebody"))))
            assert askers(consumer) == {call.message_id}
            assert await delivery.settle(None)
            consumer._hear(write_word(Word("stranger", asks=(call.message_id, "0:another"))))
            assert consumer._endings._outcomes.waiting(call.message_id) == ["0:somebody"]

    run(scenario())
