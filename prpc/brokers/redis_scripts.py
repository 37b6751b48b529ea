"""The Lua scripts: what must happen as one step. Each touches the keys of one queue only and runs on Redis 6.2.

Every script that ends a delivery begins with the fence: the lease key holds the consumer's name while the lease lasts, an
empty text once the consumer's entries were taken over, and is missing when it ran out or Redis lost it; in the last case
nobody took anything, so the owner simply has it again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from prpc.brokers.redis_memory import FIRST_OUTCOME, KNOWN_IDS, MAY_RUN

__all__ = [
    "ADD_OWN",
    "ANNOUNCE",
    "BURY",
    "FENCE",
    "LEAVE",
    "LOST",
    "RECLAIM",
    "RELEASE",
    "RENEW",
    "SCRIPTS",
    "SETTLE",
    "TAKE_OVER",
    "WAKE_OTHERS",
    "Script",
]

#: Answer of a fenced script whose lease is gone.
LOST = -1
#: Fields that the adapter adds to a re-added entry: crashes before it, and when it was first taken (milliseconds).
CRASHES_FIELD = "prpc_crashes"
BORN_FIELD = "prpc_born_ms"
#: Field in which an entry that was admitted names its own id: a copy of it stands under another one.
OWN_FIELD = "own"


@dataclass(frozen=True, slots=True)
class Script:
    """One script and the name under which Redis keeps it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


# KEYS[1] lease; ARGV 1 consumer, 2 lease in ms
FENCE = """
local owner = redis.call('GET', KEYS[1])
if not owner then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif owner ~= ARGV[1] then return -1 end
"""

# Lua's unpack has room for about 8,000 values: entries with thousands of fields lose the last of them, but not the message.
_COPY = """
local function copy(fields, into)
  local most, large = #into + 6000, #fields > 6000
  local function add(first)
    for i = 1, #fields, 2 do
      local name = fields[i]
      if #into < most and (not large or (name == 'message') == first)
          and name ~= 'prpc_crashes' and name ~= 'prpc_born_ms' and name ~= 'own' then
        into[#into + 1] = name
        into[#into + 1] = fields[i + 1]
      end
    end
  end
  if large then add(true) end
  add(false)
  return into
end
"""

#: add_own(stream, fields...): adds an entry that names its own id. One clock for the whole script; where the stream is ahead
#: of it (a clock that was set back, an id made by hand) the entry goes behind the stream's last one.
ADD_OWN = """
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local seq = (now[2] % 1000) * 100000
local function add_own(stream, ...)
  seq = seq + 1
  local id = ms .. '-' .. string.format('%.0f', seq)
  if type(redis.pcall('XADD', stream, id, 'own', id, ...)) ~= 'table' then return end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local last_ms, last_seq = string.match(info[i + 1], '(%d+)-(%d+)')
      ms, seq = last_ms, tonumber(last_seq) + 1
      if #last_seq > 15 then ms, seq = string.format('%.0f', tonumber(last_ms) + 1), 0 end -- Lua would round it
    end
  end
  id = ms .. '-' .. string.format('%.0f', seq)
  redis.call('XADD', stream, id, 'own', id, ...)
end
"""

#: keep(key, reply, seconds): keeps a reply unless there is one; whether it did. What is no text was never a reply.
KEEP = """
local function keep(key, reply, seconds)
  if redis.call('SET', key, reply, 'NX', 'EX', seconds) then return true end
  if redis.call('TYPE', key).ok == 'string' then return false end
  redis.call('SET', key, reply, 'EX', seconds)
  return true
end
"""

#: wake_others(others, key): hands the kept reply to the callers of doubled entries that wait for it.
WAKE_OTHERS = """
local function wake_others(others, key)
  local channels = redis.call('HGET', others, key)
  if not channels then return end
  redis.call('HDEL', others, key)
  local kept = redis.call('GET', key)
  for channel in string.gmatch(channels, '[^\\n]+') do redis.call('PUBLISH', channel, #kept .. ':' .. kept) end
end
"""

