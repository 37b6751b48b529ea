"""The Lua scripts: what must happen as one step. Each touches the keys of one queue only and runs on Redis 6.2.

Every script that ends a delivery begins with the fence: the lease key holds the consumer's name while the lease lasts, an
empty text once the consumer's entries were taken over, and is missing when it ran out or Redis lost it; in the last case
nobody took anything, so the owner simply has it again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

__all__ = ["ANNOUNCE", "BURY", "LEAVE", "LOST", "RELEASE", "RENEW", "SCRIPTS", "SETTLE", "TAKE_OVER", "Script"]

#: Answer of a fenced script whose lease is gone.
LOST = -1
#: Fields that the adapter adds to a re-added entry: crashes before it, and when it was first taken (milliseconds).
CRASHES_FIELD = "prpc_crashes"
BORN_FIELD = "prpc_born_ms"


@dataclass(frozen=True, slots=True)
class Script:
    """One script and the name under which Redis keeps it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


# KEYS[1] lease; ARGV 1 consumer, 2 lease in ms
_FENCE = """
local owner = redis.call('GET', KEYS[1])
if not owner then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif owner ~= ARGV[1] then return -1 end
"""

# Lua's unpack has room for about 8,000 values: entries with thousands of fields lose the last of them.
_COPY = """
local function copy(fields, into)
  for i = 1, math.min(#fields, 6000), 2 do
    if fields[i] ~= 'prpc_crashes' and fields[i] ~= 'prpc_born_ms' then
      into[#into + 1] = fields[i]
      into[#into + 1] = fields[i + 1]
    end
  end
  return into
end
"""

#: KEYS lease, stream; ARGV consumer, lease ms, group, expiry s, entries n, groups g, n ids, n x (key, body),
#: g x (channel, payload, first entry, last entry). A reply that came second wakes its reader with the first one.
SETTLE = Script(
    _FENCE
    + """
local stream, n, groups = KEYS[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local late = false
for at = 7 + n, 5 + 3 * n, 2 do
  if ARGV[at] ~= '' and not redis.call('SET', ARGV[at], ARGV[at + 1], 'NX', 'EX', ARGV[4]) then late = true end
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
return 1
"""
)

#: KEYS lease, stream, dead letters; ARGV consumer, lease ms, group, expiry s, id, key, body, channel, payload, reason, most kept.
BURY = Script(
    _FENCE
    + _COPY
    + """
local stream, id, key, payload = KEYS[2], ARGV[5], ARGV[6], ARGV[9]
local entry = redis.call('XRANGE', stream, id, id)[1]
if key ~= '' then
  if not redis.call('SET', key, ARGV[7], 'NX', 'EX', ARGV[4]) then
    local kept = redis.call('GET', key)
    payload = #kept .. ':' .. kept
  end
end
if ARGV[8] ~= '' then redis.call('PUBLISH', ARGV[8], payload) end
if redis.call('XACK', stream, ARGV[3], id) == 1 and entry then
  local fields = copy(entry[2], {'reason', ARGV[10], 'stream', stream, 'entry', id})
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[11], '*', unpack(fields))
end
redis.call('XDEL', stream, id)
return 1
"""
)

#: KEYS lease, stream; ARGV consumer, lease ms, group, then per entry: id, crashes before it, when it was first taken (ms).
RELEASE = Script(
    _FENCE
    + _COPY
    + """
for at = 4, #ARGV, 3 do
  if redis.call('XACK', KEYS[2], ARGV[3], ARGV[at]) == 1 then
    local entry = redis.call('XRANGE', KEYS[2], ARGV[at], ARGV[at])[1]
    if entry then
      local fields = copy(entry[2], {'prpc_crashes', ARGV[at + 1], 'prpc_born_ms', ARGV[at + 2]})
      redis.call('XADD', KEYS[2], '*', unpack(fields))
      redis.call('XDEL', KEYS[2], ARGV[at])
    end
  end
end
return 1
"""
)

#: KEYS lease, calls, raw calls; ARGV consumer, lease ms, group, start of every lease key.
#: Answers {is the group there?, seconds, microseconds, consumers without a lease}; LOST when the lease is gone.
RENEW = Script(
    _FENCE
    + """
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local there, without, seen = 1, {}, {}
for s = 2, 3 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[s], ARGV[3])
  if consumers.err then there = 0 else
    for _, info in ipairs(consumers) do
      local name = info[2]
      if not seen[name] and name ~= ARGV[1] and redis.call('GET', ARGV[4] .. name) ~= name then without[#without + 1] = name end
      seen[name] = true
    end
  end
end
local now = redis.call('TIME')
return {there, now[1], now[2], without}
"""
)

#: KEYS lease of the taker, calls, raw calls, lease of the lost one; ARGV taker, lease ms, group, lost one, memory of it in s.
#: Answers the entries: {number of the stream, id, fields, deliveries}.
TAKE_OVER = Script(
    _FENCE
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

#: KEYS lease, calls, raw calls; ARGV consumer, lease ms, group. Leaves the group where nothing is pending any more.
LEAVE = Script(
    _FENCE
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

SCRIPTS = (SETTLE, BURY, RELEASE, RENEW, TAKE_OVER, LEAVE, ANNOUNCE)
