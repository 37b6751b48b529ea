"""What was in a partition before it became ours: which ids its records have, and which of them may run.

Who becomes the owner reads the keys of the last records once more. It looks ahead, too: a call may have been put back there by an
owner that was gone before it could commit that. The earlier record would begin here, and the later one at the next owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.kafka_address import KafkaAddress
from prpc.brokers.kafka_driver import stop_consumer
from prpc.brokers.kafka_ids import KnownIds, id_of_key
from prpc.brokers.kafka_marks import Marks
from prpc.brokers.kafka_reader import assign, know_topics, open_reader
from prpc.brokers.kafka_records import CONTINUES, number_in
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings

__all__ = ["History"]

log = logging.getLogger(__name__)

#: Most records of one partition that a new owner reads once more, and that it reads ahead, and the seconds that it takes for all.
MOST_READ_BACK = MOST_READ_AHEAD = 20_000
READ_BACK_PATIENCE = 5.0


class History:
    """The ids of all partitions that are ours."""

    def __init__(self, address: KafkaAddress, settings: Settings, now: Callable[[], float]) -> None:
        """`now`: what the brokers' clock shows at most, in seconds since 1970."""
        self._address, self._settings, self._now = address, settings, now
        self._ids: dict[int, KnownIds] = {}

    def ids_of(self, place: TopicPartition) -> KnownIds:
        """The ids of all records that stand in partitions of this number."""
        return self._ids.setdefault(place.partition, KnownIds(self._settings.duplicate_window))

    async def learn(
        self, kafka: AIOKafkaConsumer, marks: Mapping[TopicPartition, Marks], had: Collection[TopicPartition]
    ) -> None:
        """These are our partitions. Of those that we had before without a break, everything is known."""
        for number in list(self._ids):
            if not any(place.partition == number for place in marks if place in had):
                del self._ids[number]  # another server may have had the partition meanwhile
        try:
            await self._read({place: each for place, each in marks.items() if place not in had}, kafka)
        except (BrokerUnavailableError, KafkaError, OSError) as exc:
            reason = str(exc) or f"Kafka did not answer within {READ_BACK_PATIENCE:g} s"
            log.warning("%s; a call that was doubled over a change of owner may run twice", reason)

    async def _read(self, marks: Mapping[TopicPartition, Marks], kafka: AIOKafkaConsumer) -> None:
        """What was taken, and what may have been put back since."""

        def see(record: ConsumerRecord) -> None:
            message_id, place = id_of_key(record.key), TopicPartition(record.topic, record.partition)
            if message_id is not None:
                _see(self.ids_of(place), marks[place], message_id, record)

        if not marks:
            return
        async with asyncio.timeout(READ_BACK_PATIENCE):  # Kafka hears nothing of us meanwhile
            ends = await kafka.end_offsets(list(marks))
        until = {place: min(each.upcoming, ends[place]) for place, each in marks.items() if ends[place]}
        if until:
            since = round((self._now() - self._settings.duplicate_window) * 1000)
            await read_records(self._address, self._settings, until, ends, since, see)


def _see(ids: KnownIds, marks: Marks, message_id: UUID, record: ConsumerRecord) -> None:
    mark = marks.open.get(record.offset)
    ended = mark is None and record.offset < marks.upcoming
    if not ended or number_in(record, CONTINUES) not in marks.open:  # else it was refused: what it continues had begun
        ids.see(message_id, record, again=mark is not None and mark.attempts > 0)


async def read_records(
    address: KafkaAddress,
    settings: Settings,
    until: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    since_ms: int,
    see: Callable[[ConsumerRecord], None],
) -> None:
    """See the records of these partitions before the offsets in `until`, and then on from there those before their ends.

    The first as far back as `since_ms` (brokers' clock), both within our bounds; each partition's in order. Raises
    BrokerUnavailableError.
    """
    consumer = await open_reader(address, settings, long_poll=100)
    try:
        async with asyncio.timeout(READ_BACK_PATIENCE):
            await know_topics(consumer, [place.topic for place in until])
            first = await consumer.beginning_offsets(list(until))
            fresh = await consumer.offsets_for_times(dict.fromkeys(until, since_ms))
            back = {
                place: (max(first[place], each.offset, until[place] - MOST_READ_BACK), until[place])
                for place, each in fresh.items()
                if each is not None  # nothing is as young as that
            }
            await _see_spans(consumer, back, see)
            ahead = {place: (max(first[place], end, ends[place] - MOST_READ_AHEAD), ends[place]) for place, end in until.items()}
            await _see_spans(consumer, ahead, see)
    except TimeoutError:
        log.warning("message ids of before could not all be read again within %g s", READ_BACK_PATIENCE)
    except (KafkaError, OSError) as exc:
        raise BrokerUnavailableError(f"message ids of before could not be read again: {exc}", url=address.shown) from exc
    finally:
        await stop_consumer(consumer)


async def _see_spans(
    consumer: AIOKafkaConsumer, spans: Mapping[TopicPartition, tuple[int, int]], see: Callable[[ConsumerRecord], None]
) -> None:
    """See what stands in each span, from its start to before its end."""
    left = {place: start for place, (start, end) in spans.items() if start < end}
    if not left:
        return
    assign(consumer, left)
    while left:
        for place, records in (await consumer.getmany(*left, timeout_ms=1000)).items():
            for record in records:
                if record.offset < spans[place][1]:
                    see(record)
        for place in list(left):
            if await consumer.position(place) >= spans[place][1]:  # its last record may be one that is not handed out
                del left[place]
