"""The seam to a broker: what every adapter promises, and all that the rest of the house knows of brokers.

Three ways of delivery: *work* (one of many consumers, leased), *mail* (one reader: replies), *broadcast* (every listener).
Bytes only: a broker never sees a message, the codec never sees a broker. Everything here is bound to the event loop it was
connected in and is not thread-safe. Driver errors cross only as BrokerUnavailableError, with `from`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

__all__ = [
    "Broker",
    "Capabilities",
    "Consumer",
    "Delivery",
    "Facts",
    "Listener",
    "Mail",
    "Mailbox",
    "Outgoing",
    "Reply",
    "ServerRecord",
    "background",
]

T = TypeVar("T")

#: What stands beside a message: short ASCII names to text (fields of a Redis entry, headers of a Kafka record).
#: The adapter's own fields ("message" and those it adds) never show up here.
Facts = Mapping[str, str]


def background(work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """A task that belongs to a connection: it ends when its owner closes it, not when `asyncio.run` cancels what is left.

    `asyncio.run` ends by cancelling every task that the loop knows of, all at once; a connection whose tasks die there can
    neither flush nor close in order. This one is not among them, so whoever starts it must end it. It runs in an empty
    context: it outlives the call that happened to start it.
    """
    task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
    asyncio.tasks._unregister_task(task)  # a documented hook for task implementations (asyncio, "Extending")
    return task


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do; steers tests and warnings, never a branch above brokers/."""

    #: `Delivery.attempt` counts deliveries that ended in a crash.
    counts_attempts: bool = True
    #: Replies are kept for readers that come late or again (`Mailbox.collect`).
    keeps_replies: bool = True
    #: Reply and acknowledgement of `settle` happen in one step.
    atomic_settle: bool = True


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One call to publish."""

    message_id: UUID
    body: bytes
    facts: Facts


@dataclass(frozen=True, slots=True)
class Reply:
    """One outcome to hand over."""

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
    #: Plain facts: functions, schema hash, capacity, draining, host, pid.
    info: Mapping[str, object]


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

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        """Hand over the reply (None: there is nobody to answer) and remove the entry, as one step.

        The work is queued at once whether or not the answer is awaited, and repeated through reconnects until it is decided.
        The first reply for a message id is kept, a later one never replaces it. False: the lease was lost, nothing was written.
        """
        ...

    def release(self) -> Awaitable[bool]:
        """Give the entry back unstarted: another consumer gets it at once. False: the lease was lost."""
        ...

    def bury(self, reason: str, reply: Reply | None = None, *, keep: bool = True) -> Awaitable[bool]:
        """Like settle, and the original entry is kept as a dead letter with `reason`.

        `keep=False`: the reply only wakes its address. It is not the call's outcome, and the id stays free for that.
        """
        ...


class Consumer(Protocol):
    """One server's reading side of a queue."""

    async def take(self, most: int) -> Sequence[Delivery]:
        """Wait for work and return 1 to `most` deliveries; an empty sequence only after `stop`.

        Goes through reconnects by itself. Entries of consumers whose lease ran out come with a higher `attempt`.
        """
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
        """Make the queue's streams, topics and groups where they are missing. Idempotent; a call sent earlier is not lost."""
        ...

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """Queue one call for sending at once; the awaitable ends when the broker has it."""
        ...

    def consume(self, queue: str, *, consumer: str) -> Consumer:
        """A reader of the queue under a consumer name that is new for each start of a server."""
        ...

    async def open_mailbox(self, queue: str) -> Mailbox:
        """A reply address of this process, ready to receive when this returns."""
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
