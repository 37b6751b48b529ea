"""Small tools of the tests that talk to a Kafka, a real one or that in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from prpc.brokers.kafka import KafkaBroker
from prpc.dev_kafka import FakeKafka
from prpc.settings import Settings

#: Seconds after which a test is given up that waits for what never comes.
PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Kafka:
    """The broker of a test."""

    bootstrap: str
    #: Itself, where it is the one in memory.
    fake: FakeKafka | None = None


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE))


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state that is not ours to signal."""
    while not await check():
        await asyncio.sleep(0.02)


@asynccontextmanager
async def declared(settings: Settings) -> AsyncIterator[KafkaBroker]:
    """A connection as a server's: its queue is there."""
    broker = KafkaBroker(settings)
    try:
        await broker.connect()
        await broker.declare(settings.queue_name)
        yield broker
    finally:
        await broker.close()


def slow_to_give_up(kafka: FakeKafka, queue: str, partitions: int) -> Settings:
    """Of a server that Kafka does not give up while a test runs."""
    return Settings(
        type_broker="kafka",
        url_broker=kafka.bootstrap_servers,
        queue_name=queue,
        kafka_queue_partitions=partitions,
        redis_heartbeat=0.2,
        redis_recover=10.0,
        connect_timeout=10.0,
    )


@asynccontextmanager
async def admin(kafka: Kafka, **more: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, **more)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def producer(kafka: Kafka, **more: Any) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, **more)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(kafka: Kafka, *topics: str, **more: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer; it reads from the start, and commits nothing by itself, unless told otherwise."""
    # Other requests of a connection wait behind a fetch that waits.
    given = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 50, **more}
    client = AIOKafkaConsumer(*topics, bootstrap_servers=kafka.bootstrap, **given)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def connection(kafka: Kafka) -> AsyncIterator[AIOKafkaConnection]:
    """A bare connection: `send` gives the answer to a request."""
    host, _, port = kafka.bootstrap.partition(":")
    opened = await create_conn(host, int(port))
    try:
        yield opened
    finally:
        closed = opened.close()
        if closed is not None:
            await closed


async def ask(kafka: Kafka, request: Any) -> Any:
    """The answer to one request."""
    async with connection(kafka) as opened:
        return await opened.send(request)


async def new_topic(kafka: Kafka, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
    """A topic that no other test has, ready to be written to."""
    name = f"test-{uuid.uuid4().hex}"
    async with admin(kafka) as client:
        created = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])
        assert [code for _, code, _ in created.topic_errors] == [0], created
    await until(lambda: has_leaders(kafka, name, partitions))
    return name


async def has_leaders(kafka: Kafka, topic: str, partitions: int) -> bool:
    """A real broker hears of a topic some moments after it was created."""
    ((code, _, _, rows),) = (await ask(kafka, MetadataRequest([topic], False))).topics
    if code or len(rows) != partitions or any(row[0] for row in rows):
        return False
    # It may tell others of a leader some moments before that one knows itself.
    ends = [(number, -1) for number in range(partitions)]
    ((_, read),) = (await ask(kafka, OffsetRequest(-1, 0, [(topic, ends)]))).topics
    return all(row[1] == 0 for row in read)


async def end_of(kafka: Kafka, topic: str, partition: int = 0) -> int:
    async with consumer(kafka) as client:
        tp = TopicPartition(topic, partition)
        return int((await client.end_offsets([tp]))[tp])


def batch(*values: bytes, producer_id: int = -1, epoch: int = -1, sequence: int = -1, timestamp: int | None = None) -> bytes:
    """A record batch as a producer makes it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        batch_size=1 << 20,
    )
    for index, value in enumerate(values):
        builder.append(index, timestamp, None, value, [])
    return bytes(builder.build())


async def produce(kafka: Kafka, topic: str, data: bytes, *, acks: int = -1, partition: int = 0) -> tuple[int, int]:
    """Error code and offset for one batch sent as it is."""
    answer = await ask(kafka, ProduceRequest(None, acks, 5000, [(topic, [(partition, data)])]))
    ((_, ((_, code, offset, _, _),)),) = answer.topics
    return code, offset


class Member:
    """A member of a group that says only what the test wants, on a connection of its own."""

    def __init__(self, opened: AIOKafkaConnection, group: str, *, session: int = 10_000, rebalance: int = 10_000) -> None:
        self.id = ""
        self.generation = -1
        self.leads = False
        self._opened = opened
        self._group = group
        self.times = (session, rebalance)

    async def join(self, protocols: Mapping[str, bytes] | None = None, kind: str = "test") -> int:
        """The code of the answer; id, generation and whether it leads are noted. A first join gets its id first."""
        offered = list((protocols or {"p": b"m"}).items())
        answer = await self._opened.send(JoinGroupRequest(self._group, *self.times, self.id, None, kind, offered))
        if answer.error_code == 79:
            self.id = answer.member_id
            answer = await self._opened.send(JoinGroupRequest(self._group, *self.times, self.id, None, kind, offered))
        if answer.error_code == 0:
            self.id, self.generation = answer.member_id, answer.generation_id
            self.leads = answer.leader_id == answer.member_id
            self.known = {row[0] for row in answer.members}
        return int(answer.error_code)

    async def sync(self, assignments: Mapping[str, bytes] | None = None) -> tuple[int, bytes]:
        given = list((assignments or {}).items())
        answer = await self._opened.send(SyncGroupRequest(self._group, self.generation, self.id, None, given))
        return answer.error_code, answer.member_assignment

    async def heartbeat(self, generation: int | None = None) -> int:
        number = self.generation if generation is None else generation
        return int((await self._opened.send(HeartbeatRequest(self._group, number, self.id))).error_code)

    async def leave(self) -> int:
        return int((await self._opened.send(LeaveGroupRequest(self._group, self.id))).error_code)

    async def commit(
        self, topic: str, offset: int, metadata: str = "", *, generation: int | None = None, partition: int = 0
    ) -> int:
        number = self.generation if generation is None else generation
        rows = [(topic, [(partition, offset, metadata)])]
        answer = await self._opened.send(OffsetCommitRequest(self._group, number, self.id, -1, rows))
        ((_, ((_, code),)),) = answer.topics
        return int(code)


@asynccontextmanager
async def member(kafka: Kafka, group: str, **times: int) -> AsyncIterator[Member]:
    async with connection(kafka) as opened:
        yield Member(opened, group, **times)
