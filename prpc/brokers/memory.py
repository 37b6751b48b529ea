"""The memory broker: a real one inside one process, for tests and for trying things out.

Brokers of one URL (`memory://name`) share their queues, from any thread and event loop of the process: a client's loop
thread and a server's loop talk to each other through it. What stands in the queues lives as long as one broker of that
URL that was not closed; other processes see nothing of it. Leases, take-over, kept replies with expiry, dead letters and
announcements behave as on the other brokers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from prpc.brokers.awaiting import answered
from prpc.brokers.base import (
    Capabilities,
    DeadLetter,
    Delivery,
    Facts,
    Mail,
    Outgoing,
    QueueState,
    Reply,
    ServerRecord,
    queue_full,
)
from prpc.brokers.memory_bell import Bell
from prpc.brokers.memory_ids import Limits
from prpc.brokers.memory_queue import Entry, Hold, Inbox
from prpc.brokers.memory_space import Space, space_of
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["MemoryBroker"]

T = TypeVar("T")
P = TypeVar("P", "_Consumer", "_Mailbox", "_Listener")


@dataclass(slots=True, eq=False)
class _Delivery:
    """One entry in the hands of one consumer."""

    _space: Space
    _queue: str
    _hold: Hold
    _kept_for: float
    _limits: Limits
    _letters_kept: int
    age: float

    @property
    def attempt(self) -> int:
        return self._hold.attempt

    @property
    def body(self) -> bytes | None:
        return self._hold.entry.body

    @property
    def facts(self) -> Facts:
        return self._hold.entry.facts

    @property
    def raw(self) -> bool:
        return self._hold.entry.raw

    @property
    def admitted(self) -> bool:
        return self._hold.entry.admitted

    @property
    def lost(self) -> bool:
        return self._hold.entry.owner != self._hold.consumer or self._hold.entry.attempt != self._hold.attempt

    def claim(self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False) -> Awaitable[bool]:
        return answered(again or self._space.claim(self._queue, self._hold, message_id, address, self._limits))

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        return answered(self._space.finish(self._queue, self._hold, reply, self._kept_for))

    def release(self) -> Awaitable[bool]:
        return answered(self._space.release(self._queue, self._hold))

    def bury(
        self, reason: str, reply: Reply | None = None, *, details: str = "", keep: bool = True, claim: bool = False
    ) -> Awaitable[bool]:
        most, seconds = self._letters_kept, self._kept_for if keep else None
        limits = self._limits if claim else None
        return answered(
            self._space.bury(self._queue, self._hold, reason, reply, seconds, details=details, most=most, claim=limits)
        )


def _limits(settings: Settings) -> Limits:
    return Limits(settings.duplicate_window, settings.max_queue_length)


class _Consumer:
    """Reads one queue under a lease that it renews from its own loop."""

    def __init__(self, space: Space, queue: str, consumer: str, settings: Settings) -> None:
        self._space, self._queue, self._name, self._settings = space, queue, consumer, settings
        self._bell = Bell()
        self._stopped = False
        self._closed = False
        self._renewal: asyncio.TimerHandle | None = None
        self._tell_lost: Callable[[], object] = lambda: None

    async def open(self) -> None:
        """See Consumer."""

    async def take(self, most: int) -> Sequence[Delivery]:
        """See Consumer."""
        if self._renewal is None and not self._stopped:
            self._space.enter(self._queue, self._bell)
            self._space.take(self._queue, self._name, 0, self._settings.redis_recover)
            self._plan_renewal()
        while not self._stopped:
            self._bell.clear()
            entries, seconds = self._space.take(self._queue, self._name, most, self._settings.redis_recover)
            if entries:
                return [self._deliver(entry) for entry in entries]
            await self._bell.wait(seconds)
        return ()

    def take_lost(self) -> Sequence[Delivery]:
        """See Consumer."""
        entries = self._space.take_lost(self._queue, self._name, self._settings.redis_recover)
        return [self._deliver(entry) for entry in entries]

    def on_lost(self, tell: Callable[[], object]) -> None:
        """See Consumer."""
        self._tell_lost = tell

    def _deliver(self, entry: Entry) -> Delivery:
        kept_for = float(self._settings.redis_expire)
        age = self._space.age(entry)
        hold = Hold(self._name, entry, entry.attempt)
        return _Delivery(self._space, self._queue, hold, kept_for, _limits(self._settings), self._settings.dead_letters_kept, age)

    def _plan_renewal(self) -> None:
        self._renewal = asyncio.get_running_loop().call_later(self._settings.redis_heartbeat, self._renew)

    def _renew(self) -> None:
        self._space.renew(self._queue, self._name, self._settings.redis_recover)
        if self._space.has_lost(self._queue):
            self._tell_lost()
        self._plan_renewal()

    async def stop(self) -> None:
        """See Consumer."""
        self._stopped = True
        self._bell.ring()

    async def close(self) -> None:
        """See Consumer."""
        await self.stop()
        if self._renewal is not None:
            self._renewal.cancel()
        if not self._closed:
            self._closed = True
            self._space.leave(self._queue, self._name, self._bell)


class _Mailbox:
    """One client's reply address."""

    def __init__(self, space: Space, queue: str) -> None:
        self._space, self._queue, self._names = space, queue, QueueNames(queue)
        self.address, self._inbox = space.open_mailbox(queue)

    async def receive(self) -> Mail:
        """See Mailbox."""
        return Mail(await _drain(self._space, self._inbox))

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """See Mailbox."""
        return self._space.collect((i, self._names.feedback(i)) for i in message_ids)

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """See Mailbox."""
        self._space.forget(self._names.feedback(i) for i in message_ids)

    async def close(self) -> None:
        """See Mailbox."""
        self._space.close_mailbox(self._queue, self.address)


