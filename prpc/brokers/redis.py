"""The Redis broker: streams with a consumer group for the calls, keys and a channel for the replies.

One pipelining connection per process carries all short commands (redis_link), each consumer reads on a connection of its own
(redis_consumer), each mailbox and listener has a subscribed one (redis_push); what must be one step is a script
(redis_scripts). Driver errors leave as BrokerUnavailableError only.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Sequence

from redis.exceptions import ResponseError

from prpc.brokers.base import Capabilities, Outgoing, ServerRecord
from prpc.brokers.redis_address import RedisAddress
from prpc.brokers.redis_consumer import RedisConsumer
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_push import RedisListener, RedisMailbox
from prpc.brokers.redis_scripts import ANNOUNCE, SCRIPTS
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["RedisBroker"]


class RedisBroker:
    """See prpc.brokers.base.Broker."""

    capabilities = Capabilities()

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the URL cannot be used; nothing is opened yet."""
        self._settings = settings
        self._patience = settings.connect_timeout
        self._link = Link(RedisAddress.parse(settings.url_broker, settings.connect_timeout), SCRIPTS)
        self._parts: list[RedisConsumer | RedisMailbox | RedisListener] = []
        self._streams: dict[str, str] = {}

    async def connect(self) -> None:
        """See Broker."""
        await self._link.connect()

    async def close(self) -> None:
        """See Broker."""
        parts, self._parts = self._parts, []
        for part in parts:
            await part.close()
        await self._link.close()

    async def ping(self) -> float:
        """See Broker. Raises BrokerUnavailableError when there is no connection within the connect timeout."""
        start = time.perf_counter()
        await self._link.call("PING", patience=self._patience)
        return time.perf_counter() - start

    def now(self) -> float:
        """See Broker."""
        return self._link.clock.now()

    async def declare(self, queue: str) -> None:
        """See Broker."""
        names = QueueNames(queue)
        for stream in (names.calls, names.raw_calls):
            try:
                await self._link.call("XGROUP", "CREATE", stream, self._settings.group_name, "0", "MKSTREAM")
            except BrokerUnavailableError as exc:
                if not (isinstance(exc.__cause__, ResponseError) and "BUSYGROUP" in str(exc.__cause__)):
                    raise

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """See Broker.

        Raises BrokerUnavailableError when there was no connection within the connect timeout (the call was not sent), or when
        it broke before Redis answered (whether the call was accepted is not known, and it is not sent again).
        """
        stream = self._streams.get(queue)
        if stream is None:
            stream = self._streams[queue] = QueueNames(queue).calls
        fields = [word for pair in call.facts.items() for word in pair]
        return self._link.call("XADD", stream, "*", "message", call.body, *fields, repeat=False, patience=self._patience)

    def consume(self, queue: str, *, consumer: str) -> RedisConsumer:
        """See Broker."""
        part = RedisConsumer(self._link, queue, consumer, self._settings, self.declare)
        self._parts.append(part)
        return part

    async def open_mailbox(self, queue: str) -> RedisMailbox:
        """See Broker."""
        part = RedisMailbox(self._link, queue, uuid.uuid4().hex)
        await part.open()
        self._parts.append(part)
        return part

    async def listen(self, queue: str) -> RedisListener:
        """See Broker."""
        part = RedisListener(self._link, queue)
        await part.open()
        self._parts.append(part)
        return part

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        """See Broker. A cut repeats it: listeners may hear a broadcast twice."""
        return self._link.call("PUBLISH", QueueNames(queue).control, body, patience=self._patience)

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        """See Broker."""
        names, text = QueueNames(queue), json.dumps(dict(record.info))
        words = (record.instance, text, max(1, round(ttl * 1000)))
        await self._link.run(ANNOUNCE, (names.servers, names.server(record.instance)), words, patience=self._patience)

    async def withdraw(self, queue: str, instance: str) -> None:
        """See Broker."""
        names = QueueNames(queue)
        removed = self._link.call("ZREM", names.servers, instance, patience=self._patience)
        await self._link.call("UNLINK", names.server(instance), patience=self._patience)
        await removed

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        """See Broker."""
        names = QueueNames(queue)
        members = await self._link.call("ZRANGE", names.servers, 0, -1, patience=self._patience)
        instances = [member.decode() for member in members]
        if not instances:
            return []
        texts = await self._link.call("MGET", *(names.server(i) for i in instances), patience=self._patience)
        return [ServerRecord(i, json.loads(text)) for i, text in zip(instances, texts, strict=True) if text is not None]
