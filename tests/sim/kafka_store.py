"""The same as `Store` with the semantics of Kafka as its adapter uses it: partitions, each read by one member of a group.

What the members tell each other over the control topic is as if everybody knew it; what is fenced in Kafka is fenced here. Ids of
calls are kept as if a new owner read all of them back, outcomes only with the member that made them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID
from zlib import crc32

from prpc.brokers.base import Outgoing, Reply
from tests.sim.held import Entry, Given, Lease, Queue
from tests.sim.store import Note, Store

__all__ = ["Group", "KafkaGiven", "KafkaStore"]

PARTITIONS = 4
_ID = re.compile(rb"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class KafkaGiven(Given):
    """One record in the hands of a member. `share`: number of the member's share that it was read under."""

    share: int = 0

    @property
    def key(self) -> tuple[int, int, str]:
        return self.entry.number, self.attempt, self.name


@dataclass(slots=True)
class Group:
    """The members of one queue and their partitions. Who is a member stands in `Queue.leases`."""

    #: Counts the sharings out.
    generation: int = 0
    #: While True, everybody must come for a new share; who has not yet goes on with the old one.
    changing: bool = False
    joined: set[str] = field(default_factory=set)
    owners: dict[int, str] = field(default_factory=dict)
    #: Member -> number of its share, as it counts them. Members that were given up.
    shares: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    session: float = 0.0
    #: Entry -> its partition and its place in the log; those whose start is committed.
    partitions: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    #: Member -> the outcomes that it gave, and the further callers whom it will tell.
    outcomes: dict[str, dict[UUID, bytes]] = field(default_factory=dict)
    waiting: dict[str, dict[UUID, list[str]]] = field(default_factory=dict)


