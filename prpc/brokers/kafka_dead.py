"""Dead letters on Kafka: a compacted topic, one key for each letter; a record without a value takes its letter back.

A letter's first headers are ours (kafka_replies.DEAD_HEADERS), then the key of the call's record, if it had one, and its headers,
each behind an equals sign.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiokafka import ConsumerRecord

from prpc.brokers.base import DeadLetter
from prpc.brokers.kafka_records import REQUEUED
from prpc.brokers.kafka_replies import DEAD_HEADERS
from prpc.brokers.kafka_scan import KafkaScan
from prpc.brokers.kafka_sender import KafkaSender
from prpc.names import QueueNames

__all__ = ["KafkaDeadLetters"]

KEY = "key"
#: Part of the letters that are kept (one in so many) after which it is looked for too many.
TRIM_EVERY = 4


class KafkaDeadLetters:
    """See prpc.brokers.base.DeadLetters."""

    def __init__(self, sender: KafkaSender, scan: KafkaScan, names: QueueNames, most: int) -> None:
        """`most`: letters that are kept, about."""
        self._sender, self._scan, self._names, self._most = sender, scan, names, most
        self._added = 0

    def added(self) -> bool:
        """One more was buried by this process; whether it is time to look for too many."""
        self._added += 1
        if self._added * TRIM_EVERY < self._most:
            return False
        self._added = 0
        return True

    async def count(self) -> int:
        """See DeadLetters."""
        return len(await self._records())

    async def read(self) -> AsyncIterator[DeadLetter]:
        """See DeadLetters."""
        for record in (await self._records()).values():
            yield self._letter(record)

    async def get(self, letter_id: str) -> DeadLetter | None:
        """See DeadLetters."""
        record = (await self._records()).get(letter_id)
        return None if record is None else self._letter(record)

    async def requeue(self, letter_id: str) -> bool:
        """See DeadLetters. In two steps, the call first, so that it is not lost; asked for again, it counts as a double."""
        record = (await self._records()).get(letter_id)
        if record is None:
            return False
        header = dict(record.headers)
        topic = self._names.raw_calls if header.get("topic") == self._names.raw_calls.encode() else self._names.calls
        headers = [(name[1:], value) for name, value in record.headers if name.startswith("=") and name != "=own"]
        headers.append((REQUEUED, letter_id.encode()))
        await self._sender.send(topic, record.value, key=header.get(KEY), headers=headers)
        return await self._take_back(letter_id)

    async def drop(self, letter_id: str) -> bool:
        """See DeadLetters."""
        return letter_id in await self._records() and await self._take_back(letter_id)

    async def trim(self) -> None:
        """Take the oldest back where there are too many."""
        for letter_id in list(await self._records())[: -self._most]:
            await self._take_back(letter_id)

    async def _take_back(self, letter_id: str) -> bool:
        await self._sender.send(self._names.dead, None, key=letter_id.encode())
        return True

    async def _records(self) -> dict[str, ConsumerRecord]:
        """The letters that are there, oldest first."""
        letters: dict[str, ConsumerRecord] = {}
        for record in await self._scan.read(self._names.dead):
            letter_id = (record.key or b"").decode(errors="replace")
            letters.pop(letter_id, None)
            if record.value is not None:
                letters[letter_id] = record
        return letters

    def _letter(self, record: ConsumerRecord) -> DeadLetter:
        about = {name: value.decode(errors="replace") for name, value in record.headers[: len(DEAD_HEADERS)] if value is not None}
        fields = [(name[1:].encode(), value or b"") for name, value in record.headers if name.startswith("=")]
        return DeadLetter(
            id=(record.key or b"").decode(errors="replace"),
            reason=about.get("reason", ""),
            details=about.get("details", ""),
            raw=about.get("topic") == self._names.raw_calls,
            entry=about.get("entry", ""),
            attempts=_number(about.get("attempts", "")),
            sent=_number(about.get("sent_ms", "")) / 1000,
            buried=record.timestamp / 1000,
            fields=[(b"message", record.value), *fields] if record.value else fields,
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
