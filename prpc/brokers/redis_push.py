"""What Redis pushes: one subscribed connection per reader, kept alive and opened again after a cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError

from prpc.brokers.awaiting import background
from prpc.brokers.base import Mail
from prpc.brokers.redis_address import RedisAddress, explain
from prpc.brokers.redis_batch import unframe
from prpc.brokers.redis_link import Backoff, Link
from prpc.brokers.redis_wire import Wire, pack
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames

__all__ = ["RedisListener", "RedisMailbox", "Subscription"]

log = logging.getLogger(__name__)

#: Seconds over which removals of delivered replies are gathered.
FORGET_EVERY = 0.005
#: Keys in one MGET or UNLINK.
KEYS_AT_ONCE = 512


class Subscription:
    """One channel. `receive` hands out what was pushed since the last time, to one receiver.

    After `silence` seconds without a word it is asked whether it still lives; as many again, and it counts as dead.
    """

    def __init__(self, address: RedisAddress, channel: str, silence: float) -> None:
        self._address, self._channel, self._silence = address, channel, silence
        self._payloads: list[bytes] = []
        self._gap = False
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe. Raises BrokerUnavailableError."""
        wire = await self._subscribe()
        self._task = background(self._run(wire), "prpc-redis-push")

    async def _subscribe(self) -> Wire:
        wire = await self._address.open()
        wire.receive = self._received
        try:
            async with asyncio.timeout(self._address.connect_timeout):
                await wire.ask(pack(("SUBSCRIBE", self._channel)))
        except (RedisError, OSError) as exc:
            await wire.hang_up()
            raise explain(exc, self._address) from exc
        except BaseException:
            await wire.hang_up()
            raise
        return wire

    async def receive(self) -> tuple[Sequence[bytes], bool]:
        """Wait; the payloads, and whether some may have been missed before them."""
        while not self._payloads and not self._gap:
            if self._task is None or self._task.done():
                raise BrokerUnavailableError("the reply connection was closed", url=self._address.shown)
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        payloads, self._payloads = self._payloads, []
        gap, self._gap = self._gap, False
        return payloads, gap

    async def close(self) -> None:
        """Leave. Idempotent."""
        if self._task is not None:
            await asyncio.sleep(0)  # a task that is cancelled before its first step could not close its connection
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _received(self, answer: Any) -> None:
        if isinstance(answer, RedisError):
            raise answer
        if answer[0] == b"message":
            self._payloads.append(answer[2])
            self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _run(self, wire: Wire) -> None:
        try:
            while True:
                await self._serve(wire)
                wire = await self._again()
                self._gap = True
                self._tell()
        finally:
            self._tell()

    async def _serve(self, wire: Wire) -> None:
        pings = background(self._ping(wire))
        try:
            reason = await wire.lost
            log.warning("the push connection to Redis at %s was lost (%s); trying again", self._address.shown, reason)
        finally:
            pings.cancel()
            await asyncio.gather(pings, return_exceptions=True)
            await wire.hang_up()

    async def _ping(self, wire: Wire) -> None:
        while True:
            heard = wire.heard
            await asyncio.sleep(self._silence)
            if wire.heard != heard:
                continue
            wire.write(pack(("PING",)))
            await asyncio.sleep(self._silence)
            if wire.heard == heard:
                wire.give_up(TimeoutError(f"no answer for {self._silence:g} s"))
                return

    async def _again(self) -> Wire:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.next())
            try:
                return await self._subscribe()
            except BrokerUnavailableError as exc:
                log.debug("%s", exc)


class RedisMailbox:
    """See prpc.brokers.base.Mailbox."""

    def __init__(self, link: Link, queue: str, client: str) -> None:
        self._link, self._names, self.address = link, QueueNames(queue), client
        self._subscription = Subscription(link.address, self._names.reply(client), link.silence)
        self._forgotten: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Be ready to receive. Raises BrokerUnavailableError."""
        await self._subscription.open()

    async def receive(self) -> Mail:
        """See Mailbox."""
        payloads, gap = await self._subscription.receive()
        return Mail([body for payload in payloads for body in unframe(payload)], gap)

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """See Mailbox. Raises BrokerUnavailableError when there is no connection within the connect timeout."""
        ids = list(message_ids)
        found: dict[UUID, bytes] = {}
        for at in range(0, len(ids), KEYS_AT_ONCE):
            some = ids[at : at + KEYS_AT_ONCE]
            keys = [self._names.feedback(i) for i in some]
            bodies = await self._link.call("MGET", *keys, patience=self._link.address.connect_timeout)
            found.update((i, body) for i, body in zip(some, bodies, strict=True) if body is not None)
        return found

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """See Mailbox."""
        self._forgotten.extend(self._names.feedback(i) for i in message_ids)
        if self._timer is None and self._forgotten:
            self._timer = asyncio.get_running_loop().call_later(FORGET_EVERY, self._send_forgotten)

    def _send_forgotten(self) -> None:
        self._timer = None
        keys, self._forgotten = self._forgotten, []
        if self._link.closed:
            return
        for at in range(0, len(keys), KEYS_AT_ONCE):
            self._link.call("UNLINK", *keys[at : at + KEYS_AT_ONCE])

    async def close(self) -> None:
        """See Mailbox."""
        if self._timer is not None:
            self._timer.cancel()
            self._send_forgotten()
        await self._subscription.close()


class RedisListener:
    """See prpc.brokers.base.Listener."""

    def __init__(self, link: Link, queue: str) -> None:
        self._subscription = Subscription(link.address, QueueNames(queue).control, link.silence)

    async def open(self) -> None:
        """Hear from now on. Raises BrokerUnavailableError."""
        await self._subscription.open()

    async def receive(self) -> Sequence[bytes]:
        """See Listener."""
        while True:
            payloads, _ = await self._subscription.receive()
            if payloads:
                return payloads

    async def close(self) -> None:
        """See Listener."""
        await self._subscription.close()
