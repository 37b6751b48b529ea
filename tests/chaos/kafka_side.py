"""The Kafka of a chaos run: one node or several, a JVM each."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from prpc.brokers.kafka import KafkaBroker
from prpc.codec import Codec
from prpc.dev_broker import KafkaCluster, KafkaNode
from prpc.dev_broker.kafka_start import fetch_kafka
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings
from tests.chaos.options import GROUP, QUEUE, Options

__all__ = ["KafkaSide"]

NAMES = QueueNames(QUEUE)


class KafkaSide:
    """See Side. It keeps no outcomes beside the mail."""

    type_broker = "kafka"
    errors: tuple[type[Exception], ...] = (BrokerUnavailableError, KafkaError, OSError)

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder, self._options = folder, options
        self.settings: Mapping[str, Any] = {"kafka_replication": options.nodes}

    def start(self) -> None:
        """See Side."""
        settings = {"min.insync.replicas": str(min(2, self._options.nodes))}
        self.cluster = KafkaCluster.start(fetch_kafka(), self._options.nodes, options=settings)

    async def open(self) -> None:
        """See Side."""
        self._broker = KafkaBroker(
            Settings(
                type_broker="kafka",
                url_broker=self.cluster.url,
                queue_name=QUEUE,
                max_number_worker=self._options.slots,
                connect_timeout=10.0,
                **self.settings,
            )
        )
        await self._broker.connect()

    async def aclose(self) -> None:
        """See Side."""
        await self._broker.close()

    def close(self) -> None:
        """See Side."""
        for node in self.cluster.nodes:
            node.process.send_signal(signal.SIGCONT)
            (self._folder / f"kafka-{node.number}.log").write_bytes(node.log.read_bytes())
        self.cluster.close()

    @property
    def port(self) -> int:
        return self.cluster.port

    def url(self, port: int) -> str:
        """See Side."""
        return self.cluster.url

    async def restart(self, node: KafkaNode, *, away: float) -> None:
        """Kill a node and start it again `away` seconds later, on its data; returns when it does its work."""
        node.kill()
        await asyncio.sleep(away)
        node.start()
        await asyncio.to_thread(self.cluster.wait_ready)

    async def coordinator(self) -> KafkaNode:
        """The node that coordinates the servers' group."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.url)
        try:
            await admin.start()
            number = await admin.find_coordinator(GROUP)
        finally:
            await admin.close()
        return next(node for node in self.cluster.nodes if node.number == number)

    def broken(self) -> str:
        """See Side."""
        gone = [node for node in self.cluster.nodes if node.wanted and not node.running]
        for node in gone:
            node.wanted = False
        return "".join(f"Kafka's node {n.number} ended by itself with {n.process.returncode}, see its log" for n in gone)

    async def announced(self, instance: str) -> bool:
        """See Side."""
        return any(record.instance == instance for record in await self._broker.servers(QUEUE))

    async def outcomes(self) -> Sequence[tuple[str, str]]:
        """See Side."""
        return ()

    async def left(self) -> str:
        """See Side. Every record has ended where the committed offset is the log's end."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.url)
        reader = AIOKafkaConsumer(NAMES.calls, NAMES.raw_calls, bootstrap_servers=self.cluster.url)
        try:
            await admin.start()
            await reader.start()
            committed = await admin.list_consumer_group_offsets(GROUP)
            ends = await reader.end_offsets(list(reader.assignment()))
        finally:
            await reader.stop()
            await admin.close()
        open_ = {place: end - _offset(committed, place) for place, end in ends.items() if end > _offset(committed, place)}
        where = ", ".join(f"partition {place.partition} of {place.topic} ({count})" for place, count in sorted(open_.items()))
        return f"records from the first that has not ended on: {where}" if open_ else ""

    async def dead_letters(self) -> Sequence[tuple[str, str]]:
        """See Side."""
        letters = [letter async for letter in self._broker.dead_letters(QUEUE).read()]
        return [(str(Codec().read_call(letter.body or b"").message_id), letter.reason) for letter in letters]


def _offset(committed: Mapping[TopicPartition, Any], place: TopicPartition) -> int:
    """-1 stands for none, and a log begins at 0."""
    return max(0, committed[place].offset) if place in committed else 0
