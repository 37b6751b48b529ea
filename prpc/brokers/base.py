"""The seam to a broker: what every adapter promises, and all that the rest of the house knows of brokers.

Three ways of delivery: *work* (one of many consumers, leased), *mail* (one reader: replies), *broadcast* (every listener).
Bytes only: a broker never sees a message, the codec never sees a broker. Everything here is bound to the event loop it was
connected in and is not thread-safe. Driver errors cross only as BrokerUnavailableError, with `from`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from uuid import UUID

from prpc.exceptions import QueueFullError

__all__ = [
    "Broker",
    "Capabilities",
    "Consumer",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "Facts",
    "Listener",
    "Mail",
    "Mailbox",
    "Outgoing",
    "QueueState",
    "Reply",
    "ServerRecord",
    "queue_full",
]

T = TypeVar("T")

#: What stands beside a message: short ASCII names to text (fields of a Redis entry, headers of a Kafka record).
#: The adapter's own fields ("message" and those it adds) never show up here.
Facts = Mapping[str, str]


def queue_full(queue: str, length: int) -> QueueFullError:
    """What `publish` raises for a queue at its bound."""
    text = f"queue {queue!r} is full: {length} calls wait or run in it; try later, or start more servers"
    return QueueFullError(text, queue=queue, length=length)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do; steers tests and warnings, never a branch above brokers/."""

    #: `Delivery.attempt` counts deliveries that ended in a crash.
    counts_attempts: bool = True
    #: Replies are kept for readers that come late or again (`Mailbox.collect`).
    keeps_replies: bool = True
    #: Reply and acknowledgement of `settle` happen in one step.
    atomic_settle: bool = True


# Not frozen, as of all that is made for every call: that costs three times as much.
@dataclass(slots=True)
class Outgoing:
    """One call to publish. Not to be changed."""

    message_id: UUID
    body: bytes
    facts: Facts
    #: Mailbox of the caller: woken where the id is known already and has its outcome, or when it has.
    address: str | None = None
    #: A further attempt of a call that may run twice: added although its id is known, unless its outcome is there.
    again: bool = False
    #: May be told, in place of the awaitable, of an error that is this call's alone (a full queue). The awaitable may then be
    #: one for all the calls of a tick.
    refused: Callable[[Exception], object] | None = None


@dataclass(slots=True)
class Reply:
    """One outcome to hand over. Not to be changed."""

    message_id: UUID
    #: The whole text, kept for whoever asks by id.
    body: bytes
    #: Mailbox of the caller; None where it named none.
    address: str | None = None
    #: A shorter form for the mailbox; None means the body itself.
    wake: bytes | None = None
    #: In the plain JSON dialect: kept under the raw name.
    raw: bool = False


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What one running server says of itself."""

    instance: str
    #: Plain facts: functions with the hashes of their signatures, hash over all, capacity, draining, host, pid, what runs.
    info: Mapping[str, object]
    #: Seconds since it said so, by the broker's clock; filled in by `Broker.servers`.
    age: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment, both dialects together."""

    #: Entries that no server has taken.
    waiting: int
    #: Entries in the hands of servers, also of lost ones.
    taken: int
    #: Seconds that the entry waits which is taken next, by the broker's clock; None where nothing waits.
    next_waits: float | None
    #: Dead letters.
    dead: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that was given up on, with everything that stood in it."""

    #: Name of the letter among those of its queue.
    id: str
    #: One word: why it was given up.
    reason: str
    #: For a person: the failure and its traceback where there is one, else empty.
    details: str
    #: Whether the entry stood in the queue of plain JSON calls.
    raw: bool
    #: Id that the entry had in its queue.
    entry: str
    #: Deliveries of the entry; 0 where that is not known.
    attempts: int
    #: When the broker first took the entry, in seconds since the epoch by the broker's clock; 0 where that is not known.
    sent: float
    #: When it was given up, on the same scale.
    buried: float
    #: Every field of the entry as it was sent, in its order; those that the adapter itself adds are left out.
    fields: Sequence[tuple[bytes, bytes]]

    @property
    def body(self) -> bytes | None:
        """The message's bytes; None where the entry holds none."""
        return dict(self.fields).get(b"message")


