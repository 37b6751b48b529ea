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
from uuid import UUID

from redis.exceptions import ResponseError

from prpc.brokers.base import Capabilities, Outgoing, QueueState, ServerRecord
from prpc.brokers.redis_address import RedisAddress
from prpc.brokers.redis_admission import ADMISSION_SCRIPTS, Admission
from prpc.brokers.redis_batch import frame
from prpc.brokers.redis_claims import CLAIM
from prpc.brokers.redis_consumer import RedisConsumer
from prpc.brokers.redis_dead import REQUEUE, RedisDeadLetters
from prpc.brokers.redis_link import LONGEST_PAUSE, Link
from prpc.brokers.redis_push import RedisListener, RedisMailbox
from prpc.brokers.redis_scripts import ANNOUNCE, SCRIPTS
from prpc.brokers.redis_state import STATE, read_state
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["RedisBroker"]

#: Field that the adapter adds to an announcement: for how long it holds, in milliseconds.
TTL = "prpc_ttl_ms"


class RedisBroker:
    """See prpc.brokers.base.Broker."""

    capabilities = Capabilities()

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the URL cannot be used; nothing is opened yet."""
        self._settings = settings
        self._patience = settings.connect_timeout
        scripts = (*SCRIPTS, *ADMISSION_SCRIPTS, CLAIM, REQUEUE, STATE)
        address = RedisAddress.parse(settings.url_broker, settings.connect_timeout)
        # A server that is late by more than a lease is taken for lost: it must not wait so long to come back to a Redis that did.
        pause = min(LONGEST_PAUSE, settings.redis_recover / 4)
        self._link = Link(address, scripts, settings.broker_silence, pause)
        self._parts: list[RedisConsumer | RedisMailbox | RedisListener] = []
        self._admissions: dict[str, Admission] = {}
        #: What this process announces, for a Redis that forgets it.
        self._announced: dict[tuple[str, str], tuple[ServerRecord, float]] = {}

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
        bounds = ("window", self._settings.duplicate_window, "length", self._settings.max_queue_length)
        await self._link.call("HSET", names.limits, *bounds)

    async def _make_again(self, queue: str) -> None:
        """For a Redis that came back empty: the groups, and the announcements that peers and callers look for."""
        await self.declare(queue)
        for record, ttl in [said for (where, _), said in self._announced.items() if where == queue]:
            await self.announce(queue, record, ttl)

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """See Broker.

        Raises BrokerUnavailableError when there was no connection within the connect timeout (the call was not sent), or when
        it broke before Redis answered (whether the call was accepted is not known, and it is not sent again).
        """
        admission = self._admissions.get(queue)
        if admission is None:
            admission = self._admissions[queue] = Admission(self._link, QueueNames(queue), self._settings)
        return admission.add(call)

    def consume(self, queue: str, *, consumer: str) -> RedisConsumer:
        """See Broker."""
        part = RedisConsumer(self._link, queue, consumer, self._settings, self._make_again)
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

    def post(self, queue: str, address: str, body: bytes, *, message_id: UUID) -> Awaitable[None]:
        """See Broker. Mail and the wake-ups of settled calls take the one link of this process, so their order holds."""
        channel = QueueNames(queue).reply(address).encode(errors="replace")
        self._link.fill()  # calls that were settled in this tick are gathered for its end
        return self._link.call("PUBLISH", channel, frame([body]), patience=self._patience)

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        """See Broker. A cut repeats it: listeners may hear a broadcast twice."""
        return self._link.call("PUBLISH", QueueNames(queue).control, body, patience=self._patience)

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        """See Broker."""
        self._announced[queue, record.instance] = record, ttl
        milliseconds = max(1, round(ttl * 1000))
        names, text = QueueNames(queue), json.dumps({**record.info, TTL: milliseconds})
        words = (record.instance, text, milliseconds)
        await self._link.run(ANNOUNCE, (names.servers, names.server(record.instance)), words, patience=self._patience)

    async def withdraw(self, queue: str, instance: str) -> None:
        """See Broker."""
        self._announced.pop((queue, instance), None)
        names = QueueNames(queue)
        removed = self._link.call("ZREM", names.servers, instance, patience=self._patience)
        await self._link.call("UNLINK", names.server(instance), patience=self._patience)
        await removed

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        """See Broker."""
        names = QueueNames(queue)
        answer = await self._link.call("ZRANGE", names.servers, 0, -1, "WITHSCORES", patience=self._patience)
        instances = [member.decode(errors="replace") for member in answer[::2]]
        if not instances:
            return []
        texts = await self._link.call("MGET", *(names.server(i) for i in instances), patience=self._patience)
        now = self._link.clock.now()
        records = [_record(*row, now) for row in zip(instances, answer[1::2], texts, strict=True)]
        return [record for record in records if record is not None]

    def dead_letters(self, queue: str) -> RedisDeadLetters:
        """See Broker."""
        return RedisDeadLetters(self._link, QueueNames(queue), self._patience)

    async def state(self, queue: str) -> QueueState:
        """See Broker."""
        return await read_state(self._link, QueueNames(queue), self._settings.group_name, self._patience)


def _record(instance: str, until: bytes, text: bytes | None, now: float) -> ServerRecord | None:
    """One announcement; None where it ran out or is none of ours. `until`: Redis's milliseconds, `now`: its seconds."""
    try:
        info = json.loads(text or b"")
        ttl = float(info.pop(TTL, 0))
        return ServerRecord(instance, info, max(0.0, now - (float(until) - ttl) / 1000))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
