"""What a process hears from Kafka without a group: the outcomes of its calls, and what is said to all servers."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from aiokafka import ConsumerRecord

from prpc.brokers.base import Mail
from prpc.brokers.kafka_address import KafkaAddress
from prpc.brokers.kafka_mail import CLIENT
from prpc.brokers.kafka_reader import KafkaReader
from prpc.brokers.kafka_records import write_address
from prpc.brokers.kafka_sender import KafkaSender
from prpc.brokers.kafka_words import Word, write_word
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["KafkaControl", "KafkaListener", "KafkaMailbox"]

#: Header of a control message that is for the servers' adapters, and its value.
KIND, A_WORD = "prpc_kind", b"word"


class Inbox:
    """Bodies on their way to one receiver."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._news = asyncio.Event()
        self._closed = False

    def put(self, bodies: Iterable[bytes]) -> None:
        self._bodies.extend(bodies)
        if self._bodies:
            self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def take(self) -> list[bytes]:
        """Wait for bodies. Raises BrokerUnavailableError once it is closed."""
        while not self._bodies:
            if self._closed:
                raise BrokerUnavailableError("the connection was closed")
            self._news.clear()
            await self._news.wait()
        bodies, self._bodies = self._bodies, []
        return bodies


class KafkaMailbox:
    """See prpc.brokers.base.Mailbox. Its log is durable: nothing is missed, so there is never a gap."""

    def __init__(self, address: KafkaAddress, settings: Settings, sender: KafkaSender, queue: str) -> None:
        self._sender, self._topic = sender, QueueNames(queue).feedback_topic
        self._client = uuid.uuid4().hex
        partitions = sorted(sender.client.cluster.partitions_for_topic(self._topic) or {0})
        self._partition = random.choice(partitions)
        self._inbox = Inbox()
        self._reader = KafkaReader(address, settings, self._topic, self._partition, self._receive)
        self._mine = (CLIENT, self._client.encode())

    @property
    def address(self) -> str:
        return write_address(self._partition, self._client)

    async def open(self) -> None:
        """Be ready to receive: a first record shows the way, the place to read from, and the brokers' clock."""
        hello = await self._sender.send(self._topic, b"", key=b"hello", partition=self._partition)
        await self._reader.open(hello.offset + 1)

    def _receive(self, records: Sequence[ConsumerRecord]) -> None:
        mine = self._mine
        self._inbox.put(record.value for record in records if record.value is not None and mine in record.headers)

    async def receive(self) -> Mail:
        """See Mailbox."""
        return Mail(await self._inbox.take())

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        """See Mailbox: outcomes are in the log, and nowhere else."""
        return {}

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """See Mailbox: the topic's retention does."""

    async def close(self) -> None:
        """See Mailbox."""
        self._inbox.close()
        await self._reader.close()


class KafkaControl:
    """The control topic of one queue, read once for all who listen in this process."""

    def __init__(self, address: KafkaAddress, settings: Settings, sender: KafkaSender, queue: str) -> None:
        self._sender, self._topic = sender, QueueNames(queue).control
        self._reader = KafkaReader(address, settings, self._topic, 0, self._receive)
        self._opened = False
        self._lock = asyncio.Lock()
        self.listeners: set[Inbox] = set()
        #: Consumers, for the words of other servers.
        self._ears: set[Callable[[bytes], None]] = set()

    async def open(self) -> None:
        """Hear from now on. Idempotent. Raises BrokerUnavailableError."""
        async with self._lock:
            if not self._opened:
                await self._reader.open()
                self._opened = True

    async def attach(self, hear: Callable[[bytes], None]) -> None:
        """Tell it every word of the servers' adapters from now on. Idempotent. Raises BrokerUnavailableError."""
        self._ears.add(hear)
        await self.open()

    def detach(self, hear: Callable[[bytes], None]) -> None:
        """Tell it no more. Idempotent."""
        self._ears.discard(hear)

    def broadcast(self, body: bytes) -> asyncio.Future[Any]:
        """To every listener of the queue."""
        return self._sender.send(self._topic, body)

    def say(self, word: Word) -> None:
        """To the adapters of the other servers, however long it takes."""
        self._sender.send(self._topic, write_word(word), headers=[(KIND, A_WORD)], repeat=True)

    def _receive(self, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            if record.value is None:
                continue
            if (KIND, A_WORD) in record.headers:
                for hear in list(self._ears):
                    hear(record.value)
            else:
                for inbox in self.listeners:
                    inbox.put([record.value])

    async def close(self) -> None:
        """Idempotent."""
        for inbox in self.listeners:
            inbox.close()
        await self._reader.close()


class KafkaListener:
    """See prpc.brokers.base.Listener."""

    def __init__(self, control: KafkaControl) -> None:
        self._control = control
        self._inbox = Inbox()

    async def open(self) -> None:
        """Hear from now on. Raises BrokerUnavailableError."""
        await self._control.open()
        self._control.listeners.add(self._inbox)

    async def receive(self) -> Sequence[bytes]:
        """See Listener."""
        return await self._inbox.take()

    async def close(self) -> None:
        """See Listener."""
        self._control.listeners.discard(self._inbox)
        self._inbox.close()
