"""Small tools of the tests that talk to a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import Delivery
from prpc.brokers.redis import RedisBroker
from prpc.brokers.redis_consumer import RedisConsumer
from prpc.settings import Settings

#: Seconds after which a test is given up that waits for what never comes.
PATIENCE = 40


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE))


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[RedisBroker]:
    """A broker with the queue declared, closed at the end."""
    broker = create_broker(settings)
    assert isinstance(broker, RedisBroker)
    await broker.connect()
    try:
        await broker.declare(settings.queue_name)
        yield broker
    finally:
        await broker.close()


async def take_one(consumer: RedisConsumer) -> Delivery:
    (delivery,) = await consumer.take(1)
    return delivery


async def until(check: Callable[[], bool]) -> None:
    """Wait for a state that is not ours to signal."""
    while not check():
        await asyncio.sleep(0.01)
