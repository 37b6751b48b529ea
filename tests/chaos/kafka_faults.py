"""The faults of Kafka itself, and of its records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from prpc.codec import Codec
from prpc.names import QueueNames
from tests.chaos.options import QUEUE
from tests.chaos.world import World
from tests.kafka_talk import consumer, producer
from tests.ledger.causes import BROKER

__all__ = ["copy_records", "kill_coordinator", "restart_kafka"]

NAMES = QueueNames(QUEUE)
#: Records from the end of each partition that copies are made of.
COPIED = 20


async def restart_kafka(world: World) -> None:
    """kill -9 of the only node, and its start on its data."""
    away = world.random.choice((0.0, 0.3, 1.5))
    with world.fault(f"kill -9 Kafka, {away:g} s later it starts with its data", BROKER, mended="Kafka is back"):
        await world.kafka.restart(world.kafka.cluster.nodes[0], away=away)


async def kill_coordinator(world: World) -> None:
    """kill -9 of the node that coordinates the servers' group; the others go on without it for a while."""
    node = await world.kafka.coordinator()
    with world.fault(f"kill -9 Kafka's node {node.number}, the coordinator", BROKER, mended="all nodes are back"):
        await world.kafka.restart(node, away=world.random.uniform(2.5, 3.0))


async def copy_records(world: World) -> None:
    """Records stand in the queue once more, or often: at once, and when their call has long had its outcome."""
    chosen = world.random.sample(found := await _last_records(world), min(len(found), 20))
    async with producer(world.kafka.itself) as out:
        with world.fault(f"{len(chosen)} records are copied"):
            for wait in (0.0, world.random.uniform(0.0, 1.0)):
                await asyncio.sleep(wait)
                for record in chosen:
                    for _ in range(world.random.choice((1, 1, 1, 5))):
                        headers = world.random.sample(list(record.headers), len(record.headers))
                        await out.send_and_wait(NAMES.calls, record.value, key=record.key, headers=headers)
            await _copy_as_json(world, out, chosen)


async def _last_records(world: World) -> Sequence[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    async with consumer(world.kafka.itself, NAMES.calls) as reader:
        ends = await reader.end_offsets(list(reader.assignment()))
        left = {place: end for place, end in ends.items() if end}
        for place, end in left.items():
            reader.seek(place, max(0, end - COPIED))
        while left:
            for place, records in (await reader.getmany(*left, timeout_ms=1000)).items():
                found += records
                if records[-1].offset + 1 >= left[place]:
                    del left[place]
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def _copy_as_json(world: World, out: AIOKafkaProducer, records: Sequence[ConsumerRecord]) -> None:
    """The same calls as another language would write them, in the other topic: calls that have ended, as whichever is read
    first is the call."""
    ended = await world.kafka.ended()
    for record in records:
        if record.offset < ended.get(TopicPartition(record.topic, record.partition), 0):
            call = Codec().read_call(record.value)
            said = {"func_name": call.func_name, "func_args": call.func_args, "message_id": str(call.message_id)}
            await out.send_and_wait(NAMES.raw_calls, json.dumps(said).encode(), key=record.key)
