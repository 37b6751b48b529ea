"""What a server writes to Kafka: outcomes, dead letters, and calls that go back to the end of their partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from prpc.brokers.base import Reply
from prpc.brokers.kafka_mail import KafkaMail
from prpc.brokers.kafka_records import ADDED, BORN, CONTINUES, CRASHES, message_key, read_address
from prpc.brokers.kafka_sender import KafkaSender
from prpc.brokers.kafka_tenure import KafkaDelivery
from prpc.names import QueueNames

__all__ = ["DEAD_HEADERS", "KafkaReplies"]

#: Headers that a dead letter has before those of its call.
DEAD_HEADERS = ("reason", "details", "topic", "entry", "attempts", "sent_ms")


class KafkaReplies:
    """Bound to the sender's loop. Everything here waits for the broker as long as it takes."""

    def __init__(self, sender: KafkaSender, mail: KafkaMail, names: QueueNames, buried: Callable[[], None]) -> None:
        """`buried` is told of each dead letter that has arrived."""
        self._sender, self._mail, self._names, self._buried = sender, mail, names, buried

    def send(self, reply: Reply, address: str | None) -> asyncio.Future[Any]:
        """Hand an outcome over: to the partition of its mailbox, or by its id to any."""
        topic = self._names.raw_feedback_topic if reply.raw else self._names.feedback_topic
        key, mailbox = message_key(reply.message_id), None if address is None else read_address(address)
        if mailbox is None:
            return self._sender.send(topic, reply.body, key=key, repeat=True)
        return self._mail.send(topic, reply.body, key, mailbox, outcome=True)

    def bury(self, delivery: KafkaDelivery, reason: str, details: str) -> asyncio.Future[Any]:
        """Keep the record as a dead letter, whole."""
        record = delivery.record
        about = (
            reason,
            details,
            record.topic,
            f"{record.partition}-{record.offset}",
            str(delivery.attempt),
            str(delivery.born_ms),
        )
        headers = [(name, text.encode(errors="replace")) for name, text in zip(DEAD_HEADERS, about, strict=True)]
        headers += [("key", record.key)] if record.key is not None else []
        headers += [(f"={name}", value or b"") for name, value in record.headers if name not in ADDED]
        body = record.value if record.value is not None else b""
        sent = self._sender.send(self._names.dead, body, key=uuid4().hex.encode(), headers=headers, repeat=True)
        sent.add_done_callback(lambda _: self._buried())
        return sent

    def put_back(self, delivery: KafkaDelivery) -> asyncio.Future[Any]:
        """The call once more, at the end of its partition; its age and what it went through stay."""
        record = delivery.record
        headers = [(name, value) for name, value in record.headers if name not in (BORN, CRASHES, CONTINUES)]
        added = {BORN: delivery.born_ms, CRASHES: delivery.attempt - 1, CONTINUES: record.offset}
        headers += [(name, b"%d" % number) for name, number in added.items()]
        key = record.key  # a foreign program's may have none; from here on it is told by its id
        if key is None and delivery.message_id is not None:
            key = message_key(delivery.message_id)
        return self._sender.send(record.topic, record.value, key=key, headers=headers, partition=record.partition, repeat=True)
