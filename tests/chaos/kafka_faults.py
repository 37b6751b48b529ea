"""The faults of Kafka itself, and of its records."""

from __future__ import annotations

import asyncio

from tests.chaos.causes import BROKER
from tests.chaos.world import World

__all__ = ["kill_coordinator", "restart_kafka"]


async def restart_kafka(world: World) -> None:
    """kill -9 of the only node, and its start on its data."""
    away = world.random.choice((0.0, 0.3, 1.5))
    with world.fault(f"kill -9 Kafka, {away:g} s later it starts with its data", BROKER, mended="Kafka is back"):
        await world.kafka.restart(world.kafka.cluster.nodes[0], away=away)


async def kill_coordinator(world: World) -> None:
    """kill -9 of the node that coordinates the servers' group; the others go on without it for a while."""
    node = await world.kafka.coordinator()
    with world.fault(f"kill -9 Kafka's node {node.number}, the coordinator", BROKER, mended="all nodes are back"):
        await world.kafka.restart(node, away=world.random.uniform(3.0, 4.0))
