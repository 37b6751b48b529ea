"""Everything that a process writes to Kafka goes through one idempotent producer; what it answers tells the broker's time.

What is to be kept through an outage (`repeat`) waits for it; everything else fails after its patience, and may arrive all the
same when the broker is back. A producer that has ended is replaced by another, which sends again what was not acknowledged: Kafka
gives one up when a topic was deleted and made again, and `asyncio.run` cancels its tasks before ours say good-bye. A record may
so come twice; readers tell by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError
from aiokafka.structs import RecordMetadata

from prpc.brokers.awaiting import background
from prpc.brokers.clock import BrokersClock
from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_driver import keep_first_connection, stop_producer
from prpc.brokers.kafka_partition import partition_of
from prpc.exceptions import BrokerUnavailableError, EncodeError
from prpc.settings import Settings
from prpc.timers import TimerWheel

__all__ = ["KafkaSender", "Record", "Told", "resolve"]

log = logging.getLogger(__name__)

#: Bytes that a record's key, headers and frame may need beside its value.
FRAME_BYTES = 1024 * 1024
#: Seconds between two tries to send what must arrive.
AGAIN_AFTER = 0.1
LOG_APPEND_TIME = 1

Headers = Sequence[tuple[str, bytes]]
#: Told where a record stands, or the error that came instead. Must not raise.
Told = Callable[[RecordMetadata | None, Exception | None], object]


@dataclass(slots=True, eq=False)
class Record:
    """One record on its way."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None
    told: Told
    #: Loop time after which it fails; None: it waits for as long as it takes.
    until: float | None
    #: Where the timer wheel holds it; 0: nowhere.
    tick: int = 0
    #: When the producer got it, in seconds of `time.monotonic()`.
    asked: float = 0.0
    #: Whether `told` was called.
    decided: bool = False


