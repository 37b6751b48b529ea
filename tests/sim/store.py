"""What a simulated broker holds, with the semantics of Redis Streams as the adapter uses them. Each method is one atomic script.

Data only, so that it can be copied: what a restarted broker has kept. What is bound to connections (mailboxes that are read,
reads that block) lives beside it and is gone with them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID
from zlib import crc32

from prpc.brokers.base import DeadLetter, Outgoing, QueueState, Reply, ServerRecord
from tests.sim.held import Data, Entry, Given, Lease, Queue

__all__ = ["Note", "Store"]

#: An error of PRPC's own, as a reply names it.
_NAMED = re.compile(rb'"prpc\.exceptions\.(\w+)"')
#: Writes an event of the ledger: kind and fields.
Note = Callable[..., None]


class Store:
    """See the module. `clock`: the broker's own, in seconds; `note` is told what happens."""

    #: Whether the outcome is kept for late readers, publishing tells doubles, and `settle` is all that ends an entry.
    keeps, admits, atomic = True, True, True
    #: Whether mail and broadcasts are logs, in which who comes back reads on.
    logs = False

    def __init__(self, clock: Callable[[], float], note: Note = lambda *_, **__: None) -> None:
        self.clock, self.note = clock, note
        self.data = Data()
        self._numbers = itertools.count(1)
        self._serials = itertools.count(1)
        self._servers: dict[str, str] = {}
        #: How often it has lost data.
        self._losses = 0
        #: Address -> what takes mail for it; queue -> what takes broadcasts.
        self.mailboxes: dict[str, list[Callable[[bytes], None]]] = {}
        #: Whether the mail that is sent now comes twice.
        self.doubled: Callable[[], bool] = lambda: False
        self._queue_of: dict[str, str] = {}
        self.listeners: dict[str, dict[Any, Callable[[bytes], None]]] = {}
        #: Reads that block, per queue, in their order.
        self.blocked: dict[str, dict[Any, Callable[[], None]]] = {}

    def queue(self, name: str) -> Queue:
        queue = self.data.queues.get(name)
        if queue is None:
            queue = self.data.queues[name] = Queue()
        return queue

    def once(self, token: str, work: Callable[[], Any]) -> Any:
        """Do the work of a request that may come again; the second time only its answer is given."""
        if token not in self.data.answers:
            self.data.answers[token] = work()
        return self.data.answers[token]

    # calls

    def declare(self, name: str, window: float, length: int) -> None:
        self.queue(name).limits = window, length

    def publish(self, name: str, call: Outgoing, window: float, length: int) -> int | None:
        """None, or the length of a queue that is full."""
        queue, now, key = self.queue(name), self.clock(), (call.message_id, False)
        window, length = queue.limits or (window, length)
        known = self._known(queue, call.message_id, now) is not None
        if known and not (call.again and self._kept(queue, key) is None):
            self._first_outcome(queue, key, call.address)
            return None
        size = len(queue.waiting) + sum(not queue.entries[number].raw for number in queue.holders)
        if length and size >= length:
            return size
        number = next(self._numbers)
        if not known:
            queue.known[call.message_id] = number, now + window
            queue.admitted.add(number)
        self._add(name, Entry(number, call.body, dict(call.facts), False, now, call.message_id))
        return None

    def put(self, name: str, body: bytes | None, facts: Mapping[str, str], *, raw: bool) -> None:
        """Add an entry as a foreign program would."""
        self._add(name, Entry(next(self._numbers), body, dict(facts), raw, self.clock(), None))

    def double(self, name: str, number: int) -> None:
        """A proxy writes an entry once more."""
        entry = self.queue(name).entries.get(number)
        if entry is not None:
            self._add(name, replace(entry, number=next(self._numbers), born=self.clock()))

    def _add(self, name: str, entry: Entry) -> Entry:
        queue = self.queue(name)
        queue.entries[entry.number] = entry
        queue.attempts[entry.number] = 0
        left = entry.facts.get("timeout_ms")
        timeout = float(left) / 1000 if left is not None and left.isdigit() else None
        self.note("entered", id=entry.message_id, entry=self._name(entry.number), timeout=timeout)
        self._wait(name, queue, entry.number)
        return entry

    def _wait(self, name: str, queue: Queue, number: int, *, first: bool = False) -> None:
        line = queue.raw_waiting if queue.entries[number].raw else queue.waiting
        line.appendleft(number) if first else line.append(number)
        self.ring(name)

    def ring(self, name: str) -> None:
        """Serve the reads that block."""
        for wake in list(self.blocked.get(name, {}).values()):
            wake()

    def _known(self, queue: Queue, message_id: UUID | None, now: float) -> int | None:
        number, until = queue.known.get(message_id, (None, 0.0)) if message_id is not None else (None, 0.0)
        return number if until > now else None

    def renew(self, name: str, consumer: str, server: str, seconds: float) -> Lease:
        """Make a lease last from now."""
        queue = self.queue(name)
        if queue.leases.get(consumer, 0.0) == -1.0:
            return Lease.LOST
        queue.leases[consumer] = self.clock() + seconds
        self.note("renewed", server=server)
        return Lease.KEPT

    def take(self, name: str, consumer: str, server: str, most: int) -> list[Given]:
        """Up to so many entries, oldest first."""
        queue = self.queue(name)
        found: list[Given] = []
        for line in (queue.waiting, queue.raw_waiting):
            while line and len(found) < most:
                found.append(self._give(queue, line.popleft(), consumer, server))
        return found

    def lapsed(self, name: str, consumer: str) -> list[str]:
        """Other consumers whose lease ran out, but those of which that is known and who hold nothing."""
        queue, now = self.queue(name), self.clock()
        holders = dict.fromkeys(queue.holders.values(), 0.0)
        others = [(each, until) for each, until in {**holders, **queue.leases}.items() if until < now and each != consumer]
        return [each for each, until in others if until != -1.0 or each in holders]

    def reclaim(self, name: str, consumer: str, server: str) -> list[Given]:
        """Take over what they held."""
        queue, lapsed = self.queue(name), self.lapsed(name, consumer)
        found = [number for number, holder in queue.holders.items() if holder in lapsed]
        for each in lapsed:
            queue.leases[each] = -1.0
        return [self._give(queue, number, consumer, server) for number in found]

    def take_back(self, name: str, lost: Sequence[Given], consumer: str, server: str) -> list[Given]:
        """What came under a name whose lease was lost, and nobody has taken over, under a new one."""
        queue, found = self.queue(name), list[Given]()
        for given in lost:
            if self.owns(queue, given):
                queue.attempts[given.entry.number] -= 1
                found.append(self._give(queue, given.entry.number, consumer, server))
        return found

    def held(self, name: str, consumer: str) -> list[Given]:
        """What stands under this consumer's name, known to it or not."""
        queue = self.queue(name)
        return [self._given(queue, number, consumer) for number, holder in queue.holders.items() if holder == consumer]

    def _give(self, queue: Queue, number: int, consumer: str, server: str) -> Given:
        queue.attempts[number] += 1
        queue.holders.pop(number, None)
        queue.holders[number] = consumer
        self._servers[consumer] = server
        return self._noted(queue, number, consumer)

    def _noted(self, queue: Queue, number: int, consumer: str) -> Given:
        queue.names[number] = f"{self._name(number)}:{queue.attempts[number]}:{consumer}:{next(self._serials)}"
        given = self._given(queue, number, consumer)
        server = self._servers[consumer]
        self.note("taken", id=given.entry.message_id, entry=self._name(number), delivery=given.name, server=server)
        return given

    def _name(self, number: int) -> str:
        """Of an entry, for the ledger: one that comes back after a loss counts as another."""
        return f"{number}r{self._losses}" if self._losses else f"{number}"

    def _given(self, queue: Queue, number: int, consumer: str) -> Given:
        entry = queue.entries[number]
        return Given(entry, consumer, queue.attempts[number], number in queue.admitted, queue.names[number])

    def owns(self, queue: Queue, given: Given) -> bool:
        """Whether this delivery is the one that counts."""
        number = given.entry.number
        return queue.holders.get(number) == given.consumer and queue.attempts.get(number) == given.attempt

    def claim(
        self, name: str, given: Given, message_id: UUID, address: str | None, window: float, *, again: bool = False
    ) -> bool:
        queue = self.queue(name)
        if not self.owns(queue, given):
            return self._done(given, "claim", False)
        may_run = self._may_run(queue, given, message_id, window)
        if not may_run:
            self._remove(queue, given)
            self._done(given, "claim", True)
            self._first_outcome(queue, (message_id, given.entry.raw), address)
        return may_run

    def _may_run(self, queue: Queue, given: Given, message_id: UUID, window: float) -> bool:
        now, number = self.clock(), given.entry.number
        if number not in queue.admitted and self._known(queue, message_id, now) in (None, number):
            queue.known[message_id] = number, now + (queue.limits or (window, 0))[0]
            queue.admitted.add(number)
        return number in queue.admitted

    def settle(self, name: str, given: Given, reply: Reply | None, seconds: float, how: str = "settle") -> bool:
        """Remove the entry and keep the reply (`seconds` 0: only wake), as one step."""
        queue = self.queue(name)
        if not self.owns(queue, given):
            return self._done(given, how, False)
        self._done(given, how, True)
        self._remove(queue, given)
        if reply is not None:
            self._answer(queue, reply, seconds)
        return True

    def _done(self, given: Given, how: str, done: bool) -> bool:
        self.note("ended", delivery=given.name, how=how, done=done)
        return done

    def _remove(self, queue: Queue, given: Given) -> None:
        number = given.entry.number
        del queue.entries[number], queue.holders[number], queue.attempts[number]
        queue.admitted.discard(number)

    def release(self, name: str, given: Given) -> bool:
        queue = self.queue(name)
        if not self.owns(queue, given):
            return self._done(given, "release", False)
        self._done(given, "release", True)
        del queue.holders[given.entry.number]
        queue.attempts[given.entry.number] -= 1
        self._wait(name, queue, given.entry.number)
        return True

    def bury(
        self,
        name: str,
        given: Given,
        reason: str,
        reply: Reply | None,
        details: str,
        seconds: float,
        window: float,
        most: int,
        claim: bool,
    ) -> bool:
        queue, late = self.queue(name), None
        if not self.owns(queue, given):
            return self._done(given, "bury", False)
        if reply is not None and claim and not self._may_run(queue, given, reply.message_id, window):
            reply, late = None, reply
        self.settle(name, given, reply, seconds, "bury")
        if late is not None:
            self._first_outcome(queue, (late.message_id, late.raw), late.address)
        self._keep_letter(queue, given, reason, details, most)
        return True

    def _keep_letter(self, queue: Queue, given: Given, reason: str, details: str, most: int) -> None:
        letter = self._letter(given, reason, details)
        queue.dead[letter.id] = letter
        self.note("dead", id=given.entry.message_id, reason=reason)
        while len(queue.dead) > most:
            del queue.dead[next(iter(queue.dead))]

    def _letter(self, given: Given, reason: str, details: str) -> DeadLetter:
        entry, now = given.entry, self.clock()
        fields = [(name.encode(errors="replace"), text.encode(errors="replace")) for name, text in entry.facts.items()]
        if entry.body is not None:
            fields.insert(0, (b"message", entry.body))
        return DeadLetter(
            str(entry.number), reason, details, entry.raw, str(entry.number), given.attempt, entry.born, now, fields
        )

    def take_letter(self, name: str, letter_id: str, *, back: bool) -> bool:
        letter = self.queue(name).dead.pop(letter_id, None)
        if letter is not None and back:
            facts = {key.decode(): text.decode() for key, text in letter.fields if key not in (b"message", b"own")}
            number = next(self._numbers)
            self.queue(name).admitted.add(number)
            self._add(name, Entry(number, letter.body, facts, letter.raw, self.clock(), None))
        return letter is not None

    # replies

    def _answer(self, queue: Queue, reply: Reply, seconds: float) -> None:
        key = reply.message_id, reply.raw
        earlier = self._kept(queue, key) if seconds else None
        if earlier is None and seconds:
            queue.kept[key] = reply.body, self.clock() + seconds
            named = _NAMED.search(reply.body)
            self.note("stored", id=reply.message_id, content=crc32(reply.body), how=named[1].decode() if named else "")
        if earlier is not None:
            self.mail(reply.address, earlier)
        else:
            self.mail(reply.address, reply.body if reply.wake is None else reply.wake)
        for address in queue.others.pop(key, ()):
            self._first_outcome(queue, key, address)

    def _first_outcome(self, queue: Queue, key: tuple[UUID, bool], address: str | None) -> None:
        kept = self._kept(queue, key)
        if address is None:
            return
        if kept is not None:
            self.mail(address, kept)
        elif address not in queue.others.setdefault(key, []):
            queue.others[key].append(address)

    def _kept(self, queue: Queue, key: tuple[UUID, bool]) -> bytes | None:
        body, until = queue.kept.get(key, (None, 0.0))
        return body if until > self.clock() else None

    def mail(self, address: str | None, body: bytes) -> None:
        self._mail_once(address, body)
        if self.doubled():
            self._mail_once(address, body)

    def _mail_once(self, address: str | None, body: bytes) -> None:
        for take in list(self.mailboxes.get(address, ()) if address is not None else ()):
            take(body)

    def collect(self, name: str, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        queue = self.queue(name)
        found = {each: self._kept(queue, (each, False)) for each in ids}
        return {each: body for each, body in found.items() if body is not None}

    def forget(self, name: str, ids: Sequence[UUID]) -> None:
        for each in ids:
            self.queue(name).kept.pop((each, False), None)

    def post(self, name: str, address: str, body: bytes) -> None:
        """Mail to a mailbox of this queue."""
        if self._queue_of.get(address) == name:
            self.mail(address, body)

    def open_mail(
        self, name: str, address: str, position: int | None, take: Callable[[bytes], None]
    ) -> tuple[int, Callable[[], None]]:
        """Hand over what comes for this address. `position`: the first that is missed, where mail is a log; it is answered.

        The function that comes with it ends it.
        """
        self._queue_of[address] = name
        # A connection that its host has given up may come to it later than that which followed it, and takes nothing from it.
        readers = self.mailboxes.setdefault(address, [])
        readers.append(take)
        return 0, lambda: self._leave_mail(address, take)

    def _leave_mail(self, address: str, take: Callable[[bytes], None]) -> None:
        readers = self.mailboxes.get(address, [])
        if take in readers:
            readers.remove(take)
        if not readers:
            self.mailboxes.pop(address, None)

    def listen(self, name: str, position: int | None, take: Callable[[bytes], None]) -> tuple[int, Callable[[], None]]:
        """The same for broadcasts."""
        listeners, key = self.listeners.setdefault(name, {}), object()
        listeners[key] = take

        def leave() -> None:
            listeners.pop(key, None)

        return 0, leave

    def broadcast(self, name: str, body: bytes) -> None:
        for take in list(self.listeners.get(name, {}).values()):
            take(body)

    # servers

    def announce(self, name: str, record: ServerRecord, ttl: float) -> None:
        now = self.clock()
        self.queue(name).servers[record.instance] = record, now, now + ttl

    def withdraw(self, name: str, instance: str) -> None:
        self.queue(name).servers.pop(instance, None)

    def servers(self, name: str) -> list[ServerRecord]:
        now = self.clock()
        return [replace(record, age=now - made) for record, made, until in self.queue(name).servers.values() if until > now]

    def leave(self, name: str, consumer: str) -> None:
        """A consumer goes in order; what it holds all the same waits until its lease would have run out."""
        queue = self.queue(name)
        if consumer not in queue.holders.values():
            queue.leases.pop(consumer, None)

    def state(self, name: str) -> QueueState:
        queue, now = self.queue(name), self.clock()
        ages = [now - queue.entries[line[0]].born for line in (queue.waiting, queue.raw_waiting) if line]
        return QueueState(
            len(queue.waiting) + len(queue.raw_waiting), len(queue.holders), max(ages, default=None), len(queue.dead)
        )

    def rebalance(self, name: str) -> None:
        """Have the queue shared out anew, where there are shares."""

    def restarted(self) -> None:
        """The broker is there again, with all its data."""

    def restore(self, data: Data | None) -> None:
        """What a broker has after its restart; None: nothing."""
        self.data = Data() if data is None else data
        self.blocked.clear()
        self._losses += 1
        for queue in self.data.queues.values():
            for number in queue.entries:
                consumer = queue.holders.get(number)
                if consumer is not None:
                    self._noted(queue, number, consumer)