#: KEYS lease, stream, others; ARGV consumer, lease ms, group, expiry s, entries n, groups g, n ids, n x (key, body),
#: g x (channel, payload, first entry, last entry). A reply that came second wakes its reader with the first one.
SETTLE = Script(
    FENCE
    + KEEP
    + WAKE_OTHERS
    + """
local stream, n, groups = KEYS[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local late = false
for at = 7 + n, 5 + 3 * n, 2 do
  if ARGV[at] ~= '' and not keep(ARGV[at], ARGV[at + 1], ARGV[4]) then late = true end
end
redis.call('XACK', stream, ARGV[3], unpack(ARGV, 7, 6 + n))
redis.call('XDEL', stream, unpack(ARGV, 7, 6 + n))
for at = 7 + 3 * n, 3 + 3 * n + 4 * groups, 4 do
  local payload = ARGV[at + 1]
  if late then
    local parts = {}
    for i = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]) do
      local kept = redis.call('GET', ARGV[5 + n + 2 * i])
      parts[#parts + 1] = #kept .. ':' .. kept
    end
    payload = table.concat(parts)
  end
  redis.call('PUBLISH', ARGV[at], payload)
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  for at = 7 + n, 5 + 3 * n, 2 do
    if ARGV[at] ~= '' then wake_others(KEYS[3], ARGV[at]) end
  end
end
return 1
"""
)

#: KEYS lease, stream, dead letters, others, limits;
#: ARGV consumer, lease ms, group, expiry s, id, key, body, channel, payload, reason, most kept,
#: details, attempts, when it was first taken (ms), then start of the sets, start of the hashes, window s, and for an entry that
#: nobody claimed its message id and its name, else empty. What stands in the letter before the entry's own fields: redis_dead.
BURY = Script(
    FENCE
    + KEEP
    + WAKE_OTHERS
    + FIRST_OUTCOME
    + """
local now, limits, admitted, claimed, window, most = redis.call('TIME'), KEYS[5], ARGV[15], ARGV[16], ARGV[17], 0
"""
    + KNOWN_IDS
    + MAY_RUN
    + """
local stream, id, key, payload = KEYS[2], ARGV[5], ARGV[6], ARGV[9]
local entry = redis.call('XRANGE', stream, id, id)[1]
if ARGV[18] ~= '' and not may_run(ARGV[18], ARGV[19]) then
  first_outcome(KEYS[4], key, ARGV[8], ARGV[4])
else
  if key ~= '' then
    if not keep(key, ARGV[7], ARGV[4]) then
      local kept = redis.call('GET', key)
      payload = #kept .. ':' .. kept
    end
    wake_others(KEYS[4], key)
  end
  if ARGV[8] ~= '' then redis.call('PUBLISH', ARGV[8], payload) end
end
if redis.call('XACK', stream, ARGV[3], id) == 1 and entry then
  local kept, rest = {}, {}
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name ~= 'prpc_crashes' and name ~= 'prpc_born_ms' and not (name == 'own' and value == id) then
      if #kept < 6000 then
        kept[#kept + 1] = name
        kept[#kept + 1] = value
      else
        rest[#rest + 1] = #name .. ':' .. name .. #value .. ':' .. value
      end
    end
  end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[11], '*', 'reason', ARGV[10], 'details', ARGV[12], 'stream', stream,
    'entry', id, 'attempts', ARGV[13], 'sent_ms', ARGV[14], 'rest', table.concat(rest), unpack(kept))
end
redis.call('XDEL', stream, id)
return 1
"""
)

#: KEYS lease, stream; ARGV consumer, lease ms, group, then per entry: id, crashes before it, when it was first taken (ms),
#: 1 where it is the one of its message id that may run.
RELEASE = Script(
    FENCE
    + _COPY
    + ADD_OWN
    + """
for at = 4, #ARGV, 4 do
  if redis.call('XACK', KEYS[2], ARGV[3], ARGV[at]) == 1 then
    local entry = redis.call('XRANGE', KEYS[2], ARGV[at], ARGV[at])[1]
    if entry then
      local fields = copy(entry[2], {'prpc_crashes', ARGV[at + 1], 'prpc_born_ms', ARGV[at + 2]})
      if ARGV[at + 3] == '1' then add_own(KEYS[2], unpack(fields)) else redis.call('XADD', KEYS[2], '*', unpack(fields)) end
      redis.call('XDEL', KEYS[2], ARGV[at])
    end
  end
end
return 1
"""
)

