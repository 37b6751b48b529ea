"""A consumer's lease on what it has in its hands: renewed from the server's loop, and the others' that ran out taken over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prpc.brokers.awaiting import background
from prpc.brokers.redis_link import Link, moment
from prpc.brokers.redis_scripts import LOST, RENEW, TAKE_OVER
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["Entry", "Lease", "LeaseKeeper"]

log = logging.getLogger(__name__)

#: Seconds for which the loss of a lease is remembered, so that its owner cannot come back.
LOSS_REMEMBERED = 24 * 3600
#: Seconds behind the end of another consumer's lease at which it is looked for: Redis's clock and ours tick differently.
BEHIND_ITS_END = 0.02

#: Number of the stream, id, fields, deliveries.
Entry = tuple[int, bytes, Sequence[bytes], int]


@dataclass(slots=True, eq=False)
class Lease:
    """One consumer name and its key. A lost one never comes back: its owner takes a new name."""

    name: str
    key: str
    #: Monotonic seconds of the last renewal that Redis confirmed.
    renewed: float = float("-inf")
    lost: bool = False
    #: Entries under this lease that have not ended: (number of the stream, id).
    held: set[tuple[int, bytes]] = field(default_factory=set)


class LeaseKeeper:
    """Keeps the lease of one consumer; under a new name where it was lost.

    `declare` makes the groups again, `found` gets what was taken over, `lost` the lease that is gone, and `doubt` is called when
    an answer may have been lost with a connection: something may be ours without our knowing.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        consumer: str,
        settings: Settings,
        *,
        declare: Callable[[str], Awaitable[None]],
        found: Callable[[Lease, Sequence[Entry]], Awaitable[None]],
        lost: Callable[[Lease], None],
        doubt: Callable[[], None],
    ) -> None:
        self._link, self._queue, self._settings = link, queue, settings
        self._names = QueueNames(queue)
        self._streams = (self._names.calls, self._names.raw_calls)
        self._declare, self._found, self._lost, self._doubt = declare, found, lost, doubt
        self._first_name, self._number = consumer, 1
        self.lease = Lease(consumer, self._names.lease(consumer))
        self._epoch = link.epoch
        #: Monotonic seconds since which every other consumer could renew its lease.
        self._steady_since: float | None = None
        self._pause = settings.redis_heartbeat
        self._task: asyncio.Task[None] | None = None

    @property
    def kept(self) -> bool:
        """Whether it is renewed by itself."""
        return self._task is not None

    @property
    def stale(self) -> bool:
        """Whether the lease may have run out without our noticing, as after a pause of the whole process."""
        return self.lease.lost or time.monotonic() - self.lease.renewed > self._settings.redis_recover

    def head(self, lease: Lease) -> tuple[Any, ...]:
        """The first words of every fenced script."""
        return lease.name, round(self._settings.redis_recover * 1000), self._settings.group_name

    def start(self) -> None:
        """Renew from now on. Idempotent."""
        if self._task is None:
            self._task = background(self._keep(), "prpc-redis-lease")

    async def stop(self) -> None:
        """Renew no more; the lease runs out by itself. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                for lost in await self.renew():
                    await self._take_over(lost)
            except BrokerUnavailableError as exc:
                log.warning("renewing the lease on queue %s failed: %s", self._queue, exc)

    async def renew(self) -> Sequence[bytes]:
        """Renew the lease and return the consumers that have none, if it is time to take them over."""
        if self._steady_since is None:
            self._steady_since = await self._redis_began()
        lease, asked = self.lease, time.monotonic()
        beat, recover = self._settings.redis_heartbeat, self._settings.redis_recover
        steady = asked - lease.renewed <= max(recover - beat, 1.5 * beat) or lease.renewed == float("-inf")
        keys = (lease.key, *self._streams)
        answer = await self._link.run(RENEW, keys, (*self.head(lease), self._names.lease("")))
        now = time.monotonic()
        if not steady or now - asked > recover - beat:
            self._steady_since = now
        if answer == LOST or lease.lost:
            self.take_new_name(lease)
            return ()
        there, seconds, microseconds, without, soonest = answer
        without = [name for name in without if _is_text(name)]
        self._link.clock.learn(*moment(seconds, microseconds), asked)
        lease.renewed = now
        if self._epoch != self._link.epoch:
            self._epoch, self._steady_since = self._link.epoch, now
            self._doubt()
        if not there:
            await self._declare(self._queue)
        # After a cut or a restart the others need a whole interval to renew what they hold.
        wait = self._steady_since + recover - now
        soon = max(wait, 0.0) if without else beat if soonest < 0 else soonest / 1000
        self._pause = min(beat, soon + BEHIND_ITS_END)
        return without if wait <= 0 else ()

    async def _redis_began(self) -> float:
        """Monotonic seconds since which Redis runs; now where it does not say so."""
        now = time.monotonic()
        try:
            info = await self._link.call("INFO", "server", patience=self._settings.connect_timeout)
            uptime = next(line for line in bytes(info).splitlines() if line.startswith(b"uptime_in_seconds:"))
            return now - int(uptime.partition(b":")[2])
        except (BrokerUnavailableError, StopIteration, ValueError) as exc:
            log.debug("how long Redis runs is not known: %s", exc)
            return now

    def take_new_name(self, lost: Lease) -> None:
        """The lease is gone: go on under another one."""
        lost.lost = True
        if lost is self.lease:
            self._number += 1
            name = f"{self._first_name}.{self._number}"
            log.warning("the lease of consumer %s ran out and others took its calls over; going on as %s", lost.name, name)
            self.lease = Lease(name, self._names.lease(name))
            self._lost(lost)

    async def _take_over(self, lost: bytes) -> None:
        lease, name = self.lease, lost.decode()
        keys = (lease.key, *self._streams, self._names.lease(name))
        entries = await self._link.run(TAKE_OVER, keys, (*self.head(lease), name, LOSS_REMEMBERED))
        if entries == LOST:
            self.take_new_name(lease)
        elif entries:
            log.warning("consumer %s lost its lease: %d calls of queue %s taken over", name, len(entries), self._queue)
            await self._found(lease, [tuple(entry) for entry in entries])


def _is_text(name: bytes) -> bool:
    """Whether it may be a name of ours: whoever else reads with our group is left alone."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
