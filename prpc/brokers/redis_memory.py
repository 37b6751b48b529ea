"""What the scripts of admission and claim share: the message ids of the last minutes, and how a doubled entry is answered.

Ids are remembered in stretches of time by Redis's own clock: a set for those that were admitted (14 bytes each), a hash for
those that a server claimed (id to the entry that may run). A stretch is half of the window, at least SHORTEST; each key runs
out one window after its stretch ended.
"""

from __future__ import annotations

from uuid import UUID

__all__ = ["FIRST_OUTCOME", "KNOWN_IDS", "MAY_RUN", "SHORTEST", "remembered"]

#: Seconds of the shortest stretch: an id may be remembered for so long beyond the window.
SHORTEST = 60
#: Ids that may have callers waiting for another entry's outcome, and bytes of the callers' channels of one id.
MOST_OTHERS, MOST_CHANNELS = 10_000, 8192

#: Needs `now` (TIME), `limits` (key), `admitted` and `claimed` (starts of keys), `window` (used where no server set one).
#: Gives `window`, `most`, `sets` and `claims` (keys, the last one is the current), `ends` (unix seconds).
KNOWN_IDS = f"""
local chosen = redis.call('HMGET', limits, 'window', 'length')
if chosen[1] then window, most = chosen[1], chosen[2] end
window, most = tonumber(window), tonumber(most)
local width = math.max({SHORTEST}, math.ceil(window / 2))
local stretch = math.floor(now[1] / width)
local ends = string.format('%.0f', (stretch + 1) * width + window)
local sets, claims = {{}}, {{}}
for s = stretch - math.ceil(window / width), stretch do
  local name = string.format('%.0f_%.0f', width, s)
  sets[#sets + 1], claims[#claims + 1] = admitted .. name, claimed .. name
end
"""

#: may_run(id, name): whether no other entry of this message id was admitted or claimed; if so, claims it for the entry `name`.
#: Asked again it answers the same. Stands behind KNOWN_IDS.
MAY_RUN = """
local function may_run(id, name)
  for _, key in ipairs(sets) do
    if redis.call('SISMEMBER', key, id) == 1 then return false end
  end
  for _, key in ipairs(claims) do
    local owner = redis.call('HGET', key, id)
    if owner and owner ~= name then return false end
  end
  redis.call('HSET', claims[#claims], id, name)
  redis.call('EXPIREAT', claims[#claims], ends)
  return true
end
"""

#: first_outcome(others, key, channel, seconds): wakes a further caller with the kept reply, or notes it for when it is there.
FIRST_OUTCOME = f"""
local function first_outcome(others, key, channel, seconds)
  if channel == '' then return end
  local kept = redis.pcall('GET', key)
  if type(kept) == 'string' then
    redis.call('PUBLISH', channel, #kept .. ':' .. kept)
    return
  end
  local channels = redis.call('HGET', others, key)
  if not channels and redis.call('HLEN', others) >= {MOST_OTHERS} then return end
  channels = channels or ''
  if #channels > {MOST_CHANNELS} or string.find('\\n' .. channels, '\\n' .. channel .. '\\n', 1, true) then return end
  redis.call('HSET', others, key, channels .. channel .. '\\n')
  redis.call('EXPIRE', others, seconds)
end
"""


def remembered(message_id: UUID) -> bytes:
    """What is remembered of an id: 14 bytes. Redis keeps a word of up to 14 bytes in 16, of 16 bytes in 32.

    The last two bytes are laid over the version's, which says the same for nearly all ids. Ids that count upwards stay apart;
    that two of a thousand million drawn ones meet has a chance of one in 10^15.
    """
    number = message_id.int
    return (number >> 16 ^ (number & 0xFFFF) << 48).to_bytes(14, "big")
