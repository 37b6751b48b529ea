"""A call of a broadcast function runs in every server of its queue: once, and in one order."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from broker_harness import Harness, connected, run

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers.base import Mailbox
from prpc.call_context import current_call
from prpc.codec import Codec
from prpc.exceptions import BadArgumentsError
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

CODEC = Codec()
#: The arguments of an event that every server hears at last.
END = "end"


class Town:
    """Servers of one queue, and what each of them heard."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.heard: dict[str, list[Any]] = {}
        #: Server -> (message id, headers, whether there is a deadline) of its events.
        self.contexts: dict[str, list[tuple[str, dict[str, str], bool]]] = {}
        self._news = asyncio.Condition()
        self._serving: list[tuple[AppServer, asyncio.Task[None]]] = []

    def client(self) -> AsyncClient:
        settings = self.settings
        return AsyncClient(settings.type_broker, settings.url_broker, settings.queue_name, secret_key=settings.secret_key)

    async def start(self, *names: str) -> None:
        """Servers of these names, ready."""
        for name in names:
            app = self._app(name)
            self._serving.append((app, asyncio.create_task(app.serve())))
        for app, _ in self._serving:
            await app.ready

    def _app(self, name: str) -> AppServer:
        settings = self.settings
        app = AppServer(
            settings.type_broker,
            settings.url_broker,
            "async",
            8,
            name_queue=settings.queue_name,
            redis_heartbeat=settings.redis_heartbeat,
            redis_recover=settings.redis_recover,
            kafka_queue_partitions=settings.kafka_queue_partitions or None,
            secret_key=settings.secret_key,
        )
        heard, contexts = self.heard.setdefault(name, []), self.contexts.setdefault(name, [])

        @app.function(broadcast=True)
        async def deliver(what: Any, *, fail: bool = False) -> None:
            call = current_call()
            contexts.append((call.message_id, dict(call.headers), call.remaining() is not None))
            heard.append(what)
            async with self._news:
                self._news.notify_all()
            if fail:
                raise ValueError(what)

        @app.function(broadcast=True)
        async def counted(number: int) -> None:
            heard.append(number)

        return app

    async def until(self, check: Callable[[list[Any]], bool]) -> None:
        """Until every server's record is as it should be."""
        async with self._news:
            await self._news.wait_for(lambda: all(check(heard) for heard in self.heard.values()))

    async def end(self, client: AsyncClient) -> None:
        """Whatever was published before has been heard by every server when this returns."""
        assert await client.call("deliver", END) is None
        await self.until(lambda heard: END in heard)

    async def stop(self) -> None:
        for app, task in self._serving:
            await app.stop(grace=5)
            await task


@asynccontextmanager
async def town(settings: Settings, *servers: str) -> AsyncIterator[tuple[Town, AsyncClient]]:
    made = Town(settings)
    try:
        await made.start(*servers)
        async with made.client() as client:
            yield made, client
    finally:
        await made.stop()


