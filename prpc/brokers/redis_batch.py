"""Deliveries of a Redis consumer, and how they end: gathered over one loop tick, sent as scripts of bounded size."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from prpc.brokers.awaiting import answered
from prpc.brokers.base import Facts, Reply
from prpc.brokers.redis_claims import Claims
from prpc.brokers.redis_lease import Lease
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_memory import remembered
from prpc.brokers.redis_scripts import BORN_FIELD, BURY, CRASHES_FIELD, LOST, OWN_FIELD, RELEASE, SETTLE, Script
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["Ending", "RedisDelivery", "frame", "milliseconds", "read_entry", "unframe"]

log = logging.getLogger(__name__)

#: Entries and bytes of one settle script: more would make client, Redis and server take turns.
CHUNK_ENTRIES = 64
CHUNK_BYTES = 128 * 1024

CRASHES, BORN, OWN = CRASHES_FIELD.encode(), BORN_FIELD.encode(), OWN_FIELD.encode()


@dataclass(slots=True, eq=False)
class RedisDelivery:
    """One entry in the hands of this consumer."""

    ending: Ending
    lease: Lease
    id: bytes
    body: bytes | None
    facts: Facts
    attempt: int
    raw: bool
    age: float
    born_ms: int
    admitted: bool

    @property
    def key(self) -> tuple[int, bytes]:
        return int(self.raw), self.id

    @property
    def name(self) -> bytes:
        """The key as a text, for scripts."""
        return b"%d %b" % self.key

    @property
    def lost(self) -> bool:
        """See Delivery."""
        return self.lease.lost

    def claim(self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False) -> Awaitable[bool]:
        """See Delivery."""
        return answered(True) if again else self.ending.claims.add(self, message_id, address)

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        """See Delivery."""
        return self.ending.settle(self, reply)

    def release(self) -> Awaitable[bool]:
        """See Delivery."""
        return self.ending.release([self])

    def bury(
        self, reason: str, reply: Reply | None = None, *, details: str = "", keep: bool = True, claim: bool = False
    ) -> Awaitable[bool]:
        """See Delivery."""
        return self.ending.bury(self, reason, reply, details, keep, claim and not self.admitted)


def milliseconds(entry_id: bytes) -> int:
    """The time in an entry's id, by the broker's clock."""
    return int(entry_id.partition(b"-")[0])


def read_entry(fields: Sequence[bytes]) -> tuple[bytes | None, dict[str, str], int, int | None, bytes | None]:
    """Body, facts, crashes before, when it was first taken (ms; None: see its id), and the id that it names as its own."""
    body = own = None
    crashes = born = b""
    facts: dict[str, str] = {}
    each = iter(fields)
    for name, value in zip(each, each, strict=True):
        if name == b"message":
            body = value
        elif name == OWN:
            own = value
        elif name == CRASHES:
            crashes = value
        elif name == BORN:
            born = value
        else:
            facts[name.decode(errors="replace")] = value.decode(errors="replace")
    return body, facts, _count(crashes) or 0, _count(born), own


def _count(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 16 else None


def frame(bodies: Sequence[bytes]) -> bytes:
    """Several bodies as one payload: each behind its length and a colon."""
    return b"".join(b"%d:%b" % (len(body), body) for body in bodies)


def unframe(payload: bytes) -> list[bytes]:
    """The bodies again; what follows a length that cannot be read is left out."""
    bodies, at = [], 0
    while at < len(payload):
        colon = payload.find(b":", at, at + 12)
        length = _count(payload[at:colon]) if colon > 0 else None
        if length is None:
            log.warning("a wake-up cannot be read from byte %d on", at)
            break
        at = colon + 1 + length
        bodies.append(payload[colon + 1 : at])
    return bodies


#: Deliveries that end together, each with its reply, and the future that ends with them.
_Items = Sequence[tuple[RedisDelivery, Reply | None]]


class _Chunk:
    """What is settled by one script: of one lease and one stream."""

    __slots__ = ("done", "items", "size")

    def __init__(self) -> None:
        self.items: list[tuple[RedisDelivery, Reply | None]] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        #: Bytes of the replies.
        self.size = 0


class Ending:
    """Settles, releases and buries the deliveries of one queue."""

    def __init__(self, link: Link, names: QueueNames, settings: Settings) -> None:
        self._link, self._names, self._settings = link, names, settings
        self._streams = (names.calls, names.raw_calls)
        self.claims = Claims(link, names, settings, self.lease_ms)
        #: What is settled in this tick, and of it what has room, by lease and stream.
        self._settling: list[_Chunk] = []
        self._filling: dict[tuple[str, bool], _Chunk] = {}
        #: Scripts under way, and who waits until there are none.
        self._open = 0
        self._decided = asyncio.Event()

    @property
    def lease_ms(self) -> int:
        return round(self._settings.redis_recover * 1000)

    async def flush(self) -> None:
        """Wait until everything that was begun is decided."""
        while self._open or self._settling:
            self._decided.clear()
            await self._decided.wait()

    def settle(self, delivery: RedisDelivery, reply: Reply | None) -> Awaitable[bool]:
        key = delivery.lease.key, delivery.raw
        size = 0 if reply is None else len(reply.body)
        chunk = self._filling.get(key)
        if chunk is None or len(chunk.items) == CHUNK_ENTRIES or chunk.size + size > CHUNK_BYTES:
            if not self._settling:
                self._link.before_write(self._send_settled)
            chunk = self._filling[key] = _Chunk()
            self._settling.append(chunk)
        chunk.items.append((delivery, reply))
        chunk.size += size
        return chunk.done

    def release(self, deliveries: Sequence[RedisDelivery]) -> Awaitable[bool]:
        """Give back deliveries of one stream and one lease."""
        first = deliveries[0]
        words: list[Any] = []
        for delivery in deliveries:
            words += (delivery.id, delivery.attempt - 1, delivery.born_ms, int(delivery.admitted))
        keys = (first.lease.key, self._streams[first.raw])
        return self._end(deliveries, RELEASE, keys, (*self._head(first.lease), *words))

    def bury(
        self, delivery: RedisDelivery, reason: str, reply: Reply | None, details: str, keep: bool, claim: bool
    ) -> Awaitable[bool]:
        key, body, channel, payload, claimed = "", b"", "", b"", (b"", b"")
        if reply is not None:
            key, body = self._key(reply) if keep else "", reply.body
            if reply.address is not None:
                channel, payload = self._names.reply(reply.address), frame([_wake(reply)])
            if claim:
                claimed = remembered(reply.message_id), delivery.name
        names, settings = self._names, self._settings
        keys = (delivery.lease.key, self._streams[delivery.raw], names.dead, names.others, names.limits)
        words = (settings.redis_expire, delivery.id, key, body, channel, payload, reason)
        more = (settings.dead_letters_kept, details.encode(errors="replace"), delivery.attempt, delivery.born_ms)
        known = (names.admitted, names.claimed, settings.duplicate_window, *claimed)
        return self._end([delivery], BURY, keys, (*self._head(delivery.lease), *words, *more, *known))

    def _head(self, lease: Lease) -> tuple[Any, ...]:
        return lease.name, self.lease_ms, self._settings.group_name

    def _key(self, reply: Reply) -> str:
        return self._names.raw_feedback(reply.message_id) if reply.raw else self._names.feedback(reply.message_id)

    def _end(
        self, deliveries: Sequence[RedisDelivery], script: Script, keys: Sequence[str], words: Sequence[Any]
    ) -> asyncio.Future[bool]:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._post([(delivery, None) for delivery in deliveries], done, script, keys, words)
        return done

    def _post(
        self,
        items: _Items,
        done: asyncio.Future[bool],
        script: Script,
        keys: Sequence[str],
        words: Sequence[Any],
        size: int | None = None,
    ) -> None:
        self._link.post(script, keys, words, partial(self._ended, items, done), size=size)
        self._open += 1

    def _send_settled(self) -> None:
        settling, self._settling = self._settling, []
        self._filling.clear()
        for chunk in settling:
            try:
                self._post_settled(chunk)
            except BrokerUnavailableError as exc:
                _decide(chunk.items, chunk.done, None, exc)
        self._decided.set()

    def _post_settled(self, chunk: _Chunk) -> None:
        items = chunk.items
        if len(items) > 1:  # the script wants those of one address side by side, those without one first
            items.sort(key=_address)
        first = items[0][0]
        replies: list[Any] = []
        wakes: dict[str, list[tuple[int, bytes]]] = {}
        for number, (_, reply) in enumerate(items, 1):
            if reply is None:
                replies += ("", b"")
                continue
            replies += (self._key(reply), reply.body)
            if reply.address is not None:
                wakes.setdefault(reply.address, []).append((number, _wake(reply)))
        groups: list[Any] = []
        for address, found in wakes.items():
            groups += (self._names.reply(address), frame([body for _, body in found]), found[0][0], found[-1][0])
        head = (*self._head(first.lease), self._settings.redis_expire, len(items), len(wakes))
        keys = (first.lease.key, self._streams[first.raw], self._names.others)
        ids = [delivery.id for delivery, _ in items]
        self._post(items, chunk.done, SETTLE, keys, (*head, *ids, *replies, *groups), chunk.size)

    def _ended(self, items: _Items, done: asyncio.Future[bool], answer: Any, error: Exception | None) -> None:
        self._open -= 1
        self._decided.set()
        if error is not None:
            log.error("the end of %d calls could not be written: %s", len(items), error)
        _decide(items, done, answer, error)


def _address(item: tuple[RedisDelivery, Reply | None]) -> str:
    reply = item[1]
    return "" if reply is None or reply.address is None else reply.address


def _wake(reply: Reply) -> bytes:
    return reply.body if reply.wake is None else reply.wake


def _decide(items: _Items, done: asyncio.Future[bool], answer: Any, error: BaseException | None) -> None:
    lease, lost = items[0][0].lease, answer == LOST
    lease.lost = lease.lost or lost
    if error is None:  # else they stay pending, and must not be taken for some that were never seen
        for delivery, _ in items:
            lease.held.discard(delivery.key)
    if done.done():
        return
    if error is None:
        done.set_result(not lost)
    else:
        done.set_exception(error)
        done.exception()  # whoever does not await it has nothing to be told
