"""The Kafka of a chaos run: one node or several, a JVM each."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.kafka import KafkaBroker
from prpc.codec import Codec
from prpc.dev_broker import KafkaCluster, KafkaNode
from prpc.dev_broker.kafka_start import fetch_kafka
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings
from tests.chaos.options import GROUP, QUEUE, Options
from tests.kafka_talk import Kafka, admin, consumer

__all__ = ["KafkaSide"]

NAMES = QueueNames(QUEUE)
SERVERS = NAMES.group(GROUP)


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
    def itself(self) -> Kafka:
        """For the tools of tests/kafka_talk.py."""
        return Kafka(self.cluster.url)

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
        async with admin(self.itself) as manager:
            number = await manager.find_coordinator(SERVERS)
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
        async with consumer(self.itself, NAMES.calls, NAMES.raw_calls) as reader:
            ends, ended = await reader.end_offsets(list(reader.assignment())), await self.ended()
        open_ = {place: end - ended.get(place, 0) for place, end in ends.items() if end > ended.get(place, 0)}
        where = ", ".join(f"partition {place.partition} of {place.topic} ({count})" for place, count in sorted(open_.items()))
        return f"records from the first that has not ended on: {where}" if open_ else ""

    async def ended(self) -> dict[TopicPartition, int]:
        """For each partition the first record that has not ended, as the servers' group has committed it."""
        async with admin(self.itself) as manager:
            committed = await manager.list_consumer_group_offsets(SERVERS)
        return {place: max(0, found.offset) for place, found in committed.items()}

    async def dead_letters(self) -> Sequence[tuple[str, str]]:
        """See Side."""
        letters = [letter async for letter in self._broker.dead_letters(QUEUE).read()]
        return [(str(Codec().read_call(letter.body or b"").message_id), letter.reason) for letter in letters]