def test_every_server_hears_each_event_once_and_all_in_one_order(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b", "c") as (servers, client), servers.client() as other:
            calls = [caller.call("deliver", number) for number in range(60) for caller in (client, other)]
            assert [await call for call in calls] == [None] * 120
            await servers.end(client)
        a, b, c = servers.heard.values()
        assert a == b == c
        assert a[-1] == END and sorted(a[:-1]) == sorted([*range(60), *range(60)])

    run(scenario())


def test_calls_one_after_another_are_heard_in_their_order(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            for number in range(20):
                await client.call("deliver", number)
            await servers.end(client)
        assert list(servers.heard.values()) == [[*range(20), END]] * 2

    run(scenario())


def test_a_late_server_hears_later_events_only(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "early") as (servers, client):
            await client.call("deliver", 1)
            await servers.until(lambda heard: heard == [1])
            await servers.start("late")
            await client.call("deliver", 2)
            await servers.end(client)
        assert servers.heard == {"early": [1, 2, END], "late": [2, END]}

    run(scenario())


def written(what: Any) -> tuple[uuid.UUID, bytes]:
    message = PRPCMessage("deliver", (what,), {}, uuid.uuid4(), datetime.now(UTC))
    return message.message_id, CODEC.write_call(message)


async def outcome(mailbox: Mailbox) -> Any:
    (body,) = (await mailbox.receive()).bodies
    reply = CODEC.read_reply(body)
    assert reply.failure is None, reply.failure
    return reply.message_id, reply.result


def test_a_doubled_call_is_one_event(settings: Settings, harness: Harness) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client), connected(settings) as broker:
            boxes = [await broker.open_mailbox(settings.queue_name) for _ in range(2)]
            message_id, body = written("twice")
            for box in boxes:
                await asyncio.to_thread(harness.put, {"message": body, "reply_to": box.address.encode()}, raw=False)
            assert [await outcome(box) for box in boxes] == [(message_id, None)] * 2
            await servers.end(client)
        assert list(servers.heard.values()) == [["twice", END]] * 2

    run(scenario())


def test_a_raw_call_is_an_event(settings: Settings, harness: Harness) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            message_id = uuid.uuid4()
            call = {"func_name": "deliver", "func_args": [{"a": [1, "\u2603", None]}], "message_id": str(message_id)}
            await asyncio.to_thread(harness.put, {"message": json.dumps(call).encode()}, raw=True)
            while (text := await asyncio.to_thread(harness.kept_raw, message_id)) is None:
                await asyncio.sleep(0.01)
            answer = json.loads(text)
            assert (answer["result"], answer["exception_info"]) == (None, None)
            await servers.end(client)
        assert list(servers.heard.values()) == [[{"a": [1, "\u2603", None]}, END]] * 2

    run(scenario())


EXACT = [
    (1, "\u2603", '"\\\n\ud800'),
    {"a": {1: Decimal("1.10"), "b": b"\x00\xff"}, (1, 2): {3, 4}},
    2**200,
    [float("inf"), 1e-300, True, None],
    datetime(2026, 11, 20, tzinfo=UTC),
    date(2026, 11, 20),
    timedelta(microseconds=1),
    uuid.UUID(int=5),
]


def test_arguments_keep_their_exactness(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            await client.call("deliver", EXACT)
            await servers.end(client)
        for heard in servers.heard.values():
            assert heard == [EXACT, END]
            assert [type(value) for value in heard[0]] == [type(value) for value in EXACT]

    run(scenario())


def test_bad_arguments_are_refused_and_nobody_hears_of_them(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            with pytest.raises(BadArgumentsError, match="'number'"):
                await client.call("counted", "x")
            with pytest.raises(BadArgumentsError, match="misses the argument 'what'"):
                await client.call("deliver")
            await servers.end(client)
        assert list(servers.heard.values()) == [[END]] * 2

    run(scenario())


def test_the_current_call_is_that_of_the_caller(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            task = client.options(headers={"tenant": "\u2603"}, timeout=25).call("deliver", 1)
            await task
            await servers.end(client)
        for contexts in servers.contexts.values():
            assert contexts[0] == (str(task.message.message_id), {"tenant": "\u2603"}, True)
            assert contexts[1][1:] == ({}, False)

    run(scenario())


def test_a_failure_harms_nothing(settings: Settings) -> None:
    async def scenario() -> None:
        async with town(settings, "a", "b") as (servers, client):
            assert await client.call("deliver", "bad", fail=True) is None
            await servers.end(client)
        assert list(servers.heard.values()) == [["bad", END]] * 2

    run(scenario())


def test_signed_servers_hear_signed_events(settings: Settings) -> None:
    async def scenario() -> None:
        signed = replace(settings, secret_key="the key of the house " * 2)
        async with town(signed, "a", "b") as (servers, client):
            assert await client.call("deliver", 1) is None
            await servers.end(client)
        assert list(servers.heard.values()) == [[1, END]] * 2

    run(scenario())
