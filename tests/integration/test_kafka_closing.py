"""Whoever closes while it still connects leaves nothing open: a connection, or a task of one, that is left says so."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from prpc import AsyncClient
from prpc.brokers import create_broker
from prpc.brokers.base import Broker
from prpc.dev_kafka import FakeKafka
from prpc.exceptions import BrokerUnavailableError, CallError
from prpc.settings import Settings
from tests import kafka_talk

#: Seconds for which the broker is silent: longer than the test.
SILENCE = 120.0
PATIENCE = 30.0


def run(scenario: Awaitable[None]) -> None:
    async def checked() -> None:
        before = asyncio.all_tasks()
        await scenario
        assert asyncio.all_tasks() == before

    kafka_talk.run(checked())
    gc.collect()


def new_broker(kafka: FakeKafka) -> Broker:
    return create_broker(Settings(type_broker="kafka", url_broker=kafka.bootstrap_servers, connect_timeout=PATIENCE))


async def silent_at(kafka: FakeKafka, api: str, begin: Callable[[], None] = lambda: None) -> None:
    """Return when the broker has got such a request that it does not answer, after `begin`."""
    kafka.forget_requests()
    kafka.delay(api, SILENCE)
    begin()
    await asyncio.to_thread(kafka.wait_for, api, timeout=PATIENCE)


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata"])
def test_a_client_that_closes_while_it_connects(fake_kafka: FakeKafka, api: str) -> None:
    async def scenario() -> None:
        client = AsyncClient("kafka", fake_kafka.bootstrap_servers, "closing", connect_timeout=2.0)
        call = asyncio.ensure_future(client.call("anything"))
        await silent_at(fake_kafka, api)
        fake_kafka.clear_faults()
        await client.close()
        with pytest.raises((CallError, BrokerUnavailableError)):
            await call

    run(scenario())


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata"])
def test_a_connect_that_is_cancelled(fake_kafka: FakeKafka, api: str) -> None:
    async def scenario() -> None:
        broker = new_broker(fake_kafka)
        connecting = asyncio.ensure_future(broker.connect())
        await silent_at(fake_kafka, api)
        connecting.cancel()
        await asyncio.wait([connecting])
        await broker.close()

    run(scenario())


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata", "ListOffsets"])
def test_a_server_that_closes_while_it_looks_for_dead_letters(fake_kafka: FakeKafka, api: str) -> None:
    async def scenario() -> None:
        broker = new_broker(fake_kafka)
        await broker.connect()
        await broker.declare("closing")  # in the background it looks whether there are too many dead letters
        await silent_at(fake_kafka, api)
        await broker.close()

    run(scenario())


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata"])
def test_a_question_that_is_asked_while_the_broker_closes(fake_kafka: FakeKafka, api: str) -> None:
    async def scenario(ask: Callable[[Broker], Awaitable[object]]) -> None:
        broker = new_broker(fake_kafka)
        await broker.connect()
        asking = asyncio.ensure_future(ask(broker))
        await silent_at(fake_kafka, api)
        await broker.close()
        with pytest.raises(BrokerUnavailableError):
            await asking

    for ask in (lambda broker: broker.ping(), lambda broker: broker.state("closing")):
        run(scenario(ask))
