"""What the memory brokers of one URL share: queues, leases, kept replies, mailboxes. Thread-safe, no event loop of its own.

Every public method of `Space` takes the lock once and never waits while it holds it. Whoever waits does so on a `Bell`,
which may be rung from any thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakValueDictionary

from prpc.brokers.base import Facts, Reply, ServerRecord
from prpc.names import QueueNames

__all__ = ["Bell", "DeadLetter", "Entry", "Hold", "Inbox", "Space", "space_of"]

#: Dead letters that a queue keeps; the oldest go first.
DEAD_LETTERS_KEPT = 1000


class Bell:
    """Wakes one waiting coroutine from any thread or loop. Made in the loop that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._event.set()
        else:
            with suppress(RuntimeError):  # the loop was closed, nobody waits there
                self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """Call before looking at the state, so that a ring in between is not lost."""
        self._event.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it rings, or for so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return


@dataclass(slots=True, eq=False)
class Entry:
    """One call in a queue."""

    body: bytes | None
    facts: Facts
    raw: bool
    born: float  # monotonic seconds
    attempt: int = 0
    #: Consumer that holds it; None while it waits, and after it ended.
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """One delivery of an entry: an older one of the same entry counts no more."""

    consumer: str
    entry: Entry
    attempt: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that was given up on."""

    reason: str
    body: bytes | None
    facts: Facts
    raw: bool


@dataclass(slots=True, eq=False)
class Inbox:
    """Bodies on their way to one reader."""

    bell: Bell
    bodies: list[bytes] = field(default_factory=list)

    def put(self, body: bytes) -> None:
        self.bodies.append(body)
        self.bell.ring()


@dataclass(slots=True)
class _Lease:
    until: float  # monotonic seconds
    entries: set[Entry] = field(default_factory=set)


@dataclass(slots=True)
class _Queue:
    names: QueueNames
    calls: deque[Entry] = field(default_factory=deque)
    raw_calls: deque[Entry] = field(default_factory=deque)
    leases: dict[str, _Lease] = field(default_factory=dict)
    takers: set[Bell] = field(default_factory=set)
    mailboxes: dict[str, Inbox] = field(default_factory=dict)
    listeners: set[Inbox] = field(default_factory=set)
    servers: dict[str, tuple[ServerRecord, float]] = field(default_factory=dict)
    dead: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=DEAD_LETTERS_KEPT))

    def ring(self) -> None:
        for bell in self.takers:
            bell.ring()

    def put(self, entry: Entry, *, first: bool = False) -> None:
        line = self.raw_calls if entry.raw else self.calls
        if first:
            line.appendleft(entry)
        else:
            line.append(entry)
        self.ring()


class Space:
    """The state behind one memory:// URL."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._queues: dict[str, _Queue] = {}
        #: Kept replies in the order in which they came, so that the expired ones stand in front.
        self._kept: dict[str, tuple[bytes, float]] = {}

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(QueueNames(name))
        return queue

    # calls

    def put(self, queue: str, body: bytes | None, facts: Facts, *, raw: bool = False) -> None:
        """Add one entry; what stands in it is not looked at."""
        with self._lock:
            self._queue(queue).put(Entry(body, dict(facts), raw, self._clock()))

    def touch(self) -> None:
        """Wait for whoever works on the state."""
        with self._lock:
            return

    def enter(self, queue: str, bell: Bell) -> None:
        """Have the bell rung when there is work."""
        with self._lock:
            self._queue(queue).takers.add(bell)

    def leave(self, queue: str, consumer: str, bell: Bell) -> None:
        """Give up the lease; entries that have not ended wait until it would have run out."""
        with self._lock:
            state = self._queue(queue)
            state.takers.discard(bell)
            lease = state.leases.get(consumer)
            if lease is not None and not lease.entries:
                del state.leases[consumer]

    def renew(self, queue: str, consumer: str, seconds: float) -> None:
        """Make the lease last `seconds` from now."""
        with self._lock:
            lease = self._queue(queue).leases.setdefault(consumer, _Lease(0.0))
            lease.until = self._clock() + seconds

    def take(self, queue: str, consumer: str, most: int, seconds: float) -> tuple[list[Entry], float | None]:
        """Up to `most` entries, and the seconds until the next lease of somebody else runs out (None: there is none)."""
        with self._lock:
            self.renew(queue, consumer, seconds)
            state, now = self._queue(queue), self._clock()
            mine = state.leases[consumer]
            self._take_over(state, now)
            taken: list[Entry] = []
            for line in (state.calls, state.raw_calls):
                while line and len(taken) < most:
                    taken.append(line.popleft())
            for entry in taken:
                entry.owner = consumer
                entry.attempt += 1
            mine.entries.update(taken)
            others = [lease.until for name, lease in state.leases.items() if name != consumer and lease.entries]
            return taken, max(0.0, min(others) - now) if others else None

    def _take_over(self, state: _Queue, now: float) -> None:
        for name in [n for n, lease in state.leases.items() if lease.until < now]:
            lease = state.leases.pop(name)
            for entry in sorted(lease.entries, key=lambda e: e.born, reverse=True):
                entry.owner = None
                state.put(entry, first=True)

    def finish(self, queue: str, hold: Hold, reply: Reply | None, seconds: float | None) -> bool:
        """Keep the reply for `seconds` (None: not at all), wake its reader and drop the entry.

        False: it is not this consumer's any more.
        """
        with self._lock:
            state = self._queue(queue)
            if not self._drop(state, hold):
                return False
            if reply is not None:
                self._answer(state, reply, seconds)
            return True

    def _drop(self, state: _Queue, hold: Hold) -> bool:
        entry, lease = hold.entry, state.leases.get(hold.consumer)
        if lease is None or entry.owner != hold.consumer or entry.attempt != hold.attempt:
            return False
        entry.owner = None
        lease.entries.discard(entry)
        return True

    def _answer(self, state: _Queue, reply: Reply, seconds: float | None) -> None:
        now = self._clock()
        self._forget_expired(now)
        key = state.names.raw_feedback(reply.message_id) if reply.raw else state.names.feedback(reply.message_id)
        earlier = self._kept_reply(key, now) if seconds is not None else None
        if earlier is None and seconds is not None:
            self._kept.pop(key, None)
            self._kept[key] = (reply.body, now + seconds)
        inbox = state.mailboxes.get(reply.address) if reply.address is not None else None
        if inbox is not None and earlier is not None:
            inbox.put(earlier)
        elif inbox is not None:
            inbox.put(reply.body if reply.wake is None else reply.wake)

    def _kept_reply(self, key: str, now: float) -> bytes | None:
        body, until = self._kept.get(key, (None, now))
        return body if until > now else None

    def _forget_expired(self, now: float) -> None:
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key][1] > now:
                return
            del self._kept[key]

    def release(self, queue: str, hold: Hold) -> bool:
        """Put the entry back where it stood: in front."""
        with self._lock:
            state = self._queue(queue)
            if not self._drop(state, hold):
                return False
            hold.entry.attempt -= 1
            state.put(hold.entry, first=True)
            return True

    def bury(self, queue: str, hold: Hold, reason: str, reply: Reply | None, seconds: float | None) -> bool:
        """Like finish, and keep the entry as a dead letter."""
        with self._lock:
            if not self.finish(queue, hold, reply, seconds):
                return False
            entry = hold.entry
            self._queue(queue).dead.append(DeadLetter(reason, entry.body, entry.facts, entry.raw))
            return True

    def size(self, queue: str) -> int:
        """Calls that wait or run, and replies that are kept for any queue."""
        with self._lock:
            state = self._queue(queue)
            held = sum(len(lease.entries) for lease in state.leases.values())
            return len(state.calls) + len(state.raw_calls) + held + len(self._kept)

    def dead_letters(self, queue: str) -> Sequence[DeadLetter]:
        with self._lock:
            return list(self._queue(queue).dead)

    # replies

    def open_mailbox(self, queue: str) -> tuple[str, Inbox]:
        inbox, address = Inbox(Bell()), uuid.uuid4().hex
        with self._lock:
            self._queue(queue).mailboxes[address] = inbox
        return address, inbox

    def close_mailbox(self, queue: str, address: str) -> None:
        with self._lock:
            self._queue(queue).mailboxes.pop(address, None)

    def collect(self, keys: Iterable[tuple[UUID, str]]) -> dict[UUID, bytes]:
        with self._lock:
            now = self._clock()
            found = ((i, self._kept_reply(key, now)) for i, key in keys)
            return {i: body for i, body in found if body is not None}

    def forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)

    def drain(self, inbox: Inbox) -> list[bytes]:
        """What has come since the last time."""
        with self._lock:
            bodies, inbox.bodies = inbox.bodies, []
            return bodies

    # broadcasts and announcements

    def broadcast(self, queue: str, body: bytes) -> None:
        with self._lock:
            for inbox in self._queue(queue).listeners:
                inbox.put(body)

    def listen(self, queue: str) -> Inbox:
        inbox = Inbox(Bell())
        with self._lock:
            self._queue(queue).listeners.add(inbox)
        return inbox

    def unlisten(self, queue: str, inbox: Inbox) -> None:
        with self._lock:
            self._queue(queue).listeners.discard(inbox)

    def announce(self, queue: str, record: ServerRecord, seconds: float) -> None:
        with self._lock:
            self._queue(queue).servers[record.instance] = (record, self._clock() + seconds)

    def withdraw(self, queue: str, instance: str) -> None:
        with self._lock:
            self._queue(queue).servers.pop(instance, None)

    def servers(self, queue: str) -> list[ServerRecord]:
        with self._lock:
            state, now = self._queue(queue), self._clock()
            state.servers = {k: v for k, v in state.servers.items() if v[1] > now}
            return [record for record, _ in state.servers.values()]


_spaces: WeakValueDictionary[str, Space] = WeakValueDictionary()
_spaces_lock = threading.Lock()


def space_of(url: str) -> Space:
    """The space of this URL. When the last one that holds it lets go, its calls and replies are gone."""
    with _spaces_lock:
        space = _spaces.get(url)
        if space is None:
            space = _spaces[url] = Space()
        return space
