"""The messenger as real processes, and conversations with it over gRPC and HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import grpc
import pytest
from metrics_kit import PATIENCE, Program

from examples.messenger.proto import messenger_pb2, messenger_pb2_grpc
from prpc.settings import Settings

#: The real brokers.
BROKERS = (pytest.param("redis", marks=pytest.mark.real_redis), pytest.param("kafka", marks=pytest.mark.real_kafka))

#: Author, text, time in nanoseconds since 1970.
Row = tuple[str, str, int]


def nanoseconds(message: Any) -> int:
    """The sendTime of a message."""
    return int(message.sendTime.seconds) * 10**9 + int(message.sendTime.nanos)


@dataclass
class Chat:
    """The processes of one system on one queue."""

    environ: dict[str, str]
    programs: list[Program] = field(default_factory=list)
    #: Of the server.
    port: int = 0

    @classmethod
    def on(cls, settings: Settings, **more: str) -> Chat:
        """`more`: further environment variables."""
        place = {"TYPE_BROKER": settings.type_broker, "URL_BROKER": settings.url_broker, "QUEUE_NAME": settings.queue_name}
        return cls({**{f"PRPC_{name}": value for name, value in place.items()}, **more})

    def start(self, *arguments: str, **more: str) -> Program:
        self.programs.append(Program(*arguments, environ={**self.environ, **more}))
        return self.programs[-1]

    def start_worker(self) -> Program:
        worker = self.start("-m", "examples.messenger.worker")
        worker.until(rf" serving 2 functions from queue '{self.environ['PRPC_QUEUE_NAME']}'")
        return worker

    def start_server(self, port: int = 0) -> Program:
        server = self.start("-m", "examples.messenger.server.server", MESSENGER_SERVER_PORT=str(port))
        self.port = int(server.until(r"^messenger server listens on 0\.0\.0\.0:(\d+)$")[1])
        return server

    def start_client(self, address: str = "") -> tuple[Program, Http]:
        """`address`: of the server; by default the one that runs."""
        address = address or f"localhost:{self.port}"
        client = self.start("-m", "examples.messenger.client.client", MESSENGER_HTTP_PORT="0", MESSENGER_SERVER_ADDR=address)
        return client, Http(int(client.until(r"^messenger client listens on 0\.0\.0\.0:(\d+)$")[1]))

    def end(self) -> None:
        """SIGTERM to all that run; each ends well."""
        for program in self.programs:
            if program.child.poll() is None:
                program.send_signal(signal.SIGTERM)
        for program in self.programs:
            assert program.wait() == 0, program.output
            assert "Traceback" not in program.output, program.output

    def close(self) -> None:
        for program in self.programs:
            program.close()

    @asynccontextmanager
    async def talk(self) -> AsyncIterator[Talk]:
        # Without the probe a stream takes 64 KiB that nobody reads, and not megabytes.
        options = [("grpc.enable_http_proxy", 0), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(f"localhost:{self.port}", options=options) as channel:
            talk = Talk(messenger_pb2_grpc.MessengerServerStub(channel))
            try:
                yield talk
            finally:
                talk.close()


class Http:
    """What the HTTP client answers."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status, and what the JSON of the answer says. Underscores in the names of `headers` are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        finally:
            connection.close()

    def send(self, author: str, text: str) -> str:
        """The time of the message."""
        status, value = self.ask("POST", "/sendMessage", json.dumps({"author": author, "text": text}).encode())
        assert status == 200 and list(value) == ["sendTime"], value
        return str(value["sendTime"])

    def flush(self) -> list[dict[str, str]]:
        status, value = self.ask("POST", "/getAndFlushMessages")
        assert status == 200
        return list(value)


class Talk:
    """A channel to the server."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub
        self.readings: list[Reading] = []

    async def send(self, author: str, text: str) -> int:
        request = messenger_pb2.SendMessageRequest(author=author, text=text)
        return nanoseconds(await self.stub.SendMessage(request, timeout=PATIENCE))

    async def read(self, count: int = 1) -> list[Reading]:
        """So many streams, all of them open."""
        calls = [self.stub.ReadMessages(messenger_pb2.ReadMessagesRequest()) for _ in range(count)]
        readings = [Reading(call) for call in calls]
        self.readings += readings
        for reading in readings:
            await reading.opened()
        return readings

    def close(self) -> None:
        for reading in self.readings:
            reading.call.cancel()


class Reading:
    """One stream, and what came of it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.rows: list[Row] = []

    async def opened(self) -> None:
        await asyncio.wait_for(self.call.initial_metadata(), PATIENCE)

    async def until(self, count: int) -> list[Row]:
        """Read until there are so many."""
        while len(self.rows) < count:
            message = await asyncio.wait_for(self.call.read(), PATIENCE)
            assert message is not grpc.aio.EOF, await self.call.details()
            self.rows.append((message.author, message.text, nanoseconds(message)))
        return self.rows

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Read to the end; how it ended."""
        with_error = False
        while not with_error:
            try:
                message = await asyncio.wait_for(self.call.read(), PATIENCE)
                with_error = message is grpc.aio.EOF
            except grpc.aio.AioRpcError:
                with_error = True
        return await self.call.code(), await self.call.details()


def ascends(times: Sequence[Any]) -> bool:
    """Whether they ascend strictly."""
    return all(one < other for one, other in pairwise(times))


def settings_on(request: pytest.FixtureRequest) -> Settings:
    kind = request.param
    url = request.getfixturevalue("redis_url" if kind == "redis" else "kafka_bootstrap")
    return Settings(type_broker=kind, url_broker=url, queue_name=f"chat_{uuid4().hex}")


def talking(chat: Chat, scenario: Callable[[Talk], Awaitable[None]]) -> None:
    """Run a scenario over one channel."""

    async def run() -> None:
        async with chat.talk() as talk:
            await scenario(talk)

    asyncio.run(asyncio.wait_for(run(), 110))


async def send_until(talk: Talk, text: str) -> int:
    """Send until it is confirmed, as somebody would whose message came back."""
    while True:
        try:
            return await talk.send("a", text)
        except grpc.aio.AioRpcError as exc:
            assert exc.code() is grpc.StatusCode.UNAVAILABLE, exc
            await asyncio.sleep(0.1)


async def until_there(reading: Reading, its_time: int) -> None:
    """Read until this message; before it there may be those that were not confirmed."""
    while not reading.rows or reading.rows[-1][2] < its_time:
        await reading.until(len(reading.rows) + 1)
    assert reading.rows[-1][2] == its_time


async def get_or_end(reading: Reading, count: int) -> list[Row] | None:
    """So many rows; None where its worker has stopped."""
    try:
        return await reading.until(count)
    except (AssertionError, grpc.aio.AioRpcError):
        assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE
        return None


def http_until(http: Http, text: str) -> dict[str, str]:
    """What the buffer has of this text; waits for it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for message in http.flush():
            if message["text"] == text:
                return message
        time.sleep(0.02)
    raise AssertionError(f"{text} did not come")
