"""What a consumer has in its hands: partitions for the time that it owns them, and records of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition

from prpc.brokers.base import Facts, Reply
from prpc.brokers.kafka_ids import KnownIds, id_of_key
from prpc.brokers.kafka_marks import Progress

__all__ = ["Ending", "KafkaDelivery", "Tenure"]


@dataclass(slots=True, eq=False)
class Tenure:
    """One partition, from an assignment to the next: Kafka takes all of them back whenever it shares them out anew."""

    place: TopicPartition
    progress: Progress
    ids: KnownIds
    raw: bool
    #: The record to read next.
    upcoming: int = 0
    #: Whether the partition is still ours under this assignment.
    live: bool = True
    #: Records in the hands of this server, by offset.
    held: dict[int, KafkaDelivery] = field(default_factory=dict)
    #: Records that run in a server which had the partition before and is still there.
    elsewhere: dict[int, ConsumerRecord] = field(default_factory=dict)
    #: Of those, what turned out not to run there any more.
    gone: set[int] = field(default_factory=set)
    #: Whether it is given back: calls that do not run stay where they are from now on.
    leaving: bool = False
    #: Those of which the record that continues them is on its way.
    returning: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    #: State of the progress that is committed, and what has ended since.
    committed: int = 0
    uncommitted: set[int] = field(default_factory=set)
    #: Starts that may be committed, although they never were and never will be: offset and the name that they are marked with.
    unstarted: set[tuple[int, str]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class KafkaDelivery:
    """One record in the hands of this consumer."""

    endings: Ending
    tenure: Tenure
    record: ConsumerRecord
    facts: Facts
    attempt: int
    age: float
    born_ms: int
    #: Of the call, once it was claimed.
    message_id: UUID | None = None
    #: Of Kafka's records none may run before it was claimed: its start is committed first.
    admitted: bool = False
    #: Whether it counts as started; it goes on where its partition goes to another server then.
    started: bool = False
    #: The name that this start is marked with.
    marked: str = ""
    #: Whether others have decided about it: this server was away for too long.
    lost: bool = False
    #: Whether it was settled, released or buried.
    ending: bool = False
    #: Ends once the start is committed, where that was asked for.
    start: asyncio.Future[bool] | None = None

    @property
    def begins(self) -> bool:
        """Whether a call that counts as started runs, or will: its start needs no commit, or has one."""
        start = self.start
        return self.started and (start is None or (start.done() and not start.cancelled() and start.result()))

    def give_up(self) -> None:
        """Begin no call any more that waits for the commit of its start."""
        if self.start is not None and not self.start.done():
            self.start.set_result(False)

    @property
    def id(self) -> UUID | None:
        """Of the call, as far as that is known before it is claimed."""
        return self.message_id or id_of_key(self.record.key)

    @property
    def offset(self) -> int:
        return int(self.record.offset)

    @property
    def body(self) -> bytes | None:
        value: bytes | None = self.record.value
        return value

    @property
    def raw(self) -> bool:
        return self.tenure.raw

    def claim(self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False) -> Awaitable[bool]:
        """See Delivery."""
        return self.endings.claim(self, message_id, address, repeatable, again)

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        """See Delivery."""
        return self.endings.settle(self, reply)

    def release(self) -> Awaitable[bool]:
        """See Delivery."""
        return self.endings.release(self)

    def bury(
        self, reason: str, reply: Reply | None = None, *, details: str = "", keep: bool = True, claim: bool = False
    ) -> Awaitable[bool]:
        """See Delivery."""
        return self.endings.bury(self, reason, reply, details=details, keep=keep, claim=claim)


class Ending(Protocol):
    """Where deliveries end."""

    def claim(
        self, delivery: KafkaDelivery, message_id: UUID, address: str | None, repeatable: bool, again: bool
    ) -> Awaitable[bool]: ...

    def settle(self, delivery: KafkaDelivery, reply: Reply | None) -> Awaitable[bool]: ...

    def release(self, delivery: KafkaDelivery) -> Awaitable[bool]: ...

    def bury(
        self, delivery: KafkaDelivery, reason: str, reply: Reply | None, *, details: str, keep: bool, claim: bool
    ) -> Awaitable[bool]: ...
