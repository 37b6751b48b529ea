"""Which message ids a partition's owner has seen, so that none runs twice, and the outcomes for further entries of a call.

Calls of one id stand in one partition, for the id is the record's key; its owner alone decides. Who becomes the owner reads the
keys of the last records once more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from uuid import UUID, uuid5

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.base import Reply
from prpc.brokers.kafka_address import KafkaAddress
from prpc.brokers.kafka_driver import stop_consumer
from prpc.brokers.kafka_reader import assign, know_topics, open_reader
from prpc.brokers.kafka_records import CONTINUES, REQUEUED, number_in
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings

__all__ = ["KnownIds", "Outcomes", "id_of_key", "read_back"]

log = logging.getLogger(__name__)

#: Most records of one partition that a new owner reads once more, and the seconds that it takes for all of them.
MOST_READ_BACK = 20_000
READ_BACK_PATIENCE = 5.0
#: Bytes of outcomes that are kept for further entries of a call.
MOST_OUTCOME_BYTES = 16 * 1024 * 1024
#: Ids that further callers wait for, and callers of one.
MOST_WAITED_FOR, MOST_WAITING_FOR_ONE = 10_000, 100

#: Where a record stands.
Place = tuple[TopicPartition, int]


def id_of_key(key: bytes | None) -> UUID | None:
    """The message id that a record is keyed by; None where the key is none."""
    if key is None or len(key) != 36:
        return None
    try:
        return UUID(key.decode("ascii"))
    except ValueError:
        return None


class KnownIds:
    """Message ids of the last window: which record may run."""

    def __init__(self, window: float) -> None:
        self._window = window
        #: Place of the record and the monotonic second of forgetting; oldest first.
        self._known: dict[UUID, tuple[Place, float]] = {}

    def admit(self, message_id: UUID, record: ConsumerRecord, *, again: bool = False) -> bool:
        """Whether this record may run: it is the first of its id, or continues the one that may. It is remembered then.

        `again`: it may whatever came before.
        """
        message_id, known = _counted_id(record, message_id), self._known
        self._forget_old()
        log = TopicPartition(record.topic, record.partition)
        owner, _ = known.pop(message_id, (None, 0.0))
        may = again or owner in (None, (log, record.offset), (log, number_in(record, CONTINUES)))
        known[message_id] = (log, record.offset) if may or owner is None else owner, time.monotonic() + self._window
        return may

    def follow(self, message_id: UUID, record: ConsumerRecord) -> None:
        """A call stands here now: where the record that it continues is the one that may run, it is this one from now on.

        Not only when it is claimed, as it may be put back before that.
        """
        message_id, log = _counted_id(record, message_id), TopicPartition(record.topic, record.partition)
        place, until = self._known.get(message_id, (None, 0.0))
        if place is not None and place == (log, number_in(record, CONTINUES)):
            self._known[message_id] = (log, record.offset), until

    def forget(self, message_id: UUID, record: ConsumerRecord) -> None:
        """This record was claimed and has not begun: of all of its id, whichever is claimed next may run."""
        message_id = _counted_id(record, message_id)
        if self.first(message_id, record) == (TopicPartition(record.topic, record.partition), record.offset):
            del self._known[message_id]

    def first(self, message_id: UUID, record: ConsumerRecord) -> Place | None:
        """Where the record stands that may run instead of this double; None: it is not known."""
        return self._known.get(_counted_id(record, message_id), (None,))[0]

    def move_away(self, log: TopicPartition) -> None:
        """What stands in this log from now on is another record, whatever its place: none of an id that is known may run."""
        self._known = {each: ((log, -1) if place[0] == log else place, until) for each, (place, until) in self._known.items()}

    def _forget_old(self) -> None:
        known, now = self._known, time.monotonic()
        while known:
            oldest = next(iter(known))
            if known[oldest][1] > now:
                break
            del known[oldest]


def _counted_id(record: ConsumerRecord, message_id: UUID) -> UUID:
    """The id by which doubles are told: a call that a person put back is none of the call that it was."""
    for name, value in record.headers:
        if name == REQUEUED and value:
            return uuid5(message_id, value.decode(errors="replace"))
    return message_id


class Outcomes:
    """The last outcomes, and who else waits for one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[UUID, Reply] = OrderedDict()
        self._bytes = 0
        self._others: dict[UUID, list[str]] = {}

    def get(self, message_id: UUID) -> Reply | None:
        return self._kept.get(message_id)

    def keep(self, reply: Reply) -> None:
        """The first one of an id; the oldest go where there are too many."""
        if reply.message_id in self._kept:
            return
        self._kept[reply.message_id] = reply
        self._bytes += len(reply.body)
        while self._bytes > MOST_OUTCOME_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.body)

    def wait(self, message_id: UUID, address: str) -> None:
        """A further caller waits for this outcome."""
        waiting = self._others.setdefault(message_id, [])
        if address not in waiting and len(waiting) < MOST_WAITING_FOR_ONE:
            waiting.append(address)
        if len(self._others) > MOST_WAITED_FOR:
            del self._others[next(iter(self._others))]  # it ended where we do not see it

    def waiting(self, message_id: UUID) -> list[str]:
        """Who waited for it, once."""
        return self._others.pop(message_id, [])


async def read_back(
    address: KafkaAddress, settings: Settings, until: Mapping[TopicPartition, int], since_ms: int
) -> list[ConsumerRecord]:
    """The records of these partitions before the given offsets, as far back as `since_ms` (brokers' clock) and our bounds go.

    Raises BrokerUnavailableError.
    """
    found: list[ConsumerRecord] = []
    consumer = await open_reader(address, settings, long_poll=100)
    try:
        async with asyncio.timeout(READ_BACK_PATIENCE):
            await know_topics(consumer, [place.topic for place in until])
            first = await consumer.beginning_offsets(list(until))
            fresh = await consumer.offsets_for_times(dict.fromkeys(until, since_ms))
            starts: dict[TopicPartition, int] = {}
            for place, end in until.items():
                start = end if fresh[place] is None else fresh[place].offset
                starts[place] = max(first[place], start, end - MOST_READ_BACK)
            left = {place: start for place, start in starts.items() if start < until[place]}
            assign(consumer, left)
            while left:
                for place, records in (await consumer.getmany(*left, timeout_ms=1000)).items():
                    found += [record for record in records if record.offset < until[place]]
                    if records[-1].offset + 1 >= until[place]:
                        del left[place]
    except TimeoutError:
        log.warning("message ids of before could not all be read again within %g s", READ_BACK_PATIENCE)
    except (KafkaError, OSError) as exc:
        raise BrokerUnavailableError(f"message ids of before could not be read again: {exc}", url=address.shown) from exc
    finally:
        await stop_consumer(consumer)
    return found