#: KEYS lease, calls, raw calls; ARGV consumer, lease ms, group, start of every lease key.
#: Answers {is the group there?, seconds, microseconds, consumers without a lease, ms until the next lease of another ends or -1};
#: LOST when the lease is gone.
RENEW = Script(
    FENCE
    + """
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local there, without, seen, soonest = 1, {}, {}, -1
for s = 2, 3 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[s], ARGV[3])
  if consumers.err then there = 0 else
    for _, info in ipairs(consumers) do
      local name = info[2]
      if not seen[name] and name ~= ARGV[1] then
        if redis.call('GET', ARGV[4] .. name) ~= name then without[#without + 1] = name else
          local left = redis.call('PTTL', ARGV[4] .. name)
          if soonest < 0 or left < soonest then soonest = left end
        end
      end
      seen[name] = true
    end
  end
end
local now = redis.call('TIME')
return {there, now[1], now[2], without, soonest}
"""
)

#: KEYS lease of the taker, calls, raw calls, lease of the lost one; ARGV taker, lease ms, group, lost one, memory of it in s.
#: Answers the entries: {number of the stream, id, fields, deliveries}.
TAKE_OVER = Script(
    FENCE
    + """
local group, lost, taken = ARGV[3], ARGV[4], {}
if redis.call('GET', KEYS[4]) == lost then return taken end
for s = 2, 3 do
  while true do
    local pending = redis.call('XPENDING', KEYS[s], group, '-', '+', 256, lost)
    if #pending == 0 then break end
    local ids, found = {}, {}
    for i, entry in ipairs(pending) do ids[i] = entry[1] end
    local claimed = redis.call('XCLAIM', KEYS[s], group, ARGV[1], 0, unpack(ids))
    for i = 1, #ids do
      if claimed[i] and claimed[i][2] then found[claimed[i][1]] = claimed[i][2] end
    end
    for _, entry in ipairs(pending) do
      if found[entry[1]] then taken[#taken + 1] = {s - 2, entry[1], found[entry[1]], entry[4] + 1}
      else redis.call('XACK', KEYS[s], group, entry[1]) end
    end
  end
  redis.call('XGROUP', 'DELCONSUMER', KEYS[s], group, lost)
end
if #taken > 0 then redis.call('SET', KEYS[4], '', 'EX', ARGV[5]) end
return taken
"""
)

#: KEYS lease, calls, raw calls; ARGV consumer, lease ms, group, name before, then per entry: number of the stream, id.
#: What was read under the name before, and taken over by nobody, is this consumer's now. Answers the places of those entries.
RECLAIM = Script(
    FENCE
    + """
local mine = {}
for at = 5, #ARGV, 2 do
  local stream, id = KEYS[ARGV[at] + 2], ARGV[at + 1]
  if #redis.call('XPENDING', stream, ARGV[3], id, id, 1, ARGV[4]) == 1 then
    redis.call('XCLAIM', stream, ARGV[3], ARGV[1], 0, id, 'JUSTID')
    mine[#mine + 1] = (at - 5) / 2
  end
end
return mine
"""
)

#: KEYS lease, calls, raw calls; ARGV consumer, lease ms, group. Leaves the group where nothing is pending any more.
LEAVE = Script(
    FENCE
    + """
local clean = 1
for s = 2, 3 do
  if redis.call('EXISTS', KEYS[s]) == 1 then
    local pending = redis.call('XPENDING', KEYS[s], ARGV[3], '-', '+', 1, ARGV[1])
    if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[s], ARGV[3], ARGV[1]) else clean = 0 end
  end
end
if clean == 1 then redis.call('DEL', KEYS[1]) end
return clean
"""
)

#: KEYS servers, one server; ARGV instance, record, time to live in ms.
ANNOUNCE = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', ms))
redis.call('ZADD', KEYS[1], string.format('%.0f', ms + ARGV[3]), ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
""")

SCRIPTS = (SETTLE, BURY, RELEASE, RENEW, TAKE_OVER, RECLAIM, LEAVE, ANNOUNCE)
