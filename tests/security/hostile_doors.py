"""Behind a broker's back: puts hostile entries in, and sees what became of each of them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

import redis.asyncio as aioredis
from hostile_entries import Entry

from prpc.brokers.base import Reply
from prpc.brokers.memory_queue import Entry as SpaceEntry
from prpc.brokers.memory_space import Hold, Space, space_of
from prpc.brokers.redis_batch import unframe
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["Door", "MemoryDoor", "RedisDoor", "open_door", "until"]

#: What an id looks like, with dashes and without.
ID = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Seconds after which something that must come has not come.
PATIENCE = 20.0


async def until(happened: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a state that nobody signals."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await happened():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"after {PATIENCE:g} s: {what}") from None


class Door(Protocol):
    """The back door of one kind of broker. An entry's name is by what it is found again."""

    async def put(self, entries: Sequence[Entry]) -> list[str]:
        """Add them in this order; their names."""
        ...

    async def quiet(self) -> bool:
        """Whether no entry waits or is in anybody's hands."""
        ...

    async def letters(self) -> dict[str, list[str]]:
        """Reasons of the dead letters that have come since the last time, by the names of their entries."""
        ...

    async def answered(self, ids: set[UUID], *, raw: bool) -> set[UUID]:
        """Those of the ids that have a kept reply in this dialect, or of which a reply was sent to a mailbox."""
        ...

    async def left_over(self) -> list[str]:
        """After the server's end: what it should not have left."""
        ...

    async def close(self) -> None: ...


#: What a server takes out of an entry, or puts in, when it gives it back; and how many fields then stay at least.
_ITS_OWN, _MOST_FIELDS = (b"own", b"prpc_crashes", b"prpc_born_ms"), 2000


def _name(raw: bool, fields: Sequence[tuple[bytes, bytes]]) -> str:
    """An entry's content: its id changes when a server gives it back, and the message then comes before thousands of others."""
    messages = [value for name, value in fields if name == b"message"]
    others = [pair for pair in fields if pair[0] not in (*_ITS_OWN, b"message")]
    digest = hashlib.sha1()
    for word in (*messages, b"", *(word for pair in others[:_MOST_FIELDS] for word in pair)):
        digest.update(b"%d:" % len(word))
        digest.update(word)
    return f"{int(raw)} {digest.hexdigest()}"