class KafkaSender:
    """Bound to the loop in which `open` ran."""

    def __init__(self, address: KafkaAddress, settings: Settings) -> None:
        self._address = address
        self._patience = settings.connect_timeout
        self._most_bytes = settings.max_message_bytes + FRAME_BYTES
        #: The brokers' clock.
        self.clock = BrokersClock()
        self._producer: AIOKafkaProducer | None = None
        self._queue: deque[Record] = deque()
        self._news, self._quiet = asyncio.Event(), asyncio.Event()
        #: What is not decided, and what of it the producer has.
        self._open: dict[Record, None] = {}
        self._unacknowledged: dict[Record, None] = {}
        self._timers: TimerWheel[Record] | None = None
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def client(self) -> Any:
        """aiokafka's client below the producer: what it knows of topics and brokers."""
        if self._producer is None or self.closed:
            raise BrokerUnavailableError(
                f"the connection to Kafka at {self._address.shown} is not open: connect first", url=self._address.shown
            )
        return self._producer.client

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailableError within the connect timeout."""
        if self._task is not None:
            return
        self._producer = await self._start()
        self._timers = TimerWheel(asyncio.get_running_loop(), self._too_late)
        self._watch(self._producer)
        self._task = background(self._run(), "prpc-kafka-sender")

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._address.client_options(client_id="prpc"),
            acks="all",
            enable_idempotence=True,
            max_request_size=self._most_bytes,
            max_batch_size=min(self._most_bytes, 256 * 1024),
            metadata_max_age_ms=30_000,
            partitioner=cast("Any", partition_of),  # typed by its default value
            retry_backoff_ms=100,
            request_timeout_ms=max(1000, round(self._patience * 1000)),
        )
        keep_first_connection(producer.client, self._address.options)
        try:
            async with asyncio.timeout(self._patience):
                await producer.start()
        except BaseException as exc:
            await stop_producer(producer)
            if isinstance(exc, (KafkaError, OSError)):
                raise explain(exc, self._address.shown) from exc
            raise
        return producer

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        repeat: bool = False,
        patience: float | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Queue one record; the future ends with its place. `repeat`: it is tried again until it arrives or this is closed.

        Else it fails with BrokerUnavailableError after `patience` seconds (default: the connect timeout), and whether it arrives
        nevertheless is not known. EncodeError: Kafka takes no record of this size.
        """
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self.post(
            topic, value, partial(resolve, done), key=key, headers=headers, partition=partition, repeat=repeat, patience=patience
        )
        return done

    def post(
        self,
        topic: str,
        value: bytes | None,
        told: Told,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        repeat: bool = False,
        patience: float | None = None,
    ) -> None:
        """`send` for those who need no future: `told` is called in the step that brings the answer."""
        if self._timers is None or self.closed:
            _ = self.client
        loop = asyncio.get_running_loop()
        until = None if repeat else loop.time() + (self._patience if patience is None else patience)
        record = Record(topic, value, key, headers, partition, told, until)
        if until is not None and self._timers is not None:
            record.tick = self._timers.add(record, until)
        self._open[record] = None
        self._queue.append(record)
        self._news.set()

    async def know(self, topic: str) -> None:
        """Learn of a topic's partitions. Raises BrokerUnavailableError."""
        try:
            async with asyncio.timeout(self._patience):
                await self.client._wait_on_metadata(topic)
        except (KafkaError, OSError) as exc:
            raise explain(exc, self._address.shown) from exc

    async def flush(self) -> None:
        """Until everything that was queued is decided."""
        while self._open:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Wait for what is queued (at most the connect timeout), then close. Idempotent."""
        if self.closed:
            return
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self.flush()
        self.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._producer is not None:
            await stop_producer(self._producer)
        lost = BrokerUnavailableError("the connection was closed", url=self._address.shown)
        for record in list(self._open):
            self._fail(record, lost)
        if self._timers is not None:
            self._timers.clear()

    # sending

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._open and not await self._has_producer():
                asyncio.get_running_loop().call_later(AGAIN_AFTER, self._news.set)
                continue
            while self._queue:
                record = self._queue.popleft()
                if not record.decided:
                    await self._hand_over(record)

    async def _has_producer(self) -> bool:
        """Whether there is a producer that lives: another one where the last has ended."""
        if self._producer is None or not _has_ended(self._producer):
            return True
        try:
            fresh = await self._start()
        except BrokerUnavailableError as exc:
            log.debug("%s", exc)
            return False
        log.info("going on with a new producer at Kafka %s: the last one has ended", self._address.shown)
        old, self._producer = self._producer, fresh
        self._watch(fresh)
        again, self._unacknowledged = self._unacknowledged, {}
        self._queue.extendleft(reversed([record for record in again if not record.decided]))
        await stop_producer(old)
        return True

    def _watch(self, producer: AIOKafkaProducer) -> None:
        sending: Any = producer._sender.sender_task
        sending.add_done_callback(lambda _: self._news.set())

    async def _hand_over(self, record: Record) -> None:
        """To the producer, which sends all of one turn of the loop together."""
        assert self._producer is not None
        record.asked = time.monotonic()
        self._unacknowledged[record] = None
        try:
            sent = await self._producer.send(
                record.topic, record.value, record.key, record.partition, headers=list(record.headers)
            )
        except (KafkaError, AssertionError, OSError) as exc:
            self._failed(record, exc)
        else:
            sent.add_done_callback(partial(self._answered, record))

    def _answered(self, record: Record, future: asyncio.Future[RecordMetadata]) -> None:
        if record not in self._unacknowledged or future.cancelled():
            return None  # another producer has it
        error = future.exception()
        if error is not None and self._producer is not None and _has_ended(self._producer):
            return None  # the next producer will have it
        if error is not None:
            return self._failed(record, error)
        place = future.result()
        if place.timestamp_type == LOG_APPEND_TIME and place.timestamp is not None:
            self.clock.learn(place.timestamp / 1000, (place.timestamp + 1) / 1000, record.asked)
        self._decide(record, place, None)
        return None

    def _failed(self, record: Record, error: BaseException) -> None:
        if isinstance(error, (MessageSizeTooLargeError, RecordTooLargeError)):
            size = len(record.value or b"")
            text = f"a message of {size} bytes is more than Kafka's topic {record.topic} takes (max.message.bytes): {error}"
            return self._fail(record, EncodeError(text))
        self._unacknowledged.pop(record, None)
        if self.closed:
            return self._fail(record, explain(error, self._address.shown))
        log.debug("a record for %s was not taken, trying again: %s", record.topic, error)
        asyncio.get_running_loop().call_later(AGAIN_AFTER, self._again, record)
        return None

    def _again(self, record: Record) -> None:
        if not record.decided:
            self._queue.append(record)
            self._news.set()

    def _too_late(self, record: Record) -> None:
        text = f"Kafka at {self._address.shown} did not acknowledge a record in time; whether it arrives is not known"
        self._fail(record, BrokerUnavailableError(text, url=self._address.shown))

    def _fail(self, record: Record, error: Exception) -> None:
        self._decide(record, None, error)

    def _decide(self, record: Record, place: RecordMetadata | None, error: Exception | None) -> None:
        self._open.pop(record, None)
        self._unacknowledged.pop(record, None)
        if record.tick and self._timers is not None:
            self._timers.remove(record, record.tick)
        if not record.decided:
            record.decided = True
            record.told(place, error)
        if not self._open:
            self._quiet.set()


def resolve(done: asyncio.Future[RecordMetadata], place: RecordMetadata | None, error: Exception | None) -> None:
    """A `Told` that ends a future."""
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
        done.exception()  # whoever does not await it has nothing to be told
    elif place is not None:
        done.set_result(place)


def _has_ended(producer: AIOKafkaProducer) -> bool:
    task = producer._sender.sender_task
    return task is not None and bool(task.done())
