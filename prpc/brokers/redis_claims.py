"""Claims of entries that no admission vouches for: raw calls, entries made by hand, copies. One script for those of a read."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from prpc.brokers.redis_lease import Lease
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_memory import FIRST_OUTCOME, KNOWN_IDS, MAY_RUN, remembered
from prpc.brokers.redis_scripts import FENCE, LOST, Script
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["CLAIM", "Claims"]

#: Entries of one script.
CHUNK = 64

#: KEYS lease, stream, limits, others; ARGV consumer, lease ms, group, start of the sets, start of the hashes, window s, expiry s,
#: then per entry: message id, name of the entry, entry, key of the kept reply, channel of the caller.
#: Answers 1 for each that may run and 0 for each that was ended; asked again it answers the same.
CLAIM = Script(
    FENCE
    + FIRST_OUTCOME
    + """
local now, limits, admitted, claimed, window, most = redis.call('TIME'), KEYS[3], ARGV[4], ARGV[5], ARGV[6], 0
"""
    + KNOWN_IDS
    + MAY_RUN
    + """
local verdicts = {}
for at = 8, #ARGV, 5 do
  if may_run(ARGV[at], ARGV[at + 1]) then
    verdicts[#verdicts + 1] = 1
  else
    redis.call('XACK', KEYS[2], ARGV[3], ARGV[at + 2])
    redis.call('XDEL', KEYS[2], ARGV[at + 2])
    first_outcome(KEYS[4], ARGV[at + 3], ARGV[at + 4], ARGV[7])
    verdicts[#verdicts + 1] = 0
  end
end
return verdicts
"""
)


class _Delivery(Protocol):
    lease: Lease
    id: bytes
    raw: bool
    admitted: bool

    @property
    def key(self) -> tuple[int, bytes]: ...

    @property
    def name(self) -> bytes: ...


_Claim = tuple[_Delivery, UUID, str | None, asyncio.Future[bool]]


class Claims:
    """Gathers the claims of one tick."""

    def __init__(self, link: Link, names: QueueNames, settings: Settings, lease_ms: int) -> None:
        self._link, self._names, self._settings, self._lease_ms = link, names, settings, lease_ms
        self._streams = (names.calls, names.raw_calls)
        self._waiting: list[_Claim] = []

    def add(self, delivery: _Delivery, message_id: UUID, address: str | None) -> asyncio.Future[bool]:
        """Whether the delivery may run; see Delivery."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if delivery.admitted:
            done.set_result(True)
            return done
        if not self._waiting:
            self._link.before_write(self._send)
        self._waiting.append((delivery, message_id, address, done))
        return done

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting.sort(key=_order)
        for _, group in itertools.groupby(waiting, key=_order):
            claims = list(group)
            for at in range(0, len(claims), CHUNK):
                self._post(claims[at : at + CHUNK])

    def _post(self, claims: Sequence[_Claim]) -> None:
        names, first = self._names, claims[0][0]
        words: list[Any] = []
        for delivery, message_id, address, _ in claims:
            key = names.raw_feedback(message_id) if delivery.raw else names.feedback(message_id)
            channel = "" if address is None else names.reply(address)
            words += (remembered(message_id), delivery.name, delivery.id, key, channel)
        settings = self._settings
        head = (first.lease.name, self._lease_ms, settings.group_name, names.admitted, names.claimed)
        keys = (first.lease.key, self._streams[first.raw], names.limits, names.others)
        bounds = (settings.duplicate_window, settings.redis_expire)
        self._link.post(CLAIM, keys, (*head, *bounds, *words), partial(self._decide, claims, time.monotonic()))

    def _decide(self, claims: Sequence[_Claim], asked: float, answer: Any, error: Exception | None) -> None:
        """What may run, unless the lease may have run out meanwhile: then it is asked again, which changes no answer."""
        late = isinstance(answer, list) and (time.monotonic() - asked) * 1000 > self._lease_ms
        granted = [claim for claim, verdict in zip(claims, answer, strict=True) if verdict == 1] if late else []
        if granted:
            self._post(granted)
            claims = [claim for claim in claims if claim not in granted]
            answer = [0] * len(claims)
        _decide(claims, answer, error)


def _order(claim: _Claim) -> tuple[str, bool]:
    return claim[0].lease.key, claim[0].raw


def _decide(claims: Sequence[_Claim], answer: Any, error: Exception | None) -> None:
    lost = answer == LOST
    verdicts = answer if isinstance(answer, list) else [0] * len(claims)
    for (delivery, _, _, done), verdict in zip(claims, verdicts, strict=True):
        if error is None:  # else it stays pending, and must not be taken for one that was never seen
            delivery.lease.lost = delivery.lease.lost or lost
            delivery.admitted = verdict == 1
            if not delivery.admitted:
                delivery.lease.held.discard(delivery.key)
        if done.done():
            continue
        if error is None:
            done.set_result(delivery.admitted)
        else:
            done.set_exception(error)
            done.exception()
