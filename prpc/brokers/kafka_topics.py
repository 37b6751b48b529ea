"""The topics of a queue: made, and grown, by whoever needs them and may."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import InvalidPartitionsError, KafkaError, for_code
from aiokafka.structs import OffsetAndMetadata

from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_driver import keep_first_connection, partitions_of, stop_admin
from prpc.brokers.kafka_shared import Shared
from prpc.exceptions import ConfigurationError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["KafkaTopics", "Topic", "topics_of"]

log = logging.getLogger(__name__)

#: Bytes that a record's frame, key and headers may take beside its message.
FRAME_BYTES = 1024 * 1024
#: Seconds for which announcements and control messages are kept; they are read within moments.
MOMENTS = 600
#: Kafka's error for a topic that is there already.
TOPIC_EXISTS = 36


_NAME = re.compile(r"[a-zA-Z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as we want it."""

    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)


def topics_of(names: QueueNames, settings: Settings) -> Sequence[Topic]:
    """Every topic of a queue. Records bear the broker's time, which deadlines are measured by.

    Raises ConfigurationError where Kafka has no such names.
    """
    if not _NAME.fullmatch(names.queue):
        text = f"queue name {names.queue!r} cannot be used on Kafka: letters, digits, '.', '_' and '-' are allowed"
        raise ConfigurationError(text, variable="PRPC_QUEUE_NAME", value=names.queue)
    stamped = {"message.timestamp.type": "LogAppendTime"}
    sized = {**stamped, "max.message.bytes": str(settings.max_message_bytes + FRAME_BYTES)}
    brief = {**stamped, "retention.ms": str(MOMENTS * 1000), "segment.ms": str(MOMENTS * 1000)}
    results = {**sized, "retention.ms": str(settings.redis_expire * 1000)}
    calls = settings.kafka_queue_partitions or settings.max_number_worker
    return (
        Topic(names.calls, calls, sized),
        Topic(names.raw_calls, calls, sized),
        Topic(names.feedback_topic, settings.kafka_feedback_partitions, results),
        Topic(names.raw_feedback_topic, settings.kafka_feedback_partitions, results),
        Topic(names.control, 1, brief),
        Topic(names.servers, 1, brief),
        Topic(names.dead, 1, {**sized, "cleanup.policy": "compact"}),
    )


class KafkaTopics:
    """What there is, and what is missing. One admin connection, opened when it is needed."""

    def __init__(self, address: KafkaAddress, settings: Settings) -> None:
        self._address, self._settings = address, settings
        self._admin = Shared(self._start, stop_admin, address.shown)

    async def admin(self) -> Any:
        """aiokafka's admin client, connected. Raises BrokerUnavailableError."""
        return await self._admin.get()

    async def _start(self) -> AIOKafkaAdminClient:
        timeout = max(1000, round(self._settings.connect_timeout * 1000))
        admin = AIOKafkaAdminClient(**self._address.client_options(client_id="prpc", request_timeout_ms=timeout))
        keep_first_connection(admin._client, self._address.options)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await admin.start()
        except BaseException as exc:
            await stop_admin(admin)
            if isinstance(exc, (KafkaError, OSError)):
                raise explain(exc, self._address.shown) from exc
            raise
        return admin

    async def close(self) -> None:
        """Idempotent."""
        await self._admin.close()

    async def ensure(self, queue: str, *, grow: bool) -> None:
        """Make the queue's topics where they are missing; `grow`: add partitions where there are too few.

        Raises BrokerUnavailableError where they are missing and cannot be made.
        """
        wanted = topics_of(QueueNames(queue), self._settings)
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout):
                there = await self._partitions([topic.name for topic in wanted])
                missing = [topic for topic in wanted if topic.name not in there]
                if missing:
                    await self._make(missing)
                for topic in wanted:
                    if grow and 0 < there.get(topic.name, 0) < topic.partitions:
                        await self._grow(topic)
        except (KafkaError, OSError) as exc:
            raise explain(exc, self._address.shown) from exc

    async def committed(self, group: str, places: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed for these partitions. Raises BrokerUnavailableError."""
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout):
                found = await (await self.admin()).list_consumer_group_offsets(group, partitions=list(places))
        except (KafkaError, OSError) as exc:
            raise explain(exc, self._address.shown) from exc
        return {place: each for place, each in found.items() if each.offset >= 0}

    async def partitions(self, names: Sequence[str]) -> dict[str, int]:
        """Topic -> number of partitions, of those that are there. Raises BrokerUnavailableError."""
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout):
                return await self._partitions(names)
        except (KafkaError, OSError) as exc:
            raise explain(exc, self._address.shown) from exc

    async def ping(self) -> None:
        """One round trip. Raises BrokerUnavailableError."""
        await self.partitions(())

    async def _partitions(self, names: Sequence[str]) -> dict[str, int]:
        """Topic -> number of partitions, of those that are there."""
        return await partitions_of(await self.admin(), names)

    async def _make(self, topics: Sequence[Topic]) -> None:
        replication = self._settings.kafka_replication
        wanted = [NewTopic(t.name, t.partitions, replication, topic_configs=dict(t.settings)) for t in topics]
        answer = await (await self.admin()).create_topics(wanted)
        for name, code, *text in answer.topic_errors:
            if code not in (0, TOPIC_EXISTS):
                raise for_code(code)(f"topic {name} cannot be made: {' '.join(str(t) for t in text if t)}")
        log.info("made the topics %s", ", ".join(topic.name for topic in topics))

    async def _grow(self, topic: Topic) -> None:
        try:
            await (await self.admin()).create_partitions({topic.name: NewPartitions(topic.partitions)})
        except InvalidPartitionsError:  # another server that starts at this moment was faster
            if (await self._partitions([topic.name])).get(topic.name, 0) < topic.partitions:
                raise
        log.info("topic %s has %d partitions now", topic.name, topic.partitions)
