"""Short looks into topics that few read: announcements, dead letters, and how long a queue is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.base import QueueState, ServerRecord
from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_driver import stop_consumer
from prpc.brokers.kafka_marks import read_marks
from prpc.brokers.kafka_reader import assign, know_topics, open_reader
from prpc.brokers.kafka_shared import Shared
from prpc.brokers.kafka_topics import KafkaTopics
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["SINCE", "KafkaScan", "announcement", "server_record"]

#: Seconds that announcements may have been made before now: longer than any of them holds.
SINCE = 300.0
#: Key of an announcement's time to live, in seconds.
TTL = "prpc_ttl"


#: Milliseconds that the broker keeps a fetch open: looks ask for several things in turn.
SHORT_POLL = 50


class KafkaScan:
    """One consumer without a group, opened on the first look and kept. One look at a time."""

    def __init__(self, address: KafkaAddress, settings: Settings, topics: KafkaTopics) -> None:
        self._address, self._settings, self._topics = address, settings, topics
        self._consumer = Shared(partial(open_reader, address, settings, long_poll=SHORT_POLL), stop_consumer, address.shown)
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Idempotent."""
        await self._consumer.close()

    async def read(self, topic: str, *, since: float | None = None) -> Sequence[ConsumerRecord]:
        """All records of a topic's first partition, or those since that moment (seconds by the brokers' clock).

        Raises BrokerUnavailableError.
        """
        place = TopicPartition(topic, 0)
        async with self._look() as consumer:
            await know_topics(consumer, [topic])
            end = (await consumer.end_offsets([place]))[place]
            start = (await consumer.beginning_offsets([place]))[place]
            if since is not None:
                found = (await consumer.offsets_for_times({place: max(0, round(since * 1000))}))[place]
                start = end if found is None else max(start, found.offset)
            assign(consumer, {place: start})
            records: list[ConsumerRecord] = []
            while start < end:
                for some in (await consumer.getmany(timeout_ms=1000)).values():
                    records += some
                start = await consumer.position(place)
            return [record for record in records if record.offset < end]

    async def state(self, names: QueueNames, dead: int, now: float) -> QueueState:
        """See Broker.state."""
        return await self._state(names, dead, now)

    async def length(self, names: QueueNames) -> QueueState:
        """What waits and what was taken, no more."""
        return await self._state(names, 0, None)

    async def _state(self, names: QueueNames, dead: int, now: float | None) -> QueueState:
        places = await self._places((names.calls, names.raw_calls))
        committed = await self._topics.committed(names.group(self._settings.group_name), places)
        waiting = taken = 0
        upcoming: dict[TopicPartition, int] = {}
        async with self._look() as consumer:
            await know_topics(consumer, (names.calls, names.raw_calls))
            ends, starts = await consumer.end_offsets(places), await consumer.beginning_offsets(places)
            for place in places:
                offset, metadata = committed.get(place) or (starts[place], "")
                marks = read_marks(max(offset, starts[place]), metadata)
                started = sum(mark.attempts > 0 for mark in marks.open.values())
                taken += started
                waiting += max(0, ends[place] - marks.upcoming) + len(marks.open) - started
                first = next((o for o, mark in marks.open.items() if not mark.attempts), marks.upcoming)
                if first < ends[place]:
                    upcoming[place] = first
            next_waits = None if now is None else await self._oldest(consumer, upcoming, now)
        return QueueState(waiting, taken, next_waits, dead)

    async def _oldest(self, consumer: Any, upcoming: dict[TopicPartition, int], now: float) -> float | None:
        ages: list[float] = []
        for place, offset in upcoming.items():
            assign(consumer, {place: offset})
            for records in (await consumer.getmany(timeout_ms=1000, max_records=1)).values():
                ages += [max(0.0, now - record.timestamp / 1000) for record in records]
        return max(ages, default=None)

    async def _places(self, topics: Sequence[str]) -> list[TopicPartition]:
        counts = await self._topics.partitions(topics)
        return [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]

    @asynccontextmanager
    async def _look(self) -> AsyncIterator[Any]:
        """The consumer, for one look alone, within bounds."""
        async with self._lock:
            try:
                async with asyncio.timeout(2 * self._settings.connect_timeout):
                    consumer = await self._consumer.get()
                    try:
                        yield consumer
                    finally:
                        consumer.pause(*consumer.assignment())  # else it goes on reading
            except (KafkaError, OSError) as exc:
                await self._consumer.drop()
                raise explain(exc, self._address.shown) from exc


def announcement(record: ServerRecord, ttl: float) -> bytes:
    """A server's announcement as it is written."""
    return json.dumps({**record.info, TTL: ttl}).encode()


def server_record(record: ConsumerRecord, now: float) -> ServerRecord | None:
    """One announcement; None where it ran out, was taken back or is none of ours."""
    try:
        info = json.loads(record.value or b"")
        ttl, age = float(info.pop(TTL)), max(0.0, now - record.timestamp / 1000)
        return ServerRecord((record.key or b"").decode(), info, age) if age <= ttl else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
