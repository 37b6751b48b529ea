"""The floor of a call over Kafka: request and reply with bare aiokafka, an echo in a process of its own.

`python -m benchmarks.kafka_echo HOST:PORT` is the echo. It reads without a group and answers what it read in one go, which is
less than any service does: no codec, no commit, no guarantee.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

REQUESTS, REPLIES = "bench_echo", "bench_echo_replies"


async def reader(bootstrap: str, topic: str) -> AIOKafkaConsumer:
    """Reads the only partition of a topic from its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=4 * 1024 * 1024)
    await consumer.start()
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    await consumer.seek_to_end(place)
    await consumer.position(place)
    return consumer


async def serve(bootstrap: str) -> None:
    """Answer every request with itself."""
    consumer, producer = await reader(bootstrap, REQUESTS), AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    print("ready", flush=True)
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                await producer.send(REPLIES, record.value, key=record.key)


class EchoClient:
    """The caller's side."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}

    async def __aenter__(self) -> Self:
        self._consumer = await reader(self._bootstrap, REPLIES)
        self._producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        await self._producer.start()
        self._task = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._producer.stop()
        await self._consumer.stop()

    async def call(self, body: bytes) -> bytes:
        """One round trip."""
        key = uuid.uuid4().bytes
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        await self._producer.send(REQUESTS, body, key=key)
        return await answer

    async def _receive(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    self._waiting.pop(record.key).set_result(record.value)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
