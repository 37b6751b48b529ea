"""What the memory brokers of one URL share: queues, leases, kept replies, mailboxes. Thread-safe, no event loop of its own.

Every public method of `Space` takes the lock once and never waits while it holds it. Whoever waits does so on a `Bell`,
which may be rung from any thread.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from uuid import UUID
from weakref import WeakValueDictionary

from prpc.brokers.base import DeadLetter, Facts, Outgoing, QueueState, Reply, ServerRecord
from prpc.brokers.memory_bell import Bell
from prpc.brokers.memory_ids import Limits
from prpc.brokers.memory_queue import Entry, Hold, Inbox, Lease, Queue
from prpc.names import QueueNames

__all__ = ["Space", "space_of"]


class Space:
    """The state behind one memory:// URL."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = self._call_clock = clock
        #: Seconds since 1970.
        self.now: Callable[[], float] = time.time
        self._lock = threading.RLock()
        self._queues: dict[str, Queue] = {}
        #: Dead letters so far.
        self._letters = 0
        #: Kept replies in the order in which they came, so that the expired ones stand in front.
        self._kept: dict[str, tuple[bytes, float]] = {}

    def _queue(self, name: str) -> Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(QueueNames(name))
        return queue

    def count_calls_by(self, clock: Callable[[], float]) -> None:
        """Let calls age by this clock (seconds); leases, kept replies and announcements stay with the space's own."""
        start = time.time() - clock()
        self._call_clock, self.now = clock, lambda: start + clock()

    # calls

    def age(self, entry: Entry) -> float:
        """Seconds since the call came."""
        return self._call_clock() - entry.born

    def put(self, queue: str, body: bytes | None, facts: Facts, *, raw: bool = False) -> None:
        """Add one entry; what stands in it is not looked at."""
        with self._lock:
            self._queue(queue).put(Entry(body, dict(facts), raw, self._call_clock()))

    def declare(self, queue: str, limits: Limits) -> None:
        """Set the limits for every caller of the queue."""
        with self._lock:
            self._queue(queue).limits = limits

    def admit(self, queue: str, call: Outgoing, limits: Limits) -> int | None:
        """Add a call, unless its id is known: then its caller gets the first outcome. `limits` hold where no server set any.

        None, or the length of the queue where it is full.
        """
        with self._lock:
            state, now = self._queue(queue), self._clock()
            limits = state.limits or limits
            key, known = state.names.feedback(call.message_id), state.known.owner(call.message_id, now) is not None
            if known and not (call.again and self._kept_reply(key, now) is None):
                self._first_outcome(state, key, call.address)
                return None
            length = len(state.calls) + sum(not e.raw for lease in state.leases.values() for e in lease.entries)
            if limits.length and length >= limits.length:
                return length
            entry = Entry(call.body, dict(call.facts), False, self._call_clock(), admitted=not known)
            if not known:
                state.known.remember(call.message_id, entry.number, now + limits.window)
            state.put(entry)
            return None

    def claim(self, queue: str, hold: Hold, message_id: UUID, address: str | None, limits: Limits) -> bool:
        """Whether the entry may run. Where it may not it has ended, and its caller gets the first outcome."""
        with self._lock:
            state, entry = self._queue(queue), hold.entry
            if entry.owner != hold.consumer or entry.attempt != hold.attempt:
                return False
            may_run = self._may_run(state, entry, message_id, limits)
            if not may_run:
                self._drop(state, hold)
                self._first_outcome(state, state.key(message_id, entry.raw), address)
            return may_run

    def _may_run(self, state: Queue, entry: Entry, message_id: UUID, limits: Limits) -> bool:
        now = self._clock()
        if not entry.admitted and state.known.owner(message_id, now) in (None, entry.number):
            state.known.remember(message_id, entry.number, now + (state.limits or limits).window)
            entry.admitted = True
        return entry.admitted

    def _first_outcome(self, state: Queue, key: str, address: str | None) -> None:
        """Wake a further caller with the kept reply, or note it for when it is there."""
        kept = self._kept_reply(key, self._clock())
        inbox = state.mailboxes.get(address) if address is not None else None
        if inbox is not None and kept is not None:
            inbox.put(kept)
        elif address is not None and inbox is not None:
            waiting = state.others.setdefault(key, [])
            if address not in waiting:
                waiting.append(address)

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
            lease = self._queue(queue).leases.setdefault(consumer, Lease(0.0))
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
            self._give(consumer, mine, taken)
            others = [lease.until for name, lease in state.leases.items() if name != consumer and lease.entries]
            return taken, max(0.0, min(others) - now) if others else None

    def take_lost(self, queue: str, consumer: str, seconds: float) -> list[Entry]:
        """What consumers held whose lease has run out, and nobody has taken since."""
        with self._lock:
            self.renew(queue, consumer, seconds)
            state = self._queue(queue)
            self._take_over(state, self._clock())
            lost = [entry for line in (state.calls, state.raw_calls) for entry in line if entry.lost]
            for entry in lost:
                (state.raw_calls if entry.raw else state.calls).remove(entry)
            self._give(consumer, state.leases[consumer], lost)
            return lost

    def has_lost(self, queue: str) -> bool:
        """Whether there is something for `take_lost`."""
        with self._lock:
            state = self._queue(queue)
            self._take_over(state, self._clock())
            return any(entry.lost for line in (state.calls, state.raw_calls) for entry in line)

    def _give(self, consumer: str, lease: Lease, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.owner, entry.lost = consumer, False
            entry.attempt += 1
        lease.entries.update(entries)

    def _take_over(self, state: Queue, now: float) -> None:
        for name in [n for n, lease in state.leases.items() if lease.until < now]:
            lease = state.leases.pop(name)
            for entry in sorted(lease.entries, key=lambda e: e.born, reverse=True):
                entry.owner, entry.lost = None, True
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

    def _drop(self, state: Queue, hold: Hold) -> bool:
        entry, lease = hold.entry, state.leases.get(hold.consumer)
        if lease is None or entry.owner != hold.consumer or entry.attempt != hold.attempt:
            return False
        entry.owner = None
        lease.entries.discard(entry)
        return True

    def _answer(self, state: Queue, reply: Reply, seconds: float | None) -> None:
        now = self._clock()
        self._forget_expired(now)
        key = state.key(reply.message_id, reply.raw)
        earlier = self._kept_reply(key, now) if seconds is not None else None
        if earlier is None and seconds is not None:
            self._kept.pop(key, None)
            self._kept[key] = (reply.body, now + seconds)
        inbox = state.mailboxes.get(reply.address) if reply.address is not None else None
        if inbox is not None and earlier is not None:
            inbox.put(earlier)
        elif inbox is not None:
            inbox.put(reply.body if reply.wake is None else reply.wake)
        for address in state.others.pop(key, ()):
            self._first_outcome(state, key, address)

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
        """Put the entry back behind those that wait."""
        with self._lock:
            state = self._queue(queue)
            if not self._drop(state, hold):
                return False
            hold.entry.attempt -= 1
            state.put(hold.entry)
            return True

    def bury(
        self,
        queue: str,
        hold: Hold,
        reason: str,
        reply: Reply | None,
        seconds: float | None,
        *,
        details: str = "",
        most: int = 1000,
        claim: Limits | None = None,
    ) -> bool:
        """Like finish, and keep the entry as a dead letter, `most` of them.

        `claim`: the entry was never claimed; where another one of its id may run, that one's outcome counts.
        """
        with self._lock:
            state, late = self._queue(queue), None
            if reply and claim and not self._may_run(state, hold.entry, reply.message_id, claim):
                reply, late = None, reply
            if not self.finish(queue, hold, reply, seconds):
                return False
            if late is not None:
                self._first_outcome(state, state.key(late.message_id, late.raw), late.address)
            self._letters += 1
            letter = self._letter(str(self._letters), hold, reason, details)
            state.dead[letter.id] = letter
            while len(state.dead) > most:
                del state.dead[next(iter(state.dead))]
            return True

    def _letter(self, id_: str, hold: Hold, reason: str, details: str) -> DeadLetter:
        entry, now = hold.entry, time.time()
        fields = [(name.encode(errors="replace"), text.encode(errors="replace")) for name, text in entry.facts.items()]
        if entry.body is not None:
            fields.insert(0, (b"message", entry.body))
        return DeadLetter(id_, reason, details, entry.raw, id_, hold.attempt, now - self.age(entry), now, fields)

    def size(self, queue: str) -> int:
        """Calls that wait or run, and replies that are kept for any queue."""
        with self._lock:
            state = self._queue(queue)
            held = sum(len(lease.entries) for lease in state.leases.values())
            return len(state.calls) + len(state.raw_calls) + held + len(self._kept)

    def state(self, queue: str) -> QueueState:
        """How long the queue is."""
        with self._lock:
            state = self._queue(queue)
            taken = sum(len(lease.entries) for lease in state.leases.values())
            ages = [self.age(line[0]) for line in (state.calls, state.raw_calls) if line]
            return QueueState(len(state.calls) + len(state.raw_calls), taken, max(ages, default=None), len(state.dead))

    def dead_letters(self, queue: str) -> Sequence[DeadLetter]:
        with self._lock:
            return list(self._queue(queue).dead.values())

    def take_letter(self, queue: str, letter_id: str, *, back: bool) -> bool:
        """Remove a dead letter; `back`: its entry goes to its queue as a new one, without the field `own`."""
        with self._lock:
            state = self._queue(queue)
            letter = state.dead.pop(letter_id, None)
            if letter is not None and back:
                facts = {name.decode(): text.decode() for name, text in letter.fields if name not in (b"message", b"own")}
                state.put(Entry(letter.body, facts, letter.raw, self._call_clock(), admitted=True))
            return letter is not None

    # replies

    def open_mailbox(self, queue: str) -> tuple[str, Inbox]:
        inbox, address = Inbox(Bell()), uuid.uuid4().hex
        with self._lock:
            self._queue(queue).mailboxes[address] = inbox
        return address, inbox

    def post(self, queue: str, address: str, body: bytes) -> None:
        with self._lock:
            inbox = self._queue(queue).mailboxes.get(address)
            if inbox is not None:
                inbox.put(body)

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
            now = self._clock()
            self._queue(queue).servers[record.instance] = (record, now, now + seconds)

    def withdraw(self, queue: str, instance: str) -> None:
        with self._lock:
            self._queue(queue).servers.pop(instance, None)

    def servers(self, queue: str) -> list[ServerRecord]:
        with self._lock:
            state, now = self._queue(queue), self._clock()
            state.servers = {k: v for k, v in state.servers.items() if v[2] > now}
            return [replace(record, age=now - made) for record, made, _ in state.servers.values()]


_spaces: WeakValueDictionary[str, Space] = WeakValueDictionary()
_spaces_lock = threading.Lock()


def space_of(url: str) -> Space:
    """The space of this URL. When the last one that holds it lets go, its calls and replies are gone."""
    with _spaces_lock:
        space = _spaces.get(url)
        if space is None:
            space = _spaces[url] = Space()
        return space
