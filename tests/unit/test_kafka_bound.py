"""The bound of a queue's length on Kafka: who looks, who shares a look, and what counts."""

from __future__ import annotations

import asyncio
from typing import Any

from prpc.brokers.base import QueueState
from prpc.brokers.kafka_bound import QueueBound
from prpc.exceptions import BrokerUnavailableError, QueueFullError


class Queue:
    """What a look finds once it may end, and what was sent."""

    def __init__(self, most: int) -> None:
        self.state = QueueState(0, 0, None, 0)
        self.error: Exception | None = None
        self.looks, self.sent = 0, 0
        self.looking, self.go_on = asyncio.Event(), asyncio.Event()
        self.bound = QueueBound("q", most, self.look)

    async def look(self) -> QueueState:
        self.looks += 1
        self.looking.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self.state

    def send(self) -> asyncio.Future[Any]:
        self.sent += 1
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def publish(self, count: int) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.bound.send(self.send)) for _ in range(count)]

    async def outcomes(self, tasks: list[asyncio.Task[None]]) -> list[type | None]:
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [None if result is None else type(result) for result in results]


def test_all_who_wait_share_one_look() -> None:
    async def scenario() -> None:
        queue = Queue(most=5)
        queue.state = QueueState(1, 1, None, 0)
        tasks = queue.publish(10)
        await queue.looking.wait()
        queue.go_on.set()
        assert await queue.outcomes(tasks) == [None] * 3 + [QueueFullError] * 7
        assert (queue.looks, queue.sent) == (1, 3)

    asyncio.run(scenario())


def test_a_look_that_fails_fails_for_all_and_the_next_one_looks_again() -> None:
    async def scenario() -> None:
        queue = Queue(most=5)
        queue.error = BrokerUnavailableError("silent")
        tasks = queue.publish(10)
        await queue.looking.wait()
        queue.go_on.set()
        assert await queue.outcomes(tasks) == [BrokerUnavailableError] * 10
        assert (queue.looks, queue.sent) == (1, 0)
        queue.error = None
        assert await queue.outcomes(queue.publish(2)) == [None, None]
        assert (queue.looks, queue.sent) == (2, 2)

    asyncio.run(scenario())


def test_who_gives_up_takes_the_look_from_nobody() -> None:
    async def scenario() -> None:
        queue = Queue(most=5)
        first, second = queue.publish(2)
        await queue.looking.wait()
        first.cancel()
        await asyncio.wait([first])
        queue.go_on.set()
        assert await queue.outcomes([second]) == [None]
        assert (queue.looks, queue.sent) == (1, 1)

    asyncio.run(scenario())


def test_closing_ends_a_look() -> None:
    async def scenario() -> None:
        queue = Queue(most=5)
        tasks = queue.publish(2)
        await queue.looking.wait()
        await queue.bound.close()
        await queue.bound.close()
        assert await queue.outcomes(tasks) == [BrokerUnavailableError] * 2
        assert queue.sent == 0

    asyncio.run(scenario())
