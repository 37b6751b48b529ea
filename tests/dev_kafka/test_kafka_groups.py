"""Consumer groups as aiokafka uses them: who reads what, what is committed, what rebalances do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from aiokafka.errors import CommitFailedError, OffsetMetadataTooLargeError

from tests.kafka_talk import Kafka, admin, consumer, new_topic, producer, run, until


@pytest.fixture
def group() -> str:
    """A group that no other test has."""
    return f"group-{uuid.uuid4().hex}"


#: Quick enough for a test, and patient with a busy machine.
QUICK: dict[str, Any] = {"heartbeat_interval_ms": 100, "session_timeout_ms": 6_000, "rebalance_timeout_ms": 6_000}


def test_a_group_goes_on_where_it_committed(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as out:
            for number in range(4):
                await out.send_and_wait(topic, b"%d" % number)
        async with consumer(kafka, topic, group_id=group, **QUICK) as back:
            assert await back.committed(tp) is None
            assert [(await back.getone()).value for _ in range(3)] == [b"0", b"1", b"2"]
            await back.commit({tp: OffsetAndMetadata(2, "sämtliches")})
        async with consumer(kafka, topic, group_id=group, **QUICK) as back:
            assert await back.committed(tp) == 2
            assert [(await back.getone()).value for _ in range(2)] == [b"2", b"3"]

    run(scenario())


def test_metadata_of_an_offset_comes_back_and_has_a_limit(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, 2)
        tp = TopicPartition(topic, 1)
        async with consumer(kafka, topic, group_id=group, **QUICK) as back, admin(kafka) as manager:
            full = "ü" * 4096
            await back.commit({tp: OffsetAndMetadata(0, full)})
            assert await manager.list_consumer_group_offsets(group) == {tp: OffsetAndMetadata(0, full)}
            with pytest.raises(OffsetMetadataTooLargeError):
                await back.commit({tp: OffsetAndMetadata(1, full + "x")})
            other = TopicPartition(topic, 0)
            asked = await manager.list_consumer_group_offsets(group, partitions=[tp, other])
            assert asked == {tp: OffsetAndMetadata(0, full), other: OffsetAndMetadata(-1, "")}
            assert await manager.list_consumer_group_offsets("no-such-group") == {}

    run(scenario())


async def shares(members: Collection[AIOKafkaConsumer], total: int) -> bool:
    """Whether every partition has one owner, and every member has some."""
    owned = [member.assignment() for member in members]
    return all(owned) and len(set().union(*owned)) == sum(map(len, owned)) == total


class Listener(ConsumerRebalanceListener):
    """Commits what it is told when its partitions are taken away, and notes what happens."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.consumer: AIOKafkaConsumer | None = None
        self.done: dict[TopicPartition, int] = {}

    async def heard(self, events: int) -> bool:
        return len(self.events) >= events

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.events.append(("revoked", len(revoked)))
        if self.consumer is not None and self.done:
            await self.consumer.commit(self.done)
            self.done = {}

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", len(assigned)))


def test_members_share_the_partitions_and_take_over(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, 4)
        listener = Listener()
        async with consumer(kafka, group_id=group, **QUICK) as first:
            listener.consumer = first
            first.subscribe([topic], listener=listener)
            await until(lambda: shares([first], 4))
            listener.done = {TopicPartition(topic, number): number + 10 for number in range(4)}
            async with consumer(kafka, topic, group_id=group, **QUICK) as second:
                await until(lambda: shares([first, second], 4))
                # Eager: everything is given back before anything is given out, and commits count until then.
                expected = [("revoked", 0), ("assigned", 4), ("revoked", 4), ("assigned", 2)]
                await until(lambda: listener.heard(len(expected)))
                assert listener.events == expected
                for tp in second.assignment():
                    assert await second.committed(tp) == tp.partition + 10
            # The second one said goodbye: no session has to run out.
            await until(lambda: shares([first], 4))

    run(scenario())