@dataclass(frozen=True, slots=True)
class Mail:
    """What a mailbox received in one go."""

    bodies: Sequence[bytes]
    #: Wake-ups before these may have been missed (a reconnect): collect what is still waited for.
    gap: bool = False


class Delivery(Protocol):
    """One entry in the hands of one consumer, under a lease. Every delivery ends in exactly one of settle, release, bury."""

    @property
    def body(self) -> bytes | None:
        """The message's bytes; None where the entry holds none."""
        ...

    @property
    def facts(self) -> Facts: ...

    @property
    def attempt(self) -> int:
        """1 for the first delivery; more where an earlier consumer lost its lease on it."""
        ...

    @property
    def raw(self) -> bool:
        """Whether the entry stood in the queue of plain JSON calls."""
        ...

    @property
    def age(self) -> float:
        """Seconds between the broker's taking the entry and its delivery, by the broker's clock alone."""
        ...

    @property
    def admitted(self) -> bool:
        """Whether the broker knows the entry for the first one of its message id; any other must be claimed before it runs."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the lease is known here to be lost: whoever has the entry now decides, and settling would be refused."""
        ...

    def claim(self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False) -> Awaitable[bool]:
        """Ask whether the entry may run: whether no other entry of this id was admitted or claimed within the window.

        `repeatable`: running it twice does no harm, so that nothing needs to be written down before it starts. `again`: its
        caller sent it once more because it may run twice, so no other entry of its id stands in its way.

        False: it must not, and this delivery has ended. Its caller (`address`, if it named one) gets the first outcome, at
        once where it is kept, else when it is there. Everything that is asked in one tick is one round trip.
        """
        ...

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        """Hand over the reply (None: there is nobody to answer) and remove the entry, as one step.

        The work is queued at once whether or not the answer is awaited, and repeated through reconnects until it is decided.
        The first reply for a message id is kept, a later one never replaces it. False: the lease was lost, nothing was written.
        The awaitable may be the same one for all that is settled in a tick, under one lease: it is not to be cancelled.
        """
        ...

    def release(self) -> Awaitable[bool]:
        """Give the entry back unstarted: another consumer gets it at once. False: the lease was lost."""
        ...

    def bury(
        self, reason: str, reply: Reply | None = None, *, details: str = "", keep: bool = True, claim: bool = False
    ) -> Awaitable[bool]:
        """Like settle, and the original entry is kept as a dead letter with `reason` and `details`.

        `keep=False`: the reply only wakes its address. It is not the call's outcome, and the id stays free for that.
        `claim=True`, for an entry that nobody claimed: the reply counts only where `claim` would have let the entry run. Where
        it would not, the caller gets the first outcome.
        """
        ...


class Consumer(Protocol):
    """One server's reading side of a queue."""

    async def open(self) -> None:
        """Be ready to take: with a share of the queue, where the broker gives out shares. Raises BrokerUnavailableError."""
        ...

    async def take(self, most: int) -> Sequence[Delivery]:
        """Wait for work and return 1 to `most` deliveries; an empty sequence only after `stop`.

        Goes through reconnects by itself. Entries of consumers whose lease ran out come with a higher `attempt`.
        """
        ...

    def take_lost(self) -> Sequence[Delivery]:
        """At once what was taken over from consumers whose lease ran out and waits here: callers must not wait for room."""
        ...

    def on_lost(self, tell: Callable[[], object]) -> None:
        """Have `tell` called, soon, whenever there is something for `take_lost`."""
        ...

    async def stop(self) -> None:
        """End `take` within moments; whatever the broker handed over meanwhile is given back. Idempotent."""
        ...

    async def close(self) -> None:
        """Stop, give up the lease and leave. Deliveries must have ended before. Idempotent."""
        ...


class Mailbox(Protocol):
    """One client's own reply address: any number of calls share it."""

    @property
    def address(self) -> str:
        """Opaque text that travels with each call."""
        ...

    async def receive(self) -> Mail:
        """Wait for replies. Goes through reconnects by itself and says so with `gap`."""
        ...

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """The kept replies of those of the ids that have one."""
        ...

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """Remove kept replies that were delivered; queued, batched, no answer."""
        ...

    async def close(self) -> None:
        """Flush what is queued and leave. Idempotent."""
        ...


