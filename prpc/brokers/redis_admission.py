"""Publishing: an id is remembered and its entry written in one step; what was published in one tick goes out together.

The entry names its own id, so a server that reads it knows without asking that no other entry of this message id may run.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from prpc.brokers.base import Outgoing, queue_full
from prpc.brokers.redis_link import Link, Then
from prpc.brokers.redis_memory import FIRST_OUTCOME, KNOWN_IDS, remembered
from prpc.brokers.redis_scripts import ADD_OWN, Script
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["ADMISSION_SCRIPTS", "Admission"]

#: Calls and bytes of one script: more would make client, Redis and server take turns.
CHUNK_CALLS = 64
CHUNK_BYTES = 128 * 1024

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


class _Batch:
    """Calls that go out as one script: bounded, and no id twice, as the script looks at the ids before it adds any."""

    __slots__ = ("calls", "done", "ids", "own", "size")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.calls: list[Outgoing] = []
        #: The calls' ids, in their order.
        self.ids: dict[bytes, None] = {}
        #: Bytes of the calls.
        self.size = 0
        #: For all that can be told apart in another way; the others have one of their own, by their place.
        self.done = done
        self.own: dict[int, asyncio.Future[None]] = {}

    def takes(self, call: Outgoing, message_id: bytes, size: int) -> bool:
        """Whether there is room for it."""
        if len(self.calls) == CHUNK_CALLS or self.size + size > CHUNK_BYTES:
            return False
        return not (call.again or message_id in self.ids or self.calls[0].again)


class Admission:
    """Publishes the calls of one queue."""

    def __init__(self, link: Link, names: QueueNames, settings: Settings) -> None:
        self._link, self._names, self._settings = link, names, settings
        self._keys = (names.calls, names.limits)
        self._head = (names.admitted, names.claimed, settings.duplicate_window, settings.max_queue_length)
        self._waiting: list[_Batch] = []
        #: Loop time after which what waits fails, if there is no connection.
        self._until = 0.0

    def add(self, call: Outgoing) -> asyncio.Future[None]:
        """Queue one call for the next write. Raises BrokerUnavailableError where the connection is not open."""
        message_id, size = remembered(call.message_id), len(call.body)
        batch = self._waiting[-1] if self._waiting else None
        if batch is None or not batch.takes(call, message_id, size):
            done = self._link.promise()
            if batch is None:
                self._until = done.get_loop().time() + self._settings.connect_timeout
                self._link.before_write(self._send)
            batch = _Batch(done)
            self._waiting.append(batch)
        batch.calls.append(call)
        batch.ids[message_id] = None
        batch.size += size
        if call.refused is not None:
            return batch.done
        own = batch.own[len(batch.calls)] = self._link.promise()
        return own

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        patience = max(0.0, self._until - waiting[0].done.get_loop().time())
        for batch in waiting:
            calls, then = batch.calls, partial(self._admitted, batch)
            if calls[0].again:
                self._send_again(calls[0], then, patience)
                continue
            words: list[Any] = [*batch.ids]
            for call in calls:
                words += (2 + 2 * len(call.facts), "message", call.body)
                for pair in call.facts.items():
                    words += pair
            head = (*self._head, len(calls))
            self._link.post(ADMIT, self._keys, (*head, *words), then, patience, repeat=False, size=batch.size)

    def _send_again(self, call: Outgoing, then: Then, patience: float) -> None:
        names = self._names
        keys = (*self._keys, names.feedback(call.message_id))
        channel = "" if call.address is None else names.reply(call.address)
        fields = [word for pair in call.facts.items() for word in pair]
        words = (*self._head, remembered(call.message_id), channel, "message", call.body, *fields)
        self._link.post(ADMIT_AGAIN, keys, words, then, patience, repeat=False)

    def _admitted(self, batch: _Batch, answer: Any, error: Exception | None) -> None:
        length, *numbers = answer or (0,)
        for number in numbers:
            if number > 0:
                self._answer_again(batch.calls[number - 1])
            else:
                self._refuse(batch, -number, queue_full(self._names.queue, length))
        for done in (batch.done, *batch.own.values()):
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
                done.exception()  # whoever does not await it has nothing to be told

    @staticmethod
    def _refuse(batch: _Batch, number: int, error: Exception) -> None:
        own, tell = batch.own.get(number), batch.calls[number - 1].refused
        if tell is not None:
            batch.done.get_loop().call_soon(tell, error)
        elif own is not None and not own.done():
            own.set_exception(error)
            own.exception()

    def _answer_again(self, call: Outgoing) -> None:
        if call.address is None:
            return
        keys = (self._names.others, self._names.feedback(call.message_id))
        words = (self._names.reply(call.address), self._settings.redis_expire)
        try:
            self._link.run(ANSWER_AGAIN, keys, words)
        except BrokerUnavailableError:
            return  # closed meanwhile: nobody waits here any more
