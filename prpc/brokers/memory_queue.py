"""One queue of the memory broker: lines of entries, leases, mailboxes and what else belongs to it. Data, guarded by its space."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from uuid import UUID

from prpc.brokers.base import DeadLetter, Facts, ServerRecord
from prpc.brokers.memory_bell import Bell
from prpc.brokers.memory_ids import KnownIds, Limits
from prpc.names import QueueNames

__all__ = ["Entry", "Hold", "Inbox", "Lease", "Queue"]


@dataclass(slots=True, eq=False)
class Entry:
    """One call in a queue."""

    body: bytes | None
    facts: Facts
    raw: bool
    born: float  # seconds on the clock by which calls age
    attempt: int = 0
    #: Whether it was taken over and nobody has it yet.
    lost: bool = False
    #: Consumer that holds it; None while it waits, and after it ended.
    owner: str | None = None
    #: Whether it is the one of its message id that may run.
    admitted: bool = False
    #: Tells it from every other entry.
    number: int = field(default_factory=itertools.count().__next__)


@dataclass(frozen=True, slots=True)
class Hold:
    """One delivery of an entry: an older one of the same entry counts no more."""

    consumer: str
    entry: Entry
    attempt: int


@dataclass(slots=True, eq=False)
class Inbox:
    """Bodies on their way to one reader."""

    bell: Bell
    bodies: list[bytes] = field(default_factory=list)

    def put(self, body: bytes) -> None:
        """One more."""
        self.bodies.append(body)
        self.bell.ring()


@dataclass(slots=True)
class Lease:
    """What one consumer holds, and until when."""

    until: float  # monotonic seconds
    entries: set[Entry] = field(default_factory=set)


@dataclass(slots=True)
class Queue:
    """One queue. Whoever touches it holds the space's lock."""

    names: QueueNames
    calls: deque[Entry] = field(default_factory=deque)
    raw_calls: deque[Entry] = field(default_factory=deque)
    leases: dict[str, Lease] = field(default_factory=dict)
    takers: set[Bell] = field(default_factory=set)
    mailboxes: dict[str, Inbox] = field(default_factory=dict)
    listeners: set[Inbox] = field(default_factory=set)
    #: Instance -> its announcement, when it was made and when it runs out.
    servers: dict[str, tuple[ServerRecord, float, float]] = field(default_factory=dict)
    #: Dead letters by id, oldest first.
    dead: dict[str, DeadLetter] = field(default_factory=dict)

    limits: Limits | None = None
    known: KnownIds = field(default_factory=KnownIds)
    #: Addresses that wait for the outcome of another entry, by the key of its reply.
    others: dict[str, list[str]] = field(default_factory=dict)

    def ring(self) -> None:
        """Tell those who wait for work."""
        for bell in self.takers:
            bell.ring()

    def key(self, message_id: UUID, raw: bool) -> str:
        """Under which an outcome is kept."""
        return self.names.raw_feedback(message_id) if raw else self.names.feedback(message_id)

    def put(self, entry: Entry, *, first: bool = False) -> None:
        """To the end of its line, or to its start."""
        line = self.raw_calls if entry.raw else self.calls
        if first:
            line.appendleft(entry)
        else:
            line.append(entry)
        self.ring()
