"""Publishing: an id is remembered and its entry written in one step; what was published in one tick goes out together.

The entry names its own id, so a server that reads it knows without asking that no other entry of this message id may run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prpc.brokers.base import Outgoing, queue_full
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_memory import FIRST_OUTCOME, KNOWN_IDS
from prpc.brokers.redis_scripts import ADD_OWN, Script
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["ADMISSION_SCRIPTS", "Admission"]

#: Calls and bytes of one script: more would make client, Redis and server take turns.
CHUNK_CALLS = 64
CHUNK_BYTES = 1024 * 1024

#: KEYS stream, limits; ARGV start of the sets, start of the hashes, window s, bound, n, n ids, n x (number of words, words).
#: Answers 0 where all were added, else {length of the queue, number of each known call, minus the number of each refused one}.
ADMIT = Script(
    ADD_OWN
    + """
local limits, admitted, claimed, window, most = KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
"""
    + KNOWN_IDS
    + """
local n, known = tonumber(ARGV[5]), {}
local function see(command, key, absent)
  local found = redis.call(command, key, unpack(ARGV, 6, 5 + n))
  for i = 1, n do
    if found[i] ~= absent then known[i] = true end
  end
end
for _, key in ipairs(sets) do see('SMISMEMBER', key, 0) end
if redis.call('EXISTS', unpack(claims)) > 0 then
  for _, key in ipairs(claims) do see('HMGET', key, false) end
end
local length, room = 0, n
if most > 0 then
  length = redis.call('XLEN', KEYS[1])
  room = most - length
end
local fresh, answer = {}, {length}
for i = 1, n do
  if known[i] then answer[#answer + 1] = i
  elseif #fresh >= room then
    known[i] = true
    answer[#answer + 1] = -i
  else fresh[#fresh + 1] = ARGV[5 + i] end
end
if #fresh > 0 then
  redis.call('SADD', sets[#sets], unpack(fresh))
  redis.call('EXPIREAT', sets[#sets], ends)
end
answer[1] = length + #fresh
local at = 6 + n
for i = 1, n do
  local last = at + ARGV[at]
  if not known[i] then add_own(KEYS[1], unpack(ARGV, at + 1, last)) end
  at = last + 1
end
if #answer == 1 then return 0 end
return answer
"""
)

#: KEYS others, kept reply; ARGV channel, expiry s.
ANSWER_AGAIN = Script(FIRST_OUTCOME + "first_outcome(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) return 1")

#: A further attempt of one call. KEYS stream, limits, kept reply; ARGV start of the sets, start of the hashes, window s, bound,
#: id, channel, words of the entry. It is added while there is no outcome, and names its own id where it is the first to arrive.
#: Answers as ADMIT.
ADMIT_AGAIN = Script(
    ADD_OWN
    + """
local limits, admitted, claimed, window, most = KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
"""
    + KNOWN_IDS
    + """
local kept = redis.pcall('GET', KEYS[3])
if type(kept) == 'string' then
  redis.call('PUBLISH', ARGV[6], #kept .. ':' .. kept)
  return 0
end
local length = redis.call('XLEN', KEYS[1])
if most > 0 and length >= most then return {length, -1} end
local known = false
for _, key in ipairs(sets) do known = known or redis.call('SISMEMBER', key, ARGV[5]) == 1 end
for _, key in ipairs(claims) do known = known or redis.call('HEXISTS', key, ARGV[5]) == 1 end
if known then
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 7))
else
  redis.call('SADD', sets[#sets], ARGV[5])
  redis.call('EXPIREAT', sets[#sets], ends)
  add_own(KEYS[1], unpack(ARGV, 7))
end
return 0
"""
)

ADMISSION_SCRIPTS = (ADMIT, ANSWER_AGAIN, ADMIT_AGAIN)

_Waiting = tuple[Outgoing, asyncio.Future[None]]


class Admission:
    """Publishes the calls of one queue."""

    def __init__(self, link: Link, names: QueueNames, settings: Settings) -> None:
        self._link, self._names, self._settings = link, names, settings
        self._keys = (names.calls, names.limits)
        self._head = (names.admitted, names.claimed, settings.duplicate_window, settings.max_queue_length)
        self._waiting: list[_Waiting] = []
        #: Loop time after which what waits fails, if there is no connection.
        self._until = 0.0

    def add(self, call: Outgoing) -> asyncio.Future[None]:
        """Queue one call for the next write. Raises BrokerUnavailableError where the connection is not open."""
        done: asyncio.Future[None] = self._link.promise()
        if not self._waiting:
            self._until = done.get_loop().time() + self._settings.connect_timeout
            self._link.before_write(self._send)
        self._waiting.append((call, done))
        return done

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        patience = max(0.0, self._until - waiting[0][1].get_loop().time())
        for item in [item for item in waiting if item[0].again]:
            self._send_again(item, patience)
        for chunk in _chunks([item for item in waiting if not item[0].again]):
            words: list[Any] = [call.message_id.bytes for call, _ in chunk]
            for call, _ in chunk:
                words += (2 + 2 * len(call.facts), *_words(call))
            then = partial(self._admitted, chunk)
            self._link.post(ADMIT, self._keys, (*self._head, len(chunk), *words), then, patience, repeat=False)

    def _send_again(self, item: _Waiting, patience: float) -> None:
        call, names = item[0], self._names
        keys = (*self._keys, names.feedback(call.message_id))
        channel = "" if call.address is None else names.reply(call.address)
        words = (*self._head, call.message_id.bytes, channel, *_words(call))
        self._link.post(ADMIT_AGAIN, keys, words, partial(self._admitted, [item]), patience, repeat=False)

    def _admitted(self, chunk: Sequence[_Waiting], answer: Any, error: Exception | None) -> None:
        length, *numbers = answer or (0,)
        refused = {-number for number in numbers if number < 0}
        for number, (_, done) in enumerate(chunk, 1):
            if done.done():
                continue
            if error is not None:
                done.set_exception(error)
                done.exception()  # whoever does not await it has nothing to be told
            elif number in refused:
                done.set_exception(queue_full(self._names.queue, length))
                done.exception()
            else:
                done.set_result(None)
        for number in numbers:
            if number > 0:
                self._answer_again(chunk[number - 1][0])

    def _answer_again(self, call: Outgoing) -> None:
        if call.address is None:
            return
        keys = (self._names.others, self._names.feedback(call.message_id))
        words = (self._names.reply(call.address), self._settings.redis_expire)
        try:
            self._link.run(ANSWER_AGAIN, keys, words)
        except BrokerUnavailableError:
            return  # closed meanwhile: nobody waits here any more


def _words(call: Outgoing) -> list[Any]:
    """The fields of its entry."""
    words: list[Any] = ["message", call.body]
    for pair in call.facts.items():
        words += pair
    return words


def _chunks(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Bounded, and no id twice in one: the script looks at the ids before it adds any."""
    chunks: list[list[_Waiting]] = []
    size, ids = CHUNK_BYTES, set[UUID]()
    for item in waiting:
        call = item[0]
        length = len(call.body)
        if size + length > CHUNK_BYTES or len(ids) == CHUNK_CALLS or call.message_id in ids:
            chunks.append([])
            size, ids = 0, set()
        chunks[-1].append(item)
        ids.add(call.message_id)
        size += length
    return chunks
