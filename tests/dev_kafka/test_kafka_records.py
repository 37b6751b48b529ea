"""Producing and fetching: what is stored, what is refused, and what a reader gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest

from prpc.dev_kafka import Code
from tests.kafka_talk import Kafka, admin, ask, batch, consumer, end_of, new_topic, produce, producer, run

HOUR = 3_600_000
CREATE_TIME, LOG_APPEND_TIME = 0, 1


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_records_come_back_as_they_were_sent(kafka: Kafka, acks: int | str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, 2)
        async with producer(kafka, acks=acks) as out, consumer(kafka, topic) as back:
            await out.send_and_wait(topic, b"one", key=b"k", partition=1, headers=[("h", b"1"), ("h", b"2"), ("none", None)])
            record = await back.getone()
            assert (record.partition, record.offset, record.key, record.value) == (1, 0, b"k", b"one")
            assert record.headers == (("h", b"1"), ("h", b"2"), ("none", None))
            assert record.timestamp_type == CREATE_TIME
            await out.send_and_wait(topic, None, key=b"tombstone", partition=0)
            assert (await back.getone()).value is None

    run(scenario())


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_batches_keep_order_and_offsets(kafka: Kafka, compression: str | None) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with producer(kafka, enable_idempotence=True, compression_type=compression, linger_ms=20) as out:
            sent = [await out.send(topic, b"%d" % number) for number in range(200)]
            assert [(await one).offset for one in sent] == list(range(200))
        async with consumer(kafka, topic, max_partition_fetch_bytes=256) as back:
            records = [await back.getone() for _ in range(200)]
        assert [(record.offset, record.value) for record in records] == [(number, b"%d" % number) for number in range(200)]

    run(scenario())


def test_a_batch_sent_again_is_stored_once(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        numbered = [batch(b"x", producer_id=77_777, epoch=3, sequence=number) for number in range(7)]
        for offset, data in enumerate(numbered):
            assert await produce(kafka, topic, data) == (Code.NONE, offset)
        assert await produce(kafka, topic, numbered[6]) == (Code.NONE, 6)
        assert await produce(kafka, topic, numbered[2]) == (Code.NONE, 2)
        # Older than the last five: no longer known as a copy.
        assert (await produce(kafka, topic, numbered[1]))[0] == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
        gap = batch(b"x", producer_id=77_777, epoch=3, sequence=9)
        assert (await produce(kafka, topic, gap))[0] == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
        old = batch(b"x", producer_id=77_777, epoch=2, sequence=7)
        assert (await produce(kafka, topic, old))[0] == Code.INVALID_PRODUCER_EPOCH
        fresh = batch(b"x", producer_id=77_777, epoch=4, sequence=0)
        assert await produce(kafka, topic, fresh) == (Code.NONE, 7)
        assert (await produce(kafka, topic, batch(b"x", producer_id=77_777, epoch=5, sequence=2)))[0] != Code.NONE
        # A producer of whom nothing is known may begin anywhere: its batches may have been deleted.
        assert await produce(kafka, topic, batch(b"x", producer_id=88_888, epoch=0, sequence=41)) == (Code.NONE, 8)
        assert await end_of(kafka, topic) == 9

    run(scenario())


def spoiled(data: bytes, at: int, value: int) -> bytes:
    copy = bytearray(data)
    copy[at] = value
    return bytes(copy)


ONE = batch(b"value", timestamp=1_700_000_000_000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (spoiled(ONE, len(ONE) - 3, 0), Code.CORRUPT_MESSAGE),
        (ONE + ONE, Code.INVALID_RECORD),
        (batch(b"x", timestamp=round(time.time() * 1000) + 2 * HOUR), Code.INVALID_TIMESTAMP),
    ],
    ids=["checksum", "two batches", "from the future"],
)
def test_a_batch_that_is_refused_leaves_no_trace(kafka: Kafka, data: bytes, code: Code) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        assert (await produce(kafka, topic, data))[0] == code
        assert await end_of(kafka, topic) == 0

    run(scenario())


@pytest.mark.parametrize(
    ("configs", "acks", "code"),
    [
        ({}, 2, Code.INVALID_REQUIRED_ACKS),
        ({"cleanup.policy": "compact"}, 1, Code.INVALID_RECORD),
        # More copies than the topic has are not asked for.
        ({"min.insync.replicas": "2"}, -1, Code.NONE),
        ({"max.message.bytes": "60"}, 1, Code.MESSAGE_TOO_LARGE),
    ],
    ids=["acks", "compacted without key", "one copy will do", "too large"],
)
def test_a_topic_refuses_by_its_settings(kafka: Kafka, configs: dict[str, str], acks: int, code: Code) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, configs=configs)
        assert (await produce(kafka, topic, ONE, acks=acks))[0] == code

    run(scenario())


def test_a_message_that_is_too_large_reaches_the_caller(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, configs={"max.message.bytes": "1000"})
        async with producer(kafka, enable_idempotence=True) as out:
            with pytest.raises(MessageSizeTooLargeError):
                await out.send_and_wait(topic, b"x" * 1000)
            assert (await out.send_and_wait(topic, b"x" * 500)).offset == 0

    run(scenario())


def test_nobody_answers_a_producer_that_wants_no_answer(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, configs={"max.message.bytes": "1000"})
        async with producer(kafka, acks=0) as out:
            assert await out.send_and_wait(topic, b"x" * 5000) is None
            while await end_of(kafka, topic) == 0:  # the broker cut the connection, so that the next ones may be lost as well
                await out.send_and_wait(topic, b"small")

    run(scenario())


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_brokers_clock_where_the_topic_wants_it(kafka: Kafka, compression: str | None) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, configs={"message.timestamp.type": "LogAppendTime"})
        async with producer(kafka, compression_type=compression, linger_ms=20) as out:
            sent = [await out.send(topic, b"x", timestamp_ms=1_000 + number) for number in range(3)]
            told = [await one for one in sent]
        assert {one.timestamp_type for one in told} == {LOG_APPEND_TIME}
        assert abs(told[0].timestamp - time.time() * 1000) < HOUR
        async with consumer(kafka, topic) as back:
            records = [await back.getone() for _ in range(3)]
            assert [record.timestamp for record in records] == [one.timestamp for one in told]
            assert {record.timestamp_type for record in records} == {LOG_APPEND_TIME}
            tp = TopicPartition(topic, 0)
            assert (await back.offsets_for_times({tp: told[0].timestamp - 1}))[tp].offset == 0
            assert (await back.offsets_for_times({tp: told[-1].timestamp + HOUR}))[tp] is None

    run(scenario())


def test_the_producers_clock_elsewhere(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as out, consumer(kafka) as back:
            for number in (10, 30, 20, 40):
                told = await out.send_and_wait(topic, b"x", timestamp_ms=number)
                assert (told.timestamp, told.timestamp_type) == (number, CREATE_TIME)
            back.assign([tp])
            assert [(await back.getone()).timestamp for _ in range(4)] == [10, 30, 20, 40]
            found = {time: (await back.offsets_for_times({tp: time}))[tp] for time in (5, 25, 35, 41)}
            assert {time: at and (at.offset, at.timestamp) for time, at in found.items()} == {
                5: (0, 10),
                25: (1, 30),
                35: (3, 40),
                41: None,
            }

    run(scenario())


def test_seek_and_offsets(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as out, consumer(kafka) as back:
            for number in range(5):
                await out.send_and_wait(topic, b"%d" % number)
            back.assign([tp])
            assert (await back.beginning_offsets([tp]), await back.end_offsets([tp])) == ({tp: 0}, {tp: 5})
            await back.seek_to_end(tp)
            assert await back.position(tp) == 5
            back.seek(tp, 3)
            assert [(await back.getone()).value for _ in range(2)] == [b"3", b"4"]
            await back.seek_to_beginning(tp)
            assert (await back.getone()).value == b"0"

    run(scenario())


def test_a_paused_partition_gives_nothing(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, 2)
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with producer(kafka) as out, consumer(kafka) as back:
            back.assign([first, second])
            back.pause(first)
            await out.send_and_wait(topic, b"paused", partition=0)
            await out.send_and_wait(topic, b"open", partition=1)
            assert (await back.getone()).value == b"open"
            back.resume(first)
            assert (await back.getone()).value == b"paused"

    run(scenario())


def test_a_waiting_fetch_wakes_at_once(kafka: Kafka) -> None:
    """The wait is longer than a test may take: only a broker that wakes it lets this one pass."""

    async def scenario() -> None:
        topic = await new_topic(kafka, 3)
        async with producer(kafka) as out, consumer(kafka, fetch_max_wait_ms=120_000, request_timeout_ms=130_000) as back:
            back.assign([TopicPartition(topic, number) for number in range(3)])
            waiting = asyncio.ensure_future(back.getone())
            for number in range(10):
                await out.send_and_wait(topic, b"%d" % number, partition=number % 3)
                assert (await waiting).value == b"%d" % number
                waiting = asyncio.ensure_future(back.getone())
            waiting.cancel()

    run(scenario())


def test_deleted_records_are_out_of_range(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as out, admin(kafka) as manager:
            for number in range(6):
                await out.send_and_wait(topic, b"%d" % number)
            assert await delete(manager, tp, 4) == {tp: 4}
            assert await delete(manager, tp, 2) == {tp: 4}
            with pytest.raises(OffsetOutOfRangeError):
                await delete(manager, tp, 7)
        async with consumer(kafka, auto_offset_reset="none") as strict:
            strict.assign([tp])
            assert await strict.beginning_offsets([tp]) == {tp: 4}
            strict.seek(tp, 3)
            with pytest.raises(OffsetOutOfRangeError):
                await strict.getone()
        async with consumer(kafka) as back:
            back.assign([tp])
            back.seek(tp, 3)
            assert (await back.getone()).value == b"4"
            back.seek(tp, 99)
            assert (await back.getone()).value == b"4"

    run(scenario())


async def delete(manager: Any, tp: TopicPartition, before: int) -> Mapping[TopicPartition, int]:
    from aiokafka.admin import RecordsToDelete

    return dict(await manager.delete_records({tp: RecordsToDelete(before_offset=before)}))


def test_fetch_knows_topics_partitions_and_bytes(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        assert await fetch(kafka, "no-such-topic", 0, 0) == (Code.UNKNOWN_TOPIC_OR_PARTITION, b"")
        assert await fetch(kafka, topic, 5, 0) == (Code.UNKNOWN_TOPIC_OR_PARTITION, b"")
        assert await fetch(kafka, topic, 0, 1) == (Code.OFFSET_OUT_OF_RANGE, b"")
        assert await fetch(kafka, topic, 0, 0) == (Code.NONE, b"")
        one = batch(b"x" * 100)
        for _ in range(3):
            await produce(kafka, topic, one)
        for limit, batches in ((1, 1), (len(one) * 2, 2), (len(one) * 9, 3)):
            code, data = await fetch(kafka, topic, 0, 0, limit)
            # A real broker reads bytes of a file and may give the beginning of one more batch.
            assert (code, len(data) // len(one)) == (Code.NONE, batches)
        assert len((await fetch(kafka, topic, 0, 2))[1]) == len(one)

    run(scenario())


async def fetch(kafka: Kafka, topic: str, partition: int, offset: int, max_bytes: int = 1 << 20) -> tuple[int, bytes]:
    answer = await ask(kafka, FetchRequest(10, 1, 1 << 25, 0, [(topic, [(partition, offset, max_bytes)])]))
    ((_, (row,)),) = answer.topics
    return row[1], row[-1]
