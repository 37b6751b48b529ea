"""The pump's repeats, with a broker that fails as the test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from client_kit import FlakyBroker, memory_settings, reply_to, unavailable

from prpc.app_client import AsyncClient
from prpc.brokers.base import Mail, Outgoing, ServerRecord
from prpc.exceptions import (
    BrokerUnavailableError,
    CallCancelledError,
    CallError,
    ClientTimeOutError,
    NoServerError,
    QueueFullError,
)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyBroker:
    broker = FlakyBroker()
    monkeypatch.setattr("prpc.client.connection.create_broker", lambda settings: broker)
    return broker


def client_of(retries: int = 3, attempt_timeout: float = 30.0, backoff: float = 0.001, **more: Any) -> AsyncClient:
    client = AsyncClient("memory", memory_settings().url_broker, "q", **more)
    return client.options(idempotent=True, retries=retries, attempt_timeout=attempt_timeout, backoff=backoff)


async def eventually(happened: Callable[[], bool]) -> None:
    """Turn the loop until something came true."""
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_call_that_was_not_published_is_sent_again(flaky: FlakyBroker) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f", 1)
            await eventually(lambda: len(flaky.published) == 2)
            flaky.publish_error = None
            await eventually(lambda: len(flaky.published) == 3)
            assert {call.message_id for call in flaky.published} == {task.message.message_id}
            assert len({call.body for call in flaky.published}) == 1
            assert [call.facts.get("attempt") for call in flaky.published] == [None, "2", "3"]
            flaky.post(Mail([reply_to(flaky.published[0], "late")]))
            assert await task == "late"

    run(scenario())


def test_when_no_attempt_is_accepted_the_brokers_error_is_the_outcome(
    flaky: FlakyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        async with client_of(retries=2) as client:
            with pytest.raises(BrokerUnavailableError, match="away"):
                await client.call("f")
            assert len(flaky.published) == 3
            assert not caplog.records
            unseen = client.call("f")
            await eventually(unseen.is_done_task)
        assert "1 calls could not be sent to queue" in caplog.text

    run(scenario())


def test_a_call_that_nobody_holds_is_sent_until_the_broker_has_it(flaky: FlakyBroker) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        async with client_of(attempt_timeout=0.001) as client:
            client.call("f")
            await eventually(lambda: len(flaky.published) == 2)
            flaky.publish_error = None
            await eventually(lambda: len(flaky.published) == 3)
            await eventually(lambda: not len(client.channel.pump().pending) or gc.collect() < 0)
            assert len(flaky.published) == 3

    run(scenario())


def test_no_error_of_a_repeat_ends_a_call_that_the_broker_has(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = flaky.publish

    def full(queue: str, call: Outgoing) -> Any:
        sent = publish(queue, call)
        if len(flaky.published) == 2:
            raise QueueFullError("full", queue=queue, length=9)
        return sent

    monkeypatch.setattr(flaky, "publish", full)

    async def scenario() -> None:
        async with client_of(attempt_timeout=0.001) as client:
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 2)
            flaky.publish_error = unavailable()
            await eventually(lambda: len(flaky.published) == 4)
            await asyncio.sleep(0)
            flaky.post(Mail([reply_to(flaky.published[0], "of the first")]))
            assert await task == "of the first"

    run(scenario())


def test_a_full_queue_is_the_outcome_of_a_first_attempt(flaky: FlakyBroker) -> None:
    flaky.publish_error = QueueFullError("full")

    async def scenario() -> None:
        async with client_of() as client:
            with pytest.raises(QueueFullError):
                await client.call("f")
        assert len(flaky.published) == 1

    run(scenario())


def test_a_repeat_that_is_refused_does_not_say_that_the_call_never_came(flaky: FlakyBroker) -> None:
    """The first attempt may have reached the broker, whose answer was lost: it may run while the queue is full."""
    full = QueueFullError("full", queue="q", length=3)

    async def scenario() -> None:
        async with client_of(retries=2) as client:
            flaky.publish_error = unavailable()
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 1)
            flaky.publish_error = full
            with pytest.raises(
                BrokerUnavailableError, match=r"refused .*full.*; whether an earlier one arrived is not known"
            ) as raised:
                await task
            assert raised.value.__cause__ is full
            assert len(flaky.published) == 3

    run(scenario())


def test_a_refused_repeat_leaves_room_for_the_answer_of_an_earlier_one(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of(retries=3) as client:
            flaky.publish_error = unavailable()
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 1)
            flaky.publish_error = QueueFullError("full", queue="q", length=3)
            await eventually(lambda: len(flaky.published) == 2)
            flaky.post(Mail([reply_to(flaky.published[0], "of the first")]))
            assert await task == "of the first"

    run(scenario())


def test_a_broker_that_comes_later_gets_the_call(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    flaky.connect_error = unavailable()

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            other = client.options(retries=0).call("g")
            with pytest.raises(BrokerUnavailableError):
                await other
            await eventually(lambda: flaky.connects == 2)
            flaky.connect_error = None
            await eventually(lambda: len(flaky.published) == 1)
            assert flaky.published[0].facts["attempt"] == str(flaky.connects)
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            assert await task == 1

    run(scenario())
    assert not caplog.records


def test_a_broker_that_never_comes_ends_the_call_after_its_attempts(flaky: FlakyBroker) -> None:
    flaky.connect_error = unavailable()

    async def scenario() -> None:
        async with client_of(retries=2) as client:
            with pytest.raises(BrokerUnavailableError):
                await client.call("f")
        assert flaky.connects == 3

    run(scenario())


def test_the_deadline_counts_while_the_broker_is_away(flaky: FlakyBroker) -> None:
    flaky.connect_error = unavailable()

    async def scenario() -> None:
        async with client_of(backoff=100.0).options(timeout=0.05) as client:
            with pytest.raises(ClientTimeOutError, match=r"in 1 attempt; it was not sent"):
                await client.call("f")

    run(scenario())


def test_a_lost_reply_address_makes_an_accepted_call_be_sent_again(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, plain = client.call("f"), client.options(retries=0).call("g")
            await eventually(lambda: len(flaky.published) == 2)
            await asyncio.sleep(0)
            flaky.post(unavailable())
            with pytest.raises(BrokerUnavailableError):
                await plain
            await eventually(lambda: len(flaky.published) == 3)
            assert flaky.connects == 2 and flaky.published[2].message_id == task.message.message_id
            flaky.post(Mail([reply_to(flaky.published[2], 1)]))
            assert await task == 1

    run(scenario())


def test_closing_ends_a_call_that_waits_for_its_next_attempt(flaky: FlakyBroker) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        client = client_of(backoff=100.0)
        task = client.call("f")
        await eventually(lambda: len(flaky.published) == 1)
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(CallError, match="closed before the call ended"):
            await task
        flaky.connect_error, closed = unavailable(), flaky.closed
        paused = client.call("f")
        await eventually(lambda: flaky.closed > closed)
        for _ in range(5):
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(CallError, match="closed before the call ended"):
            await paused

    run(scenario())


def test_an_attempt_that_comes_due_while_closing_is_not_made(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = flaky.publish
    hanging: list[asyncio.Future[None]] = []

    def second_hangs(queue: str, call: Outgoing) -> Any:
        answer = publish(queue, call)
        if len(flaky.published) == 1:
            return answer
        hanging.append(asyncio.get_running_loop().create_future())
        return hanging[0]

    monkeypatch.setattr(flaky, "publish", second_hangs)
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        client = client_of(backoff=0.05)
        task = client.call("f")
        await eventually(lambda: len(flaky.published) == 1)
        flaky.publish_error = None
        slow = client.call("g")
        closing = asyncio.create_task(client.close())
        with pytest.raises(CallError, match="closed before the call ended"):
            await task
        assert not closing.done() and len(flaky.published) == 2
        hanging[0].set_result(None)
        await closing
        assert slow.is_done_task()

    run(scenario())


def test_what_cannot_be_sent_while_closing_ends_with_its_error(flaky: FlakyBroker) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        client = client_of()
        task = client.call("f")
        await client.close()
        with pytest.raises(BrokerUnavailableError):
            await task
        assert len(flaky.published) == 1

    run(scenario())


def test_a_cancelled_call_is_not_sent_again(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of(attempt_timeout=0.001, retries=1000) as client:
            task = client.call("f")
            await eventually(lambda: len(flaky.published) >= 2)
            assert task.cancel()
            sent = len(flaky.published)
            with pytest.raises(CallCancelledError):
                await task
            await asyncio.sleep(0.02)
            assert len(flaky.published) == sent
            assert flaky.broadcasts == [task.message.message_id]
            flaky.publish_error = unavailable()
            paused = client.options(backoff=100).call("f")
            await eventually(lambda: len(flaky.published) == sent + 1)
            await asyncio.sleep(0)
            assert paused.cancel()
            del task, paused
        gc.collect()

    run(scenario())


def test_nobody_there_is_said_at_once_and_asked_once(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of(attempt_timeout=0.001).options(require_server=True) as client:
            with pytest.raises(NoServerError):
                await client.call("f")
            flaky.announced = [ServerRecord("one", {})]
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 1)
            flaky.announced = []
            await eventually(lambda: len(flaky.published) == 3)
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            assert await task == 1

    run(scenario())


def test_a_broker_that_cannot_say_who_serves_is_asked_again(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def servers(queue: str) -> list[ServerRecord]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise unavailable()
        return [ServerRecord("one", {})]

    monkeypatch.setattr(flaky, "servers", servers)

    async def scenario() -> None:
        async with client_of().options(require_server=True) as client:
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 1)
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            assert await task == 1
        assert asked == 2

    run(scenario())


def test_a_publish_that_was_cancelled_counts_as_sent(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = flaky.publish

    def cancelled(queue: str, call: Outgoing) -> asyncio.Future[None]:
        publish(queue, call)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    monkeypatch.setattr(flaky, "publish", cancelled)

    async def scenario() -> None:
        async with client_of(attempt_timeout=0.001) as client:
            task = client.call("f")
            await eventually(lambda: len(flaky.published) == 2)
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            assert await task == 1

    run(scenario())