def test_a_member_that_lost_its_place_cannot_commit(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with consumer(kafka, topic, group_id=group, heartbeat_interval_ms=60_000, session_timeout_ms=1_000) as frozen:
            assert frozen.assignment() == {tp}
            async with consumer(kafka, topic, group_id=group, **QUICK) as other:
                await until(lambda: shares([other], 1))
                with pytest.raises(CommitFailedError):
                    await frozen.commit({tp: 7})
                assert await other.committed(tp) is None

    run(scenario())


def test_a_new_partition_is_given_out(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        from aiokafka.admin import NewPartitions

        topic = await new_topic(kafka)
        async with consumer(kafka, topic, group_id=group, metadata_max_age_ms=200, **QUICK) as back, admin(kafka) as manager:
            assert len(back.assignment()) == 1
            await manager.create_partitions({topic: NewPartitions(total_count=3)})
            await until(lambda: shares([back], 3))

    run(scenario())


def test_groups_are_listed_and_described(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with admin(kafka) as manager:
            async with consumer(kafka, topic, group_id=group, client_id="reader", **QUICK) as back:
                await back.commit({TopicPartition(topic, 0): 0})
                assert (group, "consumer") in await manager.list_consumer_groups()
                (state, kind, protocol, members) = await described(manager, group)
                assert (state, kind, protocol) == ("Stable", "consumer", "roundrobin")
                ((member_id, client_id, host, metadata, assignment),) = members
                assert member_id.startswith("reader-")
                assert (client_id, host) == ("reader", "/127.0.0.1")
                assert topic.encode() in metadata and topic.encode() in assignment
            assert await described(manager, group) == ("Empty", "consumer", "", [])
            assert (await described(manager, "no-such-group"))[0] == "Dead"

    run(scenario())


async def described(manager: Any, group: str) -> tuple[str, str, str, list[Any]]:
    (answer,) = await manager.describe_consumer_groups([group])
    ((code, name, state, kind, protocol, members),) = answer.groups
    assert (code, name) == (0, group)
    return state, kind, protocol, members


def test_offsets_without_a_group_of_members(kafka: Kafka, group: str) -> None:
    """`assign` with a group id: nobody joins, offsets are kept all the same."""

    async def scenario() -> None:
        topic = await new_topic(kafka)
        tp = TopicPartition(topic, 0)
        async with consumer(kafka, group_id=group) as back, admin(kafka) as manager:
            back.assign([tp])
            await back.commit({tp: OffsetAndMetadata(5, "five")})
            assert await back.committed(tp) == 5
            assert (group, "") in await manager.list_consumer_groups()
            await manager.delete_topics([topic])

            async def forgotten() -> bool:
                return await manager.list_consumer_group_offsets(group) == {}

            await until(forgotten)

    run(scenario())


def test_work_survives_members_that_come_and_go(kafka: Kafka, group: str) -> None:
    """Nothing is lost, and what was committed is not read again, while members come and go under load."""

    async def scenario() -> None:
        topic = await new_topic(kafka, 4)
        seen: list[int] = []
        total = 120

        async def work(back: AIOKafkaConsumer, until_seen: int) -> None:
            while len(set(seen)) < until_seen:
                for records in (await back.getmany(timeout_ms=50, max_records=20)).values():
                    seen.extend(int(record.value) for record in records)
                    tp = TopicPartition(topic, records[0].partition)
                    try:
                        await back.commit({tp: records[-1].offset + 1})
                    except CommitFailedError:
                        pass  # The new owner reads them again.

        async with producer(kafka, enable_idempotence=True) as out, consumer(kafka, topic, group_id=group, **QUICK) as steady:
            working = asyncio.ensure_future(work(steady, total))
            for number in range(total):
                await out.send_and_wait(topic, b"%d" % number, partition=number % 4)
                if number == 50:
                    async with consumer(kafka, topic, group_id=group, **QUICK) as guest:
                        await work(guest, 40)
            await working
        assert set(seen) == set(range(total))

    run(scenario())
