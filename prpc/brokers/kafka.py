"""The Kafka broker: topics for the calls, read by one group of servers; a partition of the feedback topic for each client.

Everything that a process writes goes through one producer (kafka_sender). What is heard without a group is read by
kafka_mailbox, the servers' side stands in kafka_consumer and kafka_group. Driver errors leave as BrokerUnavailableError only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prpc.brokers.awaiting import Turn, Turns, answered, background
from prpc.brokers.base import Capabilities, Outgoing, QueueState, ServerRecord
from prpc.brokers.kafka_address import KafkaAddress
from prpc.brokers.kafka_bound import QueueBound
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.kafka_dead import KafkaDeadLetters
from prpc.brokers.kafka_mail import KafkaMail
from prpc.brokers.kafka_mailbox import KafkaControl, KafkaListener, KafkaMailbox
from prpc.brokers.kafka_records import SENT, headers_of, message_key, read_address
from prpc.brokers.kafka_replies import KafkaReplies
from prpc.brokers.kafka_scan import SINCE, KafkaScan, announcement, server_record
from prpc.brokers.kafka_sender import KafkaSender, Told, resolve
from prpc.brokers.kafka_topics import KafkaTopics
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["KafkaBroker"]

log = logging.getLogger(__name__)


class KafkaBroker:
    """See prpc.brokers.base.Broker."""

    capabilities: Capabilities = Capabilities(keeps_replies=False, atomic_settle=False)

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the URL cannot be used; nothing is opened yet."""
        self._settings = settings
        self._address = KafkaAddress.parse(settings.url_broker, settings)
        self._sender = KafkaSender(self._address, settings)
        self._mail = KafkaMail(self._sender)
        self._topics = KafkaTopics(self._address, settings)
        self._scan = KafkaScan(self._address, settings, self._topics)
        self._controls: dict[str, KafkaControl] = {}
        self._parts: list[KafkaConsumer | KafkaMailbox | KafkaListener] = []
        self._chores: set[asyncio.Task[None]] = set()
        self._bounds: dict[str, QueueBound] = {}
        self._names: dict[str, QueueNames] = {}
        self._turns = Turns()
        self._closing = False

    async def connect(self) -> None:
        """See Broker."""
        await self._sender.open()

    async def close(self) -> None:
        """See Broker."""
        self._closing = True
        parts, self._parts = self._parts, []
        for part in parts:
            await part.close()
        for task in self._chores:
            task.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for bound in self._bounds.values():
            await bound.close()
        await self._sender.close()
        for control in self._controls.values():
            await control.close()
        await self._scan.close()
        await self._topics.close()

    async def ping(self) -> float:
        """See Broker. Raises BrokerUnavailableError when no broker answers within the connect timeout."""
        start = time.perf_counter()
        await self._topics.ping()
        return time.perf_counter() - start

    def now(self) -> float:
        """See Broker."""
        return self._sender.clock.now()

    async def declare(self, queue: str) -> None:
        """See Broker."""
        await self._topics.ensure(queue, grow=True)
        await self._sender.know(self._names_of(queue).feedback_topic)
        self._do(self._dead_letters(queue).trim)

    def _do(self, chore: Callable[[], Awaitable[None]]) -> None:
        """Something that may fail without harm, and is not begun any more once all of this closes."""
        if self._closing:
            return

        async def work() -> None:
            try:
                await chore()
            except Exception as exc:
                log.debug("a chore was not done: %s", exc)

        task = background(work(), "prpc-kafka-chore")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        """See Broker. Ids are told by the server that reads them; here nothing is known of them, nor of the server's bound.

        Raises BrokerUnavailableError when Kafka did not acknowledge within the connect timeout: whether it has it is not known.
        """
        if self._settings.max_queue_length:
            return background(self._send_bounded(queue, call))
        if call.refused is None:
            return self._send(queue, call)
        turn = self._turns.now()
        self._post(queue, call, partial(_published, turn, call.refused))
        turn.join()
        return turn.done

    def _names_of(self, queue: str) -> QueueNames:
        names = self._names.get(queue)
        if names is None:
            names = self._names[queue] = QueueNames(queue)
        return names

    def _send(self, queue: str, call: Outgoing) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(queue, call, partial(resolve, done))
        return done

    def _post(self, queue: str, call: Outgoing, told: Told) -> None:
        headers = headers_of(call.facts)
        headers.append((SENT, b"%d" % (self._sender.clock.earliest() * 1000)))
        self._sender.post(self._names_of(queue).calls, call.body, told, key=message_key(call.message_id), headers=headers)

    async def _send_bounded(self, queue: str, call: Outgoing) -> None:
        bound = self._bounds.get(queue)
        if bound is None:

            async def look() -> QueueState:
                await self._topics.ensure(queue, grow=False)
                return await self._scan.length(self._names_of(queue))

            bound = self._bounds[queue] = QueueBound(queue, self._settings.max_queue_length, look)
        await bound.send(lambda: self._send(queue, call))

    def consume(self, queue: str, *, consumer: str) -> KafkaConsumer:
        """See Broker."""
        names, control, letters = self._names_of(queue), self._control(queue), self._dead_letters(queue)

        def buried() -> None:
            if letters.added():
                self._do(letters.trim)

        part = KafkaConsumer(
            self._address,
            self._settings,
            queue,
            consumer,
            replies=KafkaReplies(self._sender, self._mail, names, buried),
            committed=lambda places: self._topics.committed(names.group(self._settings.group_name), places),
            latest=self._sender.clock.latest,
            control=control,
        )
        self._parts.append(part)
        return part

    async def open_mailbox(self, queue: str) -> KafkaMailbox:
        """See Broker."""
        await self._topics.ensure(queue, grow=False)
        await self._sender.know(self._names_of(queue).feedback_topic)
        part = KafkaMailbox(self._address, self._settings, self._sender, queue)
        self._parts.append(part)
        await part.open()
        return part

    async def listen(self, queue: str) -> KafkaListener:
        """See Broker."""
        await self._topics.ensure(queue, grow=False)
        part = KafkaListener(self._control(queue))
        await part.open()
        self._parts.append(part)
        return part

    def _control(self, queue: str) -> KafkaControl:
        control = self._controls.get(queue)
        if control is None:
            control = self._controls[queue] = KafkaControl(self._address, self._settings, self._sender, queue)
        return control

    def post(self, queue: str, address: str, body: bytes, *, message_id: UUID) -> Awaitable[None]:
        """See Broker. Mail and outcomes go through one idempotent producer, in the order in which they were queued there.

        An outcome that waits for a commit first (Kafka did not confirm this server for most of a lease) is queued behind it.
        """
        mailbox = read_address(address)
        if mailbox is None:
            return answered(None)
        return self._mail.send(self._names_of(queue).feedback_topic, body, message_key(message_id), mailbox, outcome=False)

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        """See Broker."""
        return self._control(queue).broadcast(body)

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        """See Broker. A topic that somebody deleted is made again here."""
        await self._topics.ensure(queue, grow=False)
        await self._sender.send(self._names_of(queue).servers, announcement(record, ttl), key=record.instance.encode())

    async def withdraw(self, queue: str, instance: str) -> None:
        """See Broker."""
        await self._sender.send(self._names_of(queue).servers, None, key=instance.encode())

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        """See Broker."""
        await self._topics.ensure(queue, grow=False)
        records = await self._scan.read(self._names_of(queue).servers, since=self.now() - SINCE)
        latest = {record.key: record for record in records}
        now = self.now()
        found = [server_record(record, now) for record in latest.values()]
        return [record for record in found if record is not None]

    def dead_letters(self, queue: str) -> KafkaDeadLetters:
        """See Broker."""
        return self._dead_letters(queue)

    def _dead_letters(self, queue: str) -> KafkaDeadLetters:
        return KafkaDeadLetters(self._sender, self._scan, self._names_of(queue), self._settings.dead_letters_kept)

    async def state(self, queue: str) -> QueueState:
        """See Broker."""
        await self._topics.ensure(queue, grow=False)
        dead = await self._dead_letters(queue).count()
        return await self._scan.state(self._names_of(queue), dead, self.now())


def _published(turn: Turn, refused: Callable[[Exception], object], _: object, error: Exception | None) -> None:
    if error is not None:
        refused(error)
    turn.leave()