class _Listener:
    """One server's ear for broadcasts."""

    def __init__(self, space: Space, queue: str) -> None:
        self._space, self._queue = space, queue
        self._inbox = space.listen(queue)

    async def receive(self) -> Sequence[bytes]:
        """See Listener."""
        return await _drain(self._space, self._inbox)

    async def close(self) -> None:
        """See Listener."""
        self._space.unlisten(self._queue, self._inbox)


class _DeadLetters:
    """What was given up on in one queue."""

    def __init__(self, space: Space, queue: str) -> None:
        self._space, self._queue = space, queue

    async def count(self) -> int:
        """See DeadLetters."""
        return len(self._space.dead_letters(self._queue))

    async def read(self) -> AsyncIterator[DeadLetter]:
        """See DeadLetters."""
        for letter in self._space.dead_letters(self._queue):
            yield letter

    async def get(self, letter_id: str) -> DeadLetter | None:
        """See DeadLetters."""
        return next((letter for letter in self._space.dead_letters(self._queue) if letter.id == letter_id), None)

    async def requeue(self, letter_id: str) -> bool:
        """See DeadLetters."""
        return self._space.take_letter(self._queue, letter_id, back=True)

    async def drop(self, letter_id: str) -> bool:
        """See DeadLetters."""
        return self._space.take_letter(self._queue, letter_id, back=False)


async def _drain(space: Space, inbox: Inbox) -> Sequence[bytes]:
    while True:
        inbox.bell.clear()
        bodies = space.drain(inbox)
        if bodies:
            return bodies
        await inbox.bell.wait()


class MemoryBroker:
    """See prpc.brokers.base.Broker."""

    capabilities = Capabilities()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: Space | None = space_of(settings.url_broker)
        self._parts: list[_Consumer | _Mailbox | _Listener] = []

    @property
    def _space(self) -> Space:
        if self._held is None:
            raise BrokerUnavailableError("the memory broker was closed", url=self._settings.url_broker)
        return self._held

    async def connect(self) -> None:
        """See Broker. A closed one can be connected again."""
        self._held = self._held or space_of(self._settings.url_broker)

    async def close(self) -> None:
        """See Broker."""
        parts, self._parts = self._parts, []
        for part in parts:
            await part.close()
        self._held = None

    async def ping(self) -> float:
        """See Broker."""
        start = time.perf_counter()
        self._space.touch()
        return time.perf_counter() - start

    def now(self) -> float:
        """See Broker."""
        return self._space.now()

    async def declare(self, queue: str) -> None:
        """See Broker."""
        self._space.declare(queue, _limits(self._settings))

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """See Broker."""
        length = self._space.admit(queue, call, _limits(self._settings))
        if length is None:
            return answered(None)
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(queue_full(queue, length))
        refused.exception()  # whoever does not await it has nothing to be told
        return refused

    def put_raw(self, queue: str, body: bytes | None, facts: Facts | None = None, *, raw: bool = True) -> None:
        """Add an entry as a program in another language would: to the raw queue, or one without a message."""
        self._space.put(queue, body, facts or {}, raw=raw)

    def dead_letters(self, queue: str) -> _DeadLetters:
        """See Broker."""
        return _DeadLetters(self._space, queue)

    def consume(self, queue: str, *, consumer: str) -> _Consumer:
        """See Broker."""
        return self._keep(_Consumer(self._space, queue, consumer, self._settings))

    async def open_mailbox(self, queue: str) -> _Mailbox:
        """See Broker."""
        return self._keep(_Mailbox(self._space, queue))

    async def listen(self, queue: str) -> _Listener:
        """See Broker."""
        return self._keep(_Listener(self._space, queue))

    def _keep(self, part: P) -> P:
        self._parts.append(part)
        return part

    def post(self, queue: str, address: str, body: bytes, *, message_id: UUID) -> Awaitable[None]:
        """See Broker."""
        self._space.post(queue, address, body)
        return answered(None)

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        """See Broker."""
        self._space.broadcast(queue, body)
        return answered(None)

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        """See Broker."""
        self._space.announce(queue, record, ttl)

    async def withdraw(self, queue: str, instance: str) -> None:
        """See Broker."""
        self._space.withdraw(queue, instance)

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        """See Broker."""
        return self._space.servers(queue)

    async def state(self, queue: str) -> QueueState:
        """See Broker."""
        return self._space.state(queue)
