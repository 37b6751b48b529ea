"""Which message ids a partition's owner has seen, so that none runs twice, and the outcomes for further entries of a call.

Calls of one id stand in one partition, for the id is the record's key; its owner alone decides.

A call that is given back is written once more, as a record that continues the one before. Whoever wrote it may be gone before the
earlier record's end is committed: then both are there, and one of them may run. It is the later one, unless the earlier one has
begun here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from uuid import UUID, uuid5

from aiokafka import ConsumerRecord, TopicPartition

from prpc.brokers.base import Reply
from prpc.brokers.kafka_records import CONTINUES, REQUEUED, number_in

__all__ = ["KnownIds", "Outcomes", "id_of_key"]

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
        #: Place of the record that may run, the monotonic second of forgetting, and whether it has begun here; oldest first.
        self._known: dict[UUID, tuple[Place, float, bool]] = {}

    def admit(self, message_id: UUID, record: ConsumerRecord, *, again: bool = False) -> bool:
        """Whether this record may run, and begins: it is the first of its id, or continues the one that may and has not begun.

        `again`: it may whatever came before.
        """
        return self._remember(message_id, record, again, begins=True)

    def see(self, message_id: UUID, record: ConsumerRecord, *, again: bool = False) -> None:
        """This record is there: it was taken before, stands behind what was, or runs in another server."""
        self._remember(message_id, record, again, begins=False)

    def _remember(self, message_id: UUID, record: ConsumerRecord, again: bool, *, begins: bool) -> bool:
        message_id, known, here = _counted_id(record, message_id), self._known, _place(record)
        self._forget_old()
        owner, _, begun = known.pop(message_id, (None, 0.0, False))
        may = again or owner is None or owner == here or (not begun and owner == _continued(record))
        begun = begins or (begun and owner == here) if may else begun
        known[message_id] = here if may or owner is None else owner, time.monotonic() + self._window, begun
        return may

    def follow(self, message_id: UUID, record: ConsumerRecord) -> bool:
        """A call stands here now: where the record that it continues may run and has not begun, it is this one from now on.

        Not only when it is claimed, as it may be put back before that. Returns whether that was so.
        """
        message_id = _counted_id(record, message_id)
        place, until, begun = self._known.get(message_id, (None, 0.0, False))
        follows = place is not None and not begun and place == _continued(record)
        if follows:
            self._known[message_id] = _place(record), until, False
        return follows

    def release(self, message_id: UUID, record: ConsumerRecord) -> None:
        """This record does not run here after all: it will be delivered once more, or one that continues it."""
        self.see(message_id, record)
        message_id = _counted_id(record, message_id)
        place, until, _ = self._known[message_id]
        if place == _place(record):
            self._known[message_id] = place, until, False

    def first(self, message_id: UUID, record: ConsumerRecord) -> Place | None:
        """Where the record stands that may run instead of this double; None: it is not known."""
        return self._known.get(_counted_id(record, message_id), (None,))[0]

    def move_away(self, log: TopicPartition) -> None:
        """What stands in this log from now on is another record, whatever its place: none of an id that is known may run."""
        for each, (place, until, begun) in self._known.items():
            if place[0] == log:
                self._known[each] = (log, -1), until, begun

    def _forget_old(self) -> None:
        known, now = self._known, time.monotonic()
        while known:
            oldest = next(iter(known))
            if known[oldest][1] > now:
                break
            del known[oldest]


def _place(record: ConsumerRecord) -> Place:
    return TopicPartition(record.topic, record.partition), record.offset


def _continued(record: ConsumerRecord) -> Place | None:
    """Where the record stands that this one continues."""
    offset = number_in(record, CONTINUES)
    return None if offset is None else (TopicPartition(record.topic, record.partition), offset)


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
