"""How long a queue on Redis is and what becomes of it, in one round trip."""

from __future__ import annotations

from prpc.brokers.base import QueueState
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_scripts import BORN_FIELD, Script
from prpc.names import QueueNames

__all__ = ["STATE", "read_state"]

#: KEYS calls, raw calls, dead letters; ARGV group, name of the field that holds when an entry was first taken.
#: Answers {seconds, dead letters, then per stream: entries, pending ones, id of the next one, when it was taken}; '' is none.
STATE = Script("""
local answer = {redis.call('TIME')[1], redis.call('XLEN', KEYS[3])}
for s = 1, 2 do
  local pending, last, id, born = 0, '0-0', '', ''
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[s])
  for _, group in ipairs(groups.err and {} or groups) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info['name'] == ARGV[1] then pending, last = info['pending'], info['last-delivered-id'] end
  end
  local first = redis.call('XRANGE', KEYS[s], '(' .. last, '+', 'COUNT', 1)[1]
  if first then
    id = first[1]
    for i = 1, #first[2], 2 do
      if first[2][i] == ARGV[2] then born = first[2][i + 1] end
    end
  end
  for _, value in ipairs({redis.call('XLEN', KEYS[s]), pending, id, born}) do answer[#answer + 1] = value end
end
return answer
""")


async def read_state(link: Link, names: QueueNames, group: str, patience: float) -> QueueState:
    """See Broker.state."""
    keys = (names.calls, names.raw_calls, names.dead)
    seconds, dead, *streams = await link.run(STATE, keys, (group, BORN_FIELD), patience=patience)
    waiting = running = 0
    ages: list[float] = []
    for length, pending, id_, born in (streams[:4], streams[4:]):
        waiting += max(0, length - pending)
        running += pending
        if id_:
            since = born if born.isdigit() and len(born) < 16 else id_.partition(b"-")[0]
            ages.append(max(0.0, int(seconds) - int(since) / 1000))
    return QueueState(waiting, running, max(ages) if ages else None, dead)