class RedisDoor:
    """Redis: entries of the same content have one name."""

    def __init__(self, settings: Settings) -> None:
        self.names, self.group = QueueNames(settings.queue_name), settings.group_name
        self.streams = (self.names.calls, self.names.raw_calls)
        self.redis = aioredis.Redis.from_url(settings.url_broker)
        # As it stands: names that stand twice are told apart, and a letter's own come first.
        self.redis.set_response_callback("XRANGE", lambda answer, **_: answer)
        self._ear = self.redis.pubsub()
        #: Ids in the replies that were sent to any mailbox of the queue.
        self._heard: set[UUID] = set()
        self._read_to: bytes = b"-"

    async def open(self) -> RedisDoor:
        await self._ear.psubscribe(f"{self.names.reply('')}*")
        await self._ear.get_message(timeout=PATIENCE)
        return self

    async def put(self, entries: Sequence[Entry]) -> list[str]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                words = [word for pair in entry.fields for word in pair]
                pipe.execute_command("XADD", self.streams[entry.raw], "*", *words)
            await pipe.execute()
        return [_name(entry.raw, entry.fields) for entry in entries]

    async def quiet(self) -> bool:
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in self.streams:
                pipe.xlen(stream)
                pipe.execute_command("XPENDING", stream, self.group)
            first, held, second, raw_held = await pipe.execute()
        return not any((first, _count(held), second, _count(raw_held)))

    async def letters(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        while page := await self.redis.xrange(self.names.dead, self._read_to, "+", count=500):
            self._read_to = b"(" + page[-1][0]
            for _, words in page:
                pairs = list(zip(words[::2], words[1::2], strict=True))
                header = dict(pairs[:7])
                rest = unframe(header[b"rest"])
                fields = pairs[7:] + list(zip(rest[::2], rest[1::2], strict=True))
                name = _name(header[b"stream"].decode() == self.names.raw_calls, fields)
                found.setdefault(name, []).append(header[b"reason"].decode())
        return found

    async def answered(self, ids: set[UUID], *, raw: bool) -> set[UUID]:
        await self._hear()
        ordered = sorted(ids)
        keys = [self.names.raw_feedback(i) if raw else self.names.feedback(i) for i in ordered]
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.exists(key)
            kept = await pipe.execute()
        return {i for i, there in zip(ordered, kept, strict=True) if there} | (ids & self._heard)

    async def _hear(self) -> None:
        while (message := await self._ear.get_message(ignore_subscribe_messages=True, timeout=0.01)) is not None:
            for body in unframe(message["data"]):
                self._heard |= {UUID(found.decode()) for found in ID.findall(body)}

    async def left_over(self) -> list[str]:
        lasting = {name.encode() for name in (*self.streams, self.names.dead, self.names.limits)}
        keys = [key for key in await self._keys() if key not in lasting]
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.ttl(key)
            ends = await pipe.execute()
        found = [key.decode() for key, end in zip(keys, ends, strict=True) if end < 0 or b"_lease_" in key]
        for stream in self.streams:
            found += [f"consumer {info['name']!r}" for info in await self.redis.xinfo_consumers(stream, self.group)]
        return found

    async def _keys(self) -> list[bytes]:
        return [key async for key in self.redis.scan_iter(f"prpc_*{self.names.queue}*", count=1000)]

    async def close(self) -> None:
        await self._ear.aclose()
        keys = await self._keys()
        for start in range(0, len(keys), 500):
            await self.redis.unlink(*keys[start : start + 500])
        await self.redis.aclose()


def _count(answer: Any) -> int:
    return int(answer["pending"] if isinstance(answer, dict) else answer[0])


class MemoryDoor:
    """The memory broker: names are the numbers of its entries. Fields that are no text are made one."""

    def __init__(self, settings: Settings) -> None:
        self.queue = settings.queue_name
        self.names = QueueNames(self.queue)
        self.space = space_of(settings.url_broker)
        self._letters: dict[str, list[str]] = {}
        self._answered: set[tuple[UUID, bool]] = set()
        self._listen(self.space)

    def _listen(self, space: Space) -> None:
        bury, answer = space.bury, space._answer

        def bury_and_note(queue: str, hold: Hold, reason: str, *rest: Any, **more: Any) -> bool:
            done = bury(queue, hold, reason, *rest, **more)
            if done:
                self._letters[str(hold.entry.number)] = [reason]
            return done

        def answer_and_note(state: Any, reply: Reply, *rest: Any) -> None:
            self._answered.add((reply.message_id, reply.raw))
            answer(state, reply, *rest)

        space.bury, space._answer = bury_and_note, answer_and_note  # type: ignore[method-assign]

    async def put(self, entries: Sequence[Entry]) -> list[str]:
        names: list[str] = []
        for entry in entries:
            pairs = dict(entry.fields)
            body = pairs.pop(b"message", None)
            facts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs.items()}
            put = SpaceEntry(body, facts, entry.raw, self.space._clock())
            with self.space._lock:
                self.space._queue(self.queue).put(put)
            names.append(str(put.number))
        return names

    async def quiet(self) -> bool:
        state = self.space.state(self.queue)
        return not (state.waiting or state.taken)

    async def letters(self) -> dict[str, list[str]]:
        found, self._letters = self._letters, {}
        return found

    async def answered(self, ids: set[UUID], *, raw: bool) -> set[UUID]:
        return {i for i in ids if (i, raw) in self._answered}

    async def left_over(self) -> list[str]:
        state = self.space._queue(self.queue)
        return [f"lease {name}" for name in state.leases] + [f"server {name}" for name in state.servers]

    async def close(self) -> None: ...


async def open_door(settings: Settings) -> Door:
    return MemoryDoor(settings) if settings.type_broker == "memory" else await RedisDoor(settings).open()
