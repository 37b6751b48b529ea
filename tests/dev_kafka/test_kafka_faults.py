"""The Kafka in memory does wrong when it is told to, tells what it was asked, and has bounds."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    KafkaConnectionError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol import admin as admins
from aiokafka.protocol import commit, coordination, fetch, group, metadata, offset, produce, transaction

from prpc.dev_kafka import Code, FakeKafka, Refused
from prpc.dev_kafka.api import NAMES
from tests.kafka_talk import Kafka, admin, ask, batch, connection, consumer, member, new_topic, producer, run
from tests.kafka_talk import produce as send_batch

NOT_LEADER, TOPIC_AUTHORIZATION_FAILED, UNKNOWN_SERVER_ERROR = 6, 29, -1


@pytest.fixture
def kafka(fake_kafka: FakeKafka) -> Kafka:
    return Kafka(fake_kafka.bootstrap_servers, fake_kafka)


@pytest.fixture
def topic(fake_kafka: FakeKafka) -> str:
    fake_kafka.create_topic("t", 2)
    return "t"


def test_a_lost_answer_doubles_only_what_is_not_idempotent(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka, enable_idempotence=True) as careful, producer(kafka, acks=1) as careless:
            fake_kafka.lose_reply("Produce")
            assert (await careful.send_and_wait(topic, b"x", partition=0)).offset == 0
            assert fake_kafka.offsets(topic) == (0, 1)
            fake_kafka.lose_reply("Produce")
            assert (await careless.send_and_wait(topic, b"x", partition=0)).offset == 2
            assert fake_kafka.offsets(topic) == (0, 3)

    run(scenario())


def test_a_refused_request_has_no_effect(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka, acks=1) as out:
            fake_kafka.refuse("Produce", times=2)
            await out.send_and_wait(topic, b"x", partition=0)
        assert fake_kafka.offsets(topic) == (0, 1)
        assert len(fake_kafka.requests("Produce")) == 3

    run(scenario())


def test_an_error_is_retried_or_reaches_the_caller(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka) as out:
            fake_kafka.fail("Produce", NOT_LEADER, times=2)
            await out.send_and_wait(topic, b"x", partition=0)
            fake_kafka.fail("Produce", TOPIC_AUTHORIZATION_FAILED)
            with pytest.raises(TopicAuthorizationFailedError):
                await out.send_and_wait(topic, b"x", partition=0)
        assert fake_kafka.offsets(topic) == (0, 1)

    run(scenario())


def test_a_delay_holds_one_connection_up(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        async with connection(kafka) as slow, connection(kafka) as quick:
            fake_kafka.delay("Metadata", 0.8)
            begin, order = clock(), []
            late = [asyncio.ensure_future(slow.send(metadata.MetadataRequest([]))) for _ in range(2)]
            late[0].add_done_callback(lambda _: order.append("slow"))
            await asyncio.to_thread(fake_kafka.wait_for, "Metadata")
            await quick.send(metadata.MetadataRequest([]))
            order.append("quick")
            await asyncio.gather(*late)
            assert clock() - begin >= 0.8
            assert order == ["quick", "slow"]

    run(scenario())


def test_a_fault_waits_for_its_topic(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        fake_kafka.create_topic("other")
        fake_kafka.fail("Produce", UNKNOWN_SERVER_ERROR, topic="other")
        assert await send_batch(kafka, topic, batch(b"x")) == (Code.NONE, 0)
        assert (await send_batch(kafka, "other", batch(b"x")))[0] == UNKNOWN_SERVER_ERROR
        assert (await send_batch(kafka, "other", batch(b"x")))[0] == Code.NONE
        fake_kafka.fail("Produce", UNKNOWN_SERVER_ERROR)
        fake_kafka.clear_faults()
        assert (await send_batch(kafka, "other", batch(b"x")))[0] == Code.NONE

    run(scenario())


def test_connections_that_are_cut_come_back(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka) as out, consumer(kafka, topic, group_id="g", heartbeat_interval_ms=100) as back:
            for number in range(3):
                waiting = asyncio.ensure_future(back.getone())
                await asyncio.to_thread(fake_kafka.drop_connections)
                await out.send_and_wait(topic, b"%d" % number, partition=0)
                assert (await waiting).value == b"%d" % number
            assert len(fake_kafka.members("g")) == 1

    run(scenario())


def test_down_and_up(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka) as patient, producer(kafka, acks=1, request_timeout_ms=300) as out:
            fake_kafka.down()
            fake_kafka.down()
            kept = asyncio.ensure_future(patient.send_and_wait(topic, b"kept", partition=0))
            with pytest.raises(KafkaError):
                await out.send_and_wait(topic, b"lost", partition=0)
            late = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
            with pytest.raises(KafkaConnectionError):
                await late.start()
            await late.stop()
            fake_kafka.up()
            fake_kafka.up()
            assert (await kept).offset == 0
        assert fake_kafka.bootstrap_servers == kafka.bootstrap
        assert fake_kafka.offsets(topic) == (0, 1)

    run(scenario())


def test_a_log_that_lost_its_end(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        tp = TopicPartition(topic, 0)
        async with producer(kafka) as out, consumer(kafka, auto_offset_reset="none") as back:
            for number in range(4):
                await out.send_and_wait(topic, b"%d" % number, partition=0)
            back.assign([tp])
            back.seek(tp, 4)
            fake_kafka.truncate(topic, 0, 2)
            assert fake_kafka.offsets(topic) == (0, 2)
            with pytest.raises(OffsetOutOfRangeError):
                await back.getone()
            assert (await out.send_and_wait(topic, b"new", partition=0)).offset == 2
            fake_kafka.delete_before(topic, 0, -1)
            assert fake_kafka.offsets(topic) == (3, 3)
            fake_kafka.truncate(topic, 0, 0)
            assert fake_kafka.offsets(topic) == (3, 3)
            fake_kafka.delete_topic(topic)
            assert fake_kafka.topics() == []
            for missing in (fake_kafka.offsets, fake_kafka.delete_topic):
                with pytest.raises(Refused):
                    missing(topic)

    run(scenario())


def test_a_commit_whose_answer_is_lost_counts(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        tp = TopicPartition(topic, 1)
        # What aiokafka does after the error is to join as a new member, which waits for the old one.
        async with consumer(kafka, topic, group_id="g", rebalance_timeout_ms=300) as back:
            fake_kafka.lose_reply("OffsetCommit")
            await back.commit({tp: 2})
            assert len(fake_kafka.requests("OffsetCommit")) == 2
            fake_kafka.fail("OffsetCommit", Code.ILLEGAL_GENERATION)
            with pytest.raises(CommitFailedError):
                await back.commit({tp: 3})
            assert fake_kafka.committed("g") == {(topic, 1): (2, "")}
        assert fake_kafka.committed("nobody") == fake_kafka.members("nobody") == {}

    run(scenario())


#: For each kind of request one with something in it.
REQUESTS: dict[str, Any] = {
    "ApiVersions": admins.ApiVersionRequest_v0(),
    "SaslHandshake": admins.SaslHandShakeRequest_v1("PLAIN"),
    "SaslAuthenticate": admins.SaslAuthenticateRequest_v1(b"\0a\0b"),
    "Produce": produce.ProduceRequest_v7(None, -1, 1000, [("t", [(0, b"x")])]),
    "Fetch": fetch.FetchRequest_v11(-1, 0, 1, 1, 0, 0, -1, [("t", [(0, -1, 0, -1, 1)])], [], ""),
    "ListOffsets": offset.OffsetRequest_v3(-1, 0, [("t", [(0, -1)])]),
    "Metadata": metadata.MetadataRequest_v5(["t"], False),
    "InitProducerId": transaction.InitProducerIdRequest_v0(None, 1000),
    "FindCoordinator": coordination.FindCoordinatorRequest_v1("g", 0),
    "JoinGroup": group.JoinGroupRequest_v5("g", 1000, 1000, "", None, "k", [("p", b"")]),
    "SyncGroup": group.SyncGroupRequest_v3("g", 1, "m", None, []),
    "Heartbeat": group.HeartbeatRequest_v1("g", 1, "m"),
    "LeaveGroup": group.LeaveGroupRequest_v1("g", "m"),
    "OffsetCommit": commit.OffsetCommitRequest_v3("g", -1, "", -1, [("t", [(0, 1, "")])]),
    "OffsetFetch": commit.OffsetFetchRequest_v3("g", [("t", [0])]),
    "ListGroups": admins.ListGroupsRequest_v1(),
    "DescribeGroups": admins.DescribeGroupsRequest_v3(["g"], False),
    "CreateTopics": admins.CreateTopicsRequest_v3([("new", 1, 1, [], [])], 1000, False),
    "DeleteTopics": admins.DeleteTopicsRequest_v3(["t"], 1000),
    "CreatePartitions": admins.CreatePartitionsRequest_v1([("t", (3, None))], 1000, False),
    "DeleteRecords": admins.DeleteRecordsRequest_v2([("t", [(0, 0, {})], {})], 1000, {}),
    "DescribeConfigs": admins.DescribeConfigsRequest_v2([(2, "t", None)], True),
    "AlterConfigs": admins.AlterConfigsRequest_v1([(2, "t", [("retention.ms", "5")])], False),
}


class Ready:
    """A request for `send`, its version chosen already."""

    def __init__(self, struct: Any) -> None:
        self.struct = struct

    def prepare(self, versions: Any) -> Any:
        return self.struct


@pytest.mark.parametrize("api", sorted(NAMES))
def test_every_request_can_fail(kafka: Kafka, fake_kafka: FakeKafka, topic: str, api: str) -> None:
    async def scenario() -> None:
        async with connection(kafka) as opened:
            fake_kafka.fail(api, 7777)
            assert "7777" in repr(await opened.send(Ready(REQUESTS[api])))
            assert "7777" not in repr(await opened.send(Ready(REQUESTS[api])))

    run(scenario())


def test_the_journal(kafka: Kafka, fake_kafka: FakeKafka, topic: str) -> None:
    async def scenario() -> None:
        async with producer(kafka, client_id="me") as out:
            await out.send_and_wait(topic, b"x", partition=1)
        (seen,) = fake_kafka.requests("Produce")
        assert (seen.client_id, seen.request.topics[0][0]) == ("me", topic)
        assert {"ApiVersions", "Metadata", "Produce"} <= {seen.api for seen in fake_kafka.requests()}
        fake_kafka.wait_for("Produce", client_id="me")
        with pytest.raises(TimeoutError, match="2 x Produce"):
            fake_kafka.wait_for("Produce", times=2, timeout=0.01)
        fake_kafka.forget_requests()
        assert fake_kafka.requests() == []

    run(scenario())


def test_faults_name_a_request_that_there_is(fake_kafka: FakeKafka) -> None:
    for wrong in (fake_kafka.lose_reply, fake_kafka.refuse, fake_kafka.requests, fake_kafka.wait_for):
        with pytest.raises(ValueError, match="no API 'Produced'"):
            wrong("Produced")


def test_a_partition_has_a_bound(topic: str) -> None:
    async def scenario(fake: FakeKafka) -> None:
        fake.create_topic(topic)
        kafka = Kafka(fake.bootstrap_servers, fake)
        async with producer(kafka) as out:
            for number in range(50):
                await out.send_and_wait(topic, b"%03d" % number + b"x" * 1000)
            start, end = fake.offsets(topic)
            assert end == 50 and 40 < start < 50
            async with consumer(kafka, topic) as back:
                assert (await back.getone()).value.startswith(b"%03d" % start)
            # One batch is always kept, whatever its size.
            await out.send_and_wait(topic, b"y" * 20_000)
            assert fake.offsets(topic) == (50, 51)

    with FakeKafka(max_partition_bytes=8_000) as fake:
        run(scenario(fake))


def test_topics_by_themselves() -> None:
    async def scenario(fake: FakeKafka) -> None:
        async with producer(Kafka(fake.bootstrap_servers)) as out:
            assert (await out.send_and_wait("asked-for", b"x", partition=2)).offset == 0

    with FakeKafka(auto_create=True, default_partitions=3) as fake:
        run(scenario(fake))
        assert fake.topics() == ["asked-for"]


def test_what_it_does_not_have_it_refuses(kafka: Kafka) -> None:
    async def scenario() -> None:
        with pytest.raises(KafkaError):
            async with producer(kafka, transactional_id="tx"):
                pass
        assert (await ask(kafka, Ready(transaction.InitProducerIdRequest_v0("tx", 1000)))).error_code == Code.INVALID_REQUEST
        static = group.JoinGroupRequest_v5("g", 1000, 1000, "", "instance", "k", [("p", b"")])
        assert (await ask(kafka, Ready(static))).error_code == Code.UNSUPPORTED_VERSION

    run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">ihhih", 10, 0, 99, 1, -1),
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">i", -1),
        struct.pack(">i", 2**31 - 1),
        struct.pack(">ihhi", 8, 0, 7, 1),
    ],
    ids=["version", "kind", "negative", "huge", "cut off"],
)
def test_a_frame_that_makes_no_sense_ends_its_connection(fake_kafka: FakeKafka, frame: bytes) -> None:
    with socket.create_connection(("127.0.0.1", fake_kafka.port), timeout=20) as opened:
        opened.sendall(frame)
        assert opened.recv(1) == b""


def test_a_taken_port_is_an_error(fake_kafka: FakeKafka) -> None:
    before = threading.active_count()
    with pytest.raises(OSError):
        FakeKafka(fake_kafka.port)
    assert threading.active_count() == before
    fake_kafka.close()
    fake_kafka.close()


def test_the_first_rebalance_may_wait_for_more(topic: str) -> None:
    async def scenario(fake: FakeKafka) -> None:
        kafka = Kafka(fake.bootstrap_servers, fake)
        async with member(kafka, "g") as first, member(kafka, "g") as second:
            assert set(await asyncio.gather(first.join(), second.join())) == {Code.NONE}
            assert {first.generation, second.generation} == {1}

    with FakeKafka(first_rebalance_delay=0.8) as fake:
        run(scenario(fake))


def test_it_can_be_told_from_any_thread(kafka: Kafka, fake_kafka: FakeKafka) -> None:
    names = [uuid.uuid4().hex for _ in range(20)]
    threads = [threading.Thread(target=fake_kafka.create_topic, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake_kafka.topics() == sorted(names)
    with pytest.raises(Refused, match="already exists"):
        fake_kafka.create_topic(names[0])


def test_the_broker_has_settings_of_its_own_that_stay(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        wrong = admins.AlterConfigsRequest_v1([(4, "1", [("num.partitions", "5")]), (2, topic, [("no.such", "5")])], False)
        answer = await ask(kafka, Ready(wrong))
        assert [row[0] for row in answer.resources] == [Code.INVALID_REQUEST, Code.INVALID_CONFIG]
        other = admins.DescribeConfigsRequest_v2([(4, "7", None), (2, "no-such-topic", None)], False)
        answer = await ask(kafka, Ready(other))
        assert [row[0] for row in answer.resources] == [Code.INVALID_REQUEST, Code.UNKNOWN_TOPIC_OR_PARTITION]
        async with admin(kafka) as manager:
            assert await manager.list_topics() == [topic]

    run(scenario())