class Listener(Protocol):
    """One server's ear for broadcasts; without history."""

    async def receive(self) -> Sequence[bytes]:
        """Wait for broadcasts; goes through reconnects by itself."""
        ...

    async def close(self) -> None: ...


class DeadLetters(Protocol):
    """The dead letters of one queue, for a person's decision. The broker keeps about so many as the settings say."""

    async def count(self) -> int:
        """How many there are."""
        ...

    def read(self) -> AsyncIterator[DeadLetter]:
        """Every letter, oldest first, read in small portions; what is buried meanwhile may come along."""
        ...

    async def get(self, letter_id: str) -> DeadLetter | None:
        """The letter of this id; None where there is none, or the id is no id."""
        ...

    async def requeue(self, letter_id: str) -> bool:
        """Put the entry back to the end of its queue and remove the letter, as one step. False: there is no such letter.

        The entry counts as sent anew: its age and its deliveries begin again, and every field comes back byte for byte but
        `own`, by which a server tells one entry from its double. Raises EncodeError where it cannot be put back in one step.
        """
        ...

    async def drop(self, letter_id: str) -> bool:
        """Remove the letter for ever. False: there is no such letter."""
        ...


class Broker(Protocol):
    """A connection to one broker. Made by `prpc.brokers.create_broker`."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def connect(self) -> None:
        """One round trip that proves URL and password. Raises BrokerUnavailableError within the connect timeout."""
        ...

    async def close(self) -> None:
        """Flush, then close every connection. Idempotent."""
        ...

    async def ping(self) -> float:
        """Seconds of one round trip, for readiness."""
        ...

    def now(self) -> float:
        """Seconds since 1970 by the broker's clock, as far as it is known without asking."""
        ...

    async def declare(self, queue: str) -> None:
        """Make the queue's streams, topics and groups where they are missing. Idempotent; a call sent earlier is not lost.

        For servers: this connection's window of doubles and bound of the queue hold for every caller from now on.
        """
        ...

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """Queue one call for sending at once; the awaitable ends when the broker has it.

        An id that the queue knows already (within the window) is not added again: its caller gets the first outcome. A
        further attempt (`Outgoing.again`) is added while there is no outcome, as an entry that must be claimed.
        Raises QueueFullError where the queue is at its bound. See `Outgoing.refused`; the awaitable is not to be cancelled.
        """
        ...

    def consume(self, queue: str, *, consumer: str) -> Consumer:
        """A reader of the queue under a consumer name that is new for each start of a server."""
        ...

    async def open_mailbox(self, queue: str) -> Mailbox:
        """A reply address of this process, ready to receive when this returns."""
        ...

    def post(self, queue: str, address: str, body: bytes, *, message_id: UUID) -> Awaitable[None]:
        """Send one piece of mail to one mailbox of the queue; `message_id`: the call that it is about.

        Queued at once, whether or not the awaitable is awaited; that ends when the broker has it. Not kept: it is lost where
        nobody reads the mailbox, also as its connection is cut, and it never takes the place of an outcome. What one
        connection posts arrives in the order of sending, and so do its posts and the replies of its deliveries among each
        other; where a connection is lost or the broker refuses for a while, mail may be lost, come twice or come late.
        An address that is none is a mailbox that nobody reads. Raises BrokerUnavailableError.
        """
        ...

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        """Send to every listener of the queue."""
        ...

    async def listen(self, queue: str) -> Listener:
        """Hear broadcasts from the moment this returns."""
        ...

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        """Say that a server is here for the next `ttl` seconds; repeated by its owner."""
        ...

    async def withdraw(self, queue: str, instance: str) -> None:
        """Take the announcement back."""
        ...

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        """The servers whose announcement has not run out."""
        ...

    def dead_letters(self, queue: str) -> DeadLetters:
        """What was given up on in this queue."""
        ...

    async def state(self, queue: str) -> QueueState:
        """How long the queue is, for operators."""
        ...
