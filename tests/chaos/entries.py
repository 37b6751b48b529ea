"""Faults of the queue's entries: doubled, and taken out and put back later in another order, as a proxy or an operator may do it.

An entry names its own id in the field `own` (docs/decisions/0012-at-most-once.md). Who moves one and knows that gives the
moved one its new id there. Who does not know it makes what looks like a copy, and copies never run: the call of a function
that is not idempotent is lost then, and its caller learns it from its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from prpc.codec import Codec
from prpc.names import QueueNames
from tests.chaos.options import GROUP, QUEUE
from tests.chaos.world import World

__all__ = ["copy_entries", "move_entries", "move_entries_blindly"]

STREAM = QueueNames(QUEUE).calls
Fields = dict[bytes, bytes]

#: KEYS stream; ARGV group, most. Takes entries out that no server was given, and answers their ids and fields.
TAKE_OUT = """
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if group[2] == ARGV[1] then last = group[8] end
end
local taken = {}
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', ARGV[2])) do
  redis.call('XDEL', KEYS[1], entry[1])
  taken[i] = entry
end
return taken
"""

#: KEYS stream; ARGV names and values. Adds an entry that names the id that it gets now.
PUT_BACK = """
local info, last_ms, last_seq = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last_ms, last_seq = string.match(info[i + 1], '(%d+)-(%d+)') end
end
local id = last_ms .. '-' .. string.format('%.0f', last_seq + 1)
for i = 1, #ARGV, 2 do
  if ARGV[i] == 'own' then ARGV[i + 1] = id end
end
return redis.call('XADD', KEYS[1], id, unpack(ARGV))
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry outside its stream, or about to be copied."""

    id: bytes
    fields: Fields

    @property
    def message_id(self) -> str:
        return str(Codec().read_call(self.fields[b"message"]).message_id)

    @property
    def is_original(self) -> bool:
        """Whether it is no copy: to give a copy its own id would be to forge a call."""
        return self.fields.get(b"own") == self.id

    def shuffled(self, world: World) -> Fields:
        """Its fields in an order that is drawn."""
        return dict(world.random.sample(list(self.fields.items()), len(self.fields)))

    def words(self) -> list[bytes]:
        return [word for pair in self.fields.items() for word in pair]


async def copy_entries(world: World) -> None:
    """Entries stand in the queue once more, or often: at once, and when their call has long had its outcome."""
    with contextlib.suppress(RedisError):  # it may be away, or refuse: there is less to copy then
        await _copy(world, [Entry(*entry) for entry in await world.redis.admin.xrange(STREAM, count=200)])


async def _copy(world: World, found: Sequence[Entry]) -> None:
    chosen = world.random.sample(found, min(len(found), 20))
    with world.fault(f"{len(chosen)} entries are copied"):
        for wait in (0.0, world.random.uniform(0.0, 1.0)):
            await asyncio.sleep(wait)
            for entry in chosen:
                for _ in range(world.random.choice((1, 1, 1, 5))):
                    await world.redis.admin.xadd(STREAM, entry.shuffled(world))


async def move_entries(world: World) -> None:
    """Entries are taken out of the queue before a server has them, and put back later behind younger ones, in another order."""
    taken = await take_out(world)
    with world.fault(f"{len(taken)} entries are moved"):
        await asyncio.sleep(world.random.uniform(0.0, 0.5))
        for entry in taken:
            if entry.is_original:
                await world.redis.admin.eval(PUT_BACK, 1, STREAM, *entry.words())  # type: ignore[misc]
            else:
                await world.redis.admin.xadd(STREAM, entry.shuffled(world))


async def move_entries_blindly(world: World) -> None:
    """The same by somebody who puts every field back as it was."""
    taken = await take_out(world)
    with world.fault(f"{len(taken)} entries are moved blindly", calls=[entry.message_id for entry in taken]):
        await asyncio.sleep(world.random.uniform(0.0, 0.5))
        for entry in taken:
            await world.redis.admin.xadd(STREAM, entry.shuffled(world))


async def take_out(world: World) -> Sequence[Entry]:
    taken = await world.redis.admin.eval(TAKE_OUT, 1, STREAM, GROUP, 20)  # type: ignore[misc]
    entries = [Entry(id_, dict(zip(fields[::2], fields[1::2], strict=True))) for id_, fields in taken]
    world.random.shuffle(entries)
    return entries