class KafkaStore(Store):
    """See the module. `settle` and `bury` only hand over; then `finish` commits the end."""

    keeps, admits, atomic, logs = False, False, False, True

    def __init__(self, clock: Callable[[], float], note: Note = lambda *_, **__: None) -> None:
        super().__init__(clock, note)
        self._groups: dict[str, Group] = {}
        self._ringing: set[str] = set()
        self._mail: dict[str, list[bytes]] = {}
        self._control: dict[str, list[bytes]] = {}

    def group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group()
        return group

    # membership

    def renew(self, name: str, consumer: str, server: str, seconds: float, share: int | None = None) -> Lease:
        """`share`: number of the one that the member believes to have."""
        queue, group = self._current(name), self.group(name)
        group.session = seconds
        if consumer in group.gone:
            return Lease.LOST
        if consumer not in queue.leases:
            return Lease.MOVED
        queue.leases[consumer] = self.clock() + seconds
        self.note("renewed", server=server)
        waited_for = group.changing and consumer not in group.joined
        return Lease.MOVED if waited_for or group.shares[consumer] != share else Lease.KEPT

    def join(self, name: str, consumer: str, server: str, share: int) -> Lease:
        """A member wants a share, of which it counts so many; what it had read and not started is to be read again."""
        queue, group = self._current(name), self.group(name)
        if consumer in group.gone:
            return Lease.LOST
        queue.leases[consumer] = self.clock() + group.session
        self.note("renewed", server=server)
        group.changing = True
        group.shares[consumer] = share
        group.joined.add(consumer)
        self._unread(name, consumer)
        self._share_out(name)
        return Lease.KEPT

    def rebalance(self, name: str) -> None:
        """Kafka asks everybody to come for a new share."""
        self.group(name).changing = bool(self._current(name).leases)

    def leave(self, name: str, consumer: str) -> None:
        self._drop(name, consumer)
        self._share_out(name)

    def restarted(self) -> None:
        """Sessions begin anew where the broker comes back."""
        for name, queue in self.data.queues.items():
            for consumer in queue.leases:
                queue.leases[consumer] = self.clock() + self.group(name).session

    def _current(self, name: str) -> Queue:
        """The queue, without members that were silent for too long."""
        queue, now = self.queue(name), self.clock()
        silent = [consumer for consumer, until in queue.leases.items() if until < now]
        for consumer in silent:
            self.group(name).gone.add(consumer)
            self._drop(name, consumer)
        if silent:
            self._share_out(name)
        return queue

    def _drop(self, name: str, consumer: str) -> None:
        """Whoever gets its partitions finds what it had started, and that it is gone."""
        queue, group = self.queue(name), self.group(name)
        if queue.leases.pop(consumer, None) is None:
            return
        group.joined.discard(consumer)
        group.changing = True
        group.started -= {number for number, holder in queue.holders.items() if holder == consumer}
        group.outcomes.pop(consumer, None)
        group.waiting.pop(consumer, None)
        self._unread(name, consumer)

    def _unread(self, name: str, consumer: str) -> None:
        """What a member has read and not started goes back to its place."""
        queue, group = self.queue(name), self.group(name)
        for number in [each for each, holder in queue.holders.items() if holder == consumer and each not in group.started]:
            del queue.holders[number]
            (queue.raw_waiting if queue.entries[number].raw else queue.waiting).append(number)
        queue.waiting = deque(sorted(queue.waiting, key=group.places.__getitem__))
        queue.raw_waiting = deque(sorted(queue.raw_waiting, key=group.places.__getitem__))

    def _share_out(self, name: str) -> None:
        """Once all have come."""
        queue, group = self.queue(name), self.group(name)
        members = sorted(queue.leases)
        if not group.changing or group.joined != set(members):
            return
        group.generation += 1
        group.changing, group.joined = False, set()
        group.owners = {number: members[(number + group.generation) % len(members)] for number in range(PARTITIONS) if members}
        self.ring(name)

    def ring(self, name: str) -> None:
        if name in self._ringing:
            return
        self._ringing.add(name)
        shared = -1
        while shared != self.group(name).generation:  # who is asked may be the first to see that a member is gone
            self._current(name)
            shared = self.group(name).generation
            super().ring(name)
        self._ringing.discard(name)

    # records

    def publish(self, name: str, call: Outgoing, window: float, length: int) -> int | None:
        self._add(name, Entry(next(self._numbers), call.body, dict(call.facts), False, self.clock(), call.message_id))
        return None

    def _add(self, name: str, entry: Entry) -> Entry:
        group, number = self.group(name), entry.number
        group.partitions[number] = _partition(entry)
        group.places[number] = next(self._serials)
        return super()._add(name, entry)

    def take(self, name: str, consumer: str, server: str, most: int) -> list[Given]:
        queue, group = self._current(name), self.group(name)
        if consumer not in queue.leases or consumer in group.joined:
            return []
        mine = {number for number, owner in group.owners.items() if owner == consumer}
        found: list[Given] = []
        for line in (queue.waiting, queue.raw_waiting):
            for number in [each for each in line if group.partitions[each] in mine][: most - len(found)]:
                line.remove(number)
                found.append(self._give(queue, number, consumer, server))
        return found

    def _give(self, queue: Queue, number: int, consumer: str, server: str) -> Given:
        queue.holders[number] = consumer
        self._servers[consumer] = server
        return self._noted(queue, number, consumer)

    def _given(self, queue: Queue, number: int, consumer: str) -> Given:
        name = next(each for each, found in self.data.queues.items() if found is queue)
        share = self.group(name).shares[consumer]
        return KafkaGiven(queue.entries[number], consumer, queue.attempts[number] + 1, False, queue.names[number], share)

    def owns(self, queue: Queue, given: Given) -> bool:
        number = given.entry.number
        return queue.holders.get(number) == given.consumer and queue.names[number] == given.name

    # starts and ends

    def admit(self, name: str, given: Given, message_id: UUID, window: float, again: bool) -> bool:
        """Whether the record is the first of its id, or may run in spite of it; known to its owner without asking."""
        queue, number = self.queue(name), given.entry.number
        if again and message_id not in self.group(name).outcomes.get(given.consumer, ()):
            queue.known[message_id] = number, self.clock() + window
            queue.admitted.add(number)
        return self._may_run(queue, given, message_id, window)

    def claim(
        self, name: str, given: Given, message_id: UUID, address: str | None, window: float, *, again: bool = False
    ) -> bool:
        queue, group = self._current(name), self.group(name)
        if not self.owns(queue, given):
            return self._done(given, "claim", False)
        if self.admit(name, given, message_id, window, again):
            queue.attempts[given.entry.number] += 1
            group.started.add(given.entry.number)
            return True
        self._remove(queue, given)
        self._done(given, "claim", True)
        self._tell_first(name, given, message_id, address)
        return False

    def settle(self, name: str, given: Given, reply: Reply | None, seconds: float, how: str = "settle") -> bool:
        """Hand the outcome over, whoever the call belongs to by now."""
        if reply is not None and not seconds:
            self.mail(reply.address, reply.body)
        elif reply is not None:
            group = self.group(name)
            first = group.outcomes.setdefault(given.consumer, {}).setdefault(reply.message_id, reply.body)
            if reply.raw:
                self.queue(name).kept.setdefault((reply.message_id, True), (first, float("inf")))
            for address in (reply.address, *group.waiting.get(given.consumer, {}).pop(reply.message_id, ())):
                self.mail(address, first)
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
        if reply is not None and claim and not self.admit(name, given, reply.message_id, window, False):
            self._tell_first(name, given, reply.message_id, reply.address)
        else:
            self.settle(name, given, reply, seconds)
        self._keep_letter(self.queue(name), given, reason, details, most)
        return True

    def finish(self, name: str, given: Given, how: str) -> bool:
        """Commit the end of what was handed over, or tell it to the partition's owner; a member that is gone cannot."""
        queue = self._current(name)
        if given.entry.number not in queue.entries:
            return False
        if not self.owns(queue, given):
            return self._done(given, how, False)
        self.group(name).started.discard(given.entry.number)
        self._remove(queue, given)
        return self._done(given, how, True)

    def release(self, name: str, given: Given) -> bool:
        queue, group, number = self._current(name), self.group(name), given.entry.number
        if not self.owns(queue, given):
            return self._done(given, "release", False)
        if number in group.started:
            group.started.discard(number)
            queue.attempts[number] -= 1
        del queue.holders[number]
        group.places[number] = next(self._serials)
        self._done(given, "release", True)
        self._wait(name, queue, number)
        return True

    # outcomes and mail

    def _tell_first(self, name: str, given: Given, message_id: UUID, address: str | None) -> None:
        """A further caller gets the outcome from whoever gave it or runs the call; where that one is gone, none."""
        queue, group = self.queue(name), self.group(name)
        if address is None:
            return
        first, _ = queue.known.get(message_id, (0, 0.0))
        for member in {given.consumer: None, **dict.fromkeys(queue.leases)}:
            if outcome := group.outcomes.get(member, {}).get(message_id):
                self.mail(address, outcome)
                return
        for member in dict.fromkeys([given.consumer, queue.holders.get(first, given.consumer)]):
            waiting = group.waiting.setdefault(member, {}).setdefault(message_id, [])
            if address not in waiting:
                waiting.append(address)

    def collect(self, name: str, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        return {}

    def _mail_once(self, address: str | None, body: bytes) -> None:
        if address in self._mail:
            self._mail[address].append(body)
            super()._mail_once(address, body)

    def open_mail(
        self, name: str, address: str, position: int | None, take: Callable[[bytes], None]
    ) -> tuple[int, Callable[[], None]]:
        log = self._mail.setdefault(address, [])
        return _read(log, position, take), super().open_mail(name, address, position, take)[1]

    def listen(self, name: str, position: int | None, take: Callable[[bytes], None]) -> tuple[int, Callable[[], None]]:
        log = self._control.setdefault(name, [])
        return _read(log, position, take), super().listen(name, position, take)[1]

    def broadcast(self, name: str, body: bytes) -> None:
        self._control.setdefault(name, []).append(body)
        super().broadcast(name, body)


def _read(log: list[bytes], position: int | None, take: Callable[[bytes], None]) -> int:
    """Hand over what stands in the log from there on; the position is answered."""
    start = len(log) if position is None else position
    for body in log[start:]:
        take(body)
    return start


def _partition(entry: Entry) -> int:
    """Of the message id, wherever it stands."""
    message_id, body = entry.message_id, entry.body or b""
    if message_id is None and len(body) == 16:
        message_id = UUID(bytes=body)
    elif message_id is None and (found := _ID.search(body)):
        message_id = UUID(found[0].decode())
    return 0 if message_id is None else crc32(message_id.bytes) % PARTITIONS
