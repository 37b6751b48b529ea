"""What a simulated broker holds: data only, so that it can be copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

from prpc.brokers.base import DeadLetter, ServerRecord

__all__ = ["Data", "Entry", "Given", "Lease", "Queue"]


class Lease(Enum):
    """What comes of renewing a lease."""

    KEPT = "kept"
    #: It had run out, and others have what it held.
    LOST = "lost"
    #: The queue is being shared out anew: who wants a share must say so.
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Entry:
    """One call in a queue; never changed."""

    number: int
    body: bytes | None
    facts: Mapping[str, str]
    raw: bool
    born: float
    #: None where a foreign program wrote it.
    message_id: UUID | None


@dataclass(frozen=True, slots=True)
class Given:
    """One delivery of an entry to a consumer."""

    entry: Entry
    consumer: str
    attempt: int
    admitted: bool

    #: Tells it from every other delivery.
    name: str

    @property
    def key(self) -> tuple[int, int, str]:
        """What the broker knows it by."""
        return self.entry.number, self.attempt, self.consumer


@dataclass(slots=True)
class Queue:
    """One queue."""

    waiting: deque[int] = field(default_factory=deque)
    raw_waiting: deque[int] = field(default_factory=deque)
    entries: dict[int, Entry] = field(default_factory=dict)
    #: Entry -> how often it was given out and not given back.
    attempts: dict[int, int] = field(default_factory=dict)
    #: Entry -> consumer, and the name of its delivery.
    holders: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    #: Entries that may run.
    admitted: set[int] = field(default_factory=set)
    #: Consumer -> until when its lease lasts.
    leases: dict[str, float] = field(default_factory=dict)
    #: Message id -> the entry that may run, and until when that is remembered.
    known: dict[UUID, tuple[int, float]] = field(default_factory=dict)
    #: Key of a reply -> addresses that wait for it besides its own caller.
    others: dict[tuple[UUID, bool], list[str]] = field(default_factory=dict)
    kept: dict[tuple[UUID, bool], tuple[bytes, float]] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    servers: dict[str, tuple[ServerRecord, float, float]] = field(default_factory=dict)
    #: Window of doubles in seconds, and bound of the length; None until a server sets them.
    limits: tuple[float, int] | None = None

    def copy(self) -> Queue:
        values = {name: getattr(self, name) for name in self.__slots__}
        new = Queue(**{name: value.copy() if hasattr(value, "copy") else value for name, value in values.items()})
        new.others = {key: list(addresses) for key, addresses in self.others.items()}
        return new


@dataclass(slots=True)
class Data:
    """Everything that a broker writes to its disk."""

    queues: dict[str, Queue] = field(default_factory=dict)
    #: Answers to requests that are repeated until they are decided.
    answers: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> Data:
        return Data({name: queue.copy() for name, queue in self.queues.items()}, dict(self.answers))
