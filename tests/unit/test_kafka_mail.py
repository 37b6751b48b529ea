"""Mail to partitions that a process has not heard of: looked for once, in order, and lost or sent to any where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from prpc.brokers.kafka_mail import KafkaMail
from prpc.exceptions import BrokerUnavailableError

TOPIC = "prpc_feedback_q"


class Sender:
    """Stands for the process's producer, with the partitions that the test says."""

    def __init__(self) -> None:
        self.client = self.cluster = self
        self.partitions = {0, 1}
        #: Partitions that a look at the cluster brings.
        self.grown: set[int] = set()
        self.looks = 0
        self.error: BrokerUnavailableError | None = None
        self.sent: list[tuple[bytes, int | None, bool]] = []

    def partitions_for_topic(self, topic: str) -> set[int]:
        assert topic == TOPIC
        return self.partitions

    async def know(self, topic: str) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def force_metadata_update(self) -> None:
        self.looks += 1
        await asyncio.sleep(0)
        self.partitions |= self.grown

    def send(self, topic: str, value: bytes, *, partition: int | None, repeat: bool, **more: Any) -> asyncio.Future[Any]:
        assert more["headers"] == [("prpc_to", b"client")] and more["key"] == b"id"
        self.sent.append((value, partition, repeat))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(f"place of {value!r}")
        return future


def run(scenario: Callable[[Sender, Callable[..., asyncio.Future[Any]]], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        sender = Sender()
        mail: Any = KafkaMail(sender)  # type: ignore[arg-type]

        def send(body: bytes, partition: int, *, outcome: bool = False) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = mail.send(TOPIC, body, b"id", (partition, "client"), outcome=outcome)
            return future

        await asyncio.wait_for(scenario(sender, send), 30)

    asyncio.run(bounded())


def test_a_known_partition_gets_it_at_once() -> None:
    async def scenario(sender: Sender, send: Callable[..., asyncio.Future[Any]]) -> None:
        sent = [send(b"a", 0), send(b"b", 1, outcome=True)]
        assert sender.sent == [(b"a", 0, False), (b"b", 1, True)]
        assert await asyncio.gather(*sent) == ["place of b'a'", "place of b'b'"]
        assert sender.looks == 0

    run(scenario)


def test_a_new_partition_is_looked_for_once_and_order_is_kept() -> None:
    async def scenario(sender: Sender, send: Callable[..., asyncio.Future[Any]]) -> None:
        sender.grown = {7}
        sent = [send(b"1", 7), send(b"2", 7, outcome=True)]
        while 7 not in sender.partitions:
            await asyncio.sleep(0)
        sent.append(send(b"3", 7))  # known by now, but those before it are not sent yet
        sent.append(send(b"elsewhere", 0))
        await asyncio.gather(*sent)
        assert [body for body, partition, _ in sender.sent if partition == 7] == [b"1", b"2", b"3"]
        assert sender.looks == 1
        await send(b"4", 7)
        assert sender.sent[-1] == (b"4", 7, False)

    run(scenario)


def test_where_there_is_no_such_partition_only_outcomes_are_sent() -> None:
    async def scenario(sender: Sender, send: Callable[..., asyncio.Future[Any]]) -> None:
        lost, outcome = send(b"mail", 99), send(b"outcome", 99, outcome=True)
        assert await lost is None
        assert await outcome == "place of b'outcome'"
        assert sender.sent == [(b"outcome", None, True)]

    run(scenario)


def test_a_broker_that_is_away_ends_what_waits_with_its_error() -> None:
    async def scenario(sender: Sender, send: Callable[..., asyncio.Future[Any]]) -> None:
        sender.error = BrokerUnavailableError("away")
        sent = [send(b"mail", 99), send(b"outcome", 99, outcome=True)]
        for future in sent:
            with pytest.raises(BrokerUnavailableError, match="away"):
                await future
        sender.error = None
        assert await send(b"again", 99, outcome=True) == "place of b'again'"

    run(scenario)
