"""One partition read without a group: a mailbox, the control topic, the announcements. Goes through outages by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from prpc.brokers.awaiting import background
from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_driver import keep_first_connection, stop_consumer
from prpc.settings import Settings

__all__ = ["KafkaReader", "assign", "know_topics", "open_reader"]

log = logging.getLogger(__name__)

#: Milliseconds that the broker keeps a fetch open while there is nothing: a new record ends it at once.
LONG_POLL = 5000
#: Most bytes that are fetched ahead.
AHEAD = 4 * 1024 * 1024
#: Seconds between two tries after an error.
AGAIN_AFTER = 0.2

Records = Sequence[ConsumerRecord]


async def open_reader(address: KafkaAddress, settings: Settings, *, long_poll: int = LONG_POLL) -> AIOKafkaConsumer:
    """A consumer without a group, without partitions yet. Raises BrokerUnavailableError within the connect timeout.

    `long_poll`: milliseconds that the broker keeps a fetch open; everything else that is asked on its connection waits so long.
    """
    consumer = AIOKafkaConsumer(
        **address.client_options(client_id="prpc"),
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=long_poll,
        max_partition_fetch_bytes=AHEAD,
        metadata_max_age_ms=30_000,
        request_timeout_ms=max(2 * LONG_POLL, round(settings.connect_timeout * 1000)),
    )
    keep_first_connection(consumer._client, address.options)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await consumer.start()
    except BaseException as exc:
        await stop_consumer(consumer)
        if isinstance(exc, (KafkaError, OSError)):
            raise explain(exc, address.shown) from exc
        raise
    return consumer


async def know_topics(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
    """Learn of their partitions, so that offsets can be asked for before any is assigned."""
    for topic in set(topics):
        await consumer._client._wait_on_metadata(topic)


def assign(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """Read these partitions from these records on. In one step: a partition without a place would be looked for in vain."""
    consumer.assign(list(offsets))
    for place, offset in offsets.items():
        consumer.seek(place, offset)


class KafkaReader:
    """Hands every record of one partition from an offset on to `receive`, in order."""

    def __init__(
        self, address: KafkaAddress, settings: Settings, topic: str, partition: int, receive: Callable[[Records], None]
    ) -> None:
        self._address, self._settings = address, settings
        self._place = TopicPartition(topic, partition)
        self._receive = receive
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        #: The record to read next.
        self.position = 0

    async def open(self, offset: int | None = None) -> None:
        """Read from this record on (None: from the end). Raises BrokerUnavailableError."""
        consumer = self._consumer = await open_reader(self._address, self._settings)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await know_topics(consumer, [self._place.topic])
                start: int = offset if offset is not None else (await consumer.end_offsets([self._place]))[self._place]
        except (KafkaError, OSError) as exc:
            await self.close()
            raise explain(exc, self._address.shown) from exc
        assign(consumer, {self._place: start})
        self.position = start
        self._task = background(self._run(consumer), "prpc-kafka-reader")

    async def close(self) -> None:
        """Read no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _run(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                found: dict[Any, list[ConsumerRecord]] = await consumer.getmany(timeout_ms=60_000)
            except OffsetOutOfRangeError:
                await self._find_place(consumer)
                continue
            except (KafkaError, OSError) as exc:
                log.debug("reading %s failed, trying again: %s", self._place.topic, exc)
                await asyncio.sleep(AGAIN_AFTER)
                continue
            for records in found.values():
                self.position = records[-1].offset + 1
                self._receive(records)

    async def _find_place(self, consumer: AIOKafkaConsumer) -> None:
        """The log was cut, or the topic is another one: go on with what is there."""
        log.warning(
            "the records of %s from %d on are gone; going on with the first that is there", self._place.topic, self.position
        )
        try:
            first = (await consumer.beginning_offsets([self._place]))[self._place]
        except (KafkaError, OSError) as exc:
            log.debug("the start of %s is not known: %s", self._place.topic, exc)
            await asyncio.sleep(AGAIN_AFTER)
            return
        self.position = first
        consumer.seek(self._place, first)
