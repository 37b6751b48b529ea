"""The messenger example while its programs, and connections, come and go: real processes, on a real Redis and a real Kafka."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import grpc
import pytest
import redis.asyncio
from messenger_kit import (
    BROKERS,
    Chat,
    Reading,
    Talk,
    ascends,
    get_or_end,
    http_until,
    send_until,
    settings_on,
    talking,
    until_there,
)
from metrics_kit import PATIENCE

from prpc.dev_broker import DevBroker
from prpc.settings import Settings

#: A lost worker is noticed soon.
FAST = {"PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": "0.5", "PRPC_REDIS_RECOVER_INTERVAL_SEC": "2.5"}


@pytest.fixture(params=BROKERS)
def chat(request: pytest.FixtureRequest) -> Iterator[Chat]:
    """A system that the test starts, and may harm."""
    chat = Chat.on(settings_on(request), **FAST)
    yield chat
    chat.close()


def test_workers_come_and_go(chat: Chat) -> None:
    """Streams of a worker that stops are told so; those of the others have everything."""
    first = chat.start_worker()
    chat.start_server()

    async def scenario(talk: Talk) -> None:
        (old,) = await talk.read()
        chat.start_worker()
        readings = await talk.read(12)
        times = [await talk.send("a", f"one {number}") for number in range(5)]
        rows = [("a", f"one {number}", its_time) for number, its_time in enumerate(times)]
        for reading in [old, *readings]:
            assert await reading.until(5) == rows
        first.send_signal(signal.SIGTERM)
        assert await old.end() == (grpc.StatusCode.UNAVAILABLE, "the worker stops; open another stream")
        assert await asyncio.to_thread(first.wait) == 0
        assert "Traceback" not in first.output, first.output
        await send_until(talk, "two")
        (new,) = await talk.read()
        for reading in readings:
            got = await get_or_end(reading, 6)
            assert got is None or (got[:5] == rows and got[5][:2] == ("a", "two"))
        its_time = await send_until(talk, "three")
        await until_there(new, its_time)

    talking(chat, scenario)
    chat.end()


def test_a_worker_is_killed_and_another_one_begins(chat: Chat) -> None:
    worker = chat.start_worker()
    chat.start_server()
    http = chat.start_client()[1]

    async def scenario(talk: Talk) -> None:
        (reading,) = await talk.read()
        before = await talk.send("a", "before")
        assert await reading.until(1) == [("a", "before", before)]
        worker.end(signal.SIGKILL)
        await asyncio.to_thread(chat.start_worker)
        after = await send_until(talk, "after")
        assert after > before
        assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE
        (reading,) = await talk.read()
        await until_there(reading, await send_until(talk, "again"))

    talking(chat, scenario)
    # The stream of the killed worker, if nothing else, is found out by what it misses.
    http.flush()
    end = time.monotonic() + PATIENCE
    while not any(message["text"] == "knock" for message in http.flush()):
        assert time.monotonic() < end, "the client has no stream that lives"
        http.ask("POST", "/sendMessage", b'{"author": "b", "text": "knock"}')


@pytest.mark.real_redis
def test_the_server_ends_streams_that_miss_a_message(redis_url: str) -> None:
    """Those of a killed worker, long before its lease has run out."""
    chat = Chat.on(Settings(type_broker="redis", url_broker=redis_url, queue_name=f"chat_{uuid4().hex}"))

    async def scenario(talk: Talk) -> None:
        (old,) = await talk.read()
        await asyncio.to_thread(chat.start_worker)
        killed.end(signal.SIGKILL)
        (new,) = await talk.read()
        sent = []
        while not old.call.done():
            sent.append(await send_until(talk, str(len(sent))))
        assert (await old.end()) == (grpc.StatusCode.UNAVAILABLE, "the stream has missed a message; open another stream")
        rows = await new.until(len(sent))
        assert {row[2] for row in rows} >= set(sent)

    try:
        killed = chat.start_worker()
        chat.start_server()
        talking(chat, scenario)
    finally:
        chat.close()


@pytest.mark.real_redis
@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_stream_has_everything_or_is_ended_when_redis_cuts_connections(
    private_redis: Callable[..., DevBroker], kind: str
) -> None:
    broker = private_redis()
    chat = Chat.on(Settings(type_broker="redis", url_broker=broker.url))
    confirmed: list[int] = []

    async def send(talk: Talk, author: str) -> None:
        for number in range(60):
            if number == 20 and author == "b":
                async with redis.asyncio.Redis.from_url(broker.url) as admin:
                    await admin.client_kill_filter(_type=kind)
            confirmed.append(await send_until(talk, f"{author} {number}"))

    async def whole(reading: Reading, last: int) -> bool:
        """Whether it got to the last message with all before it; False where it was ended."""
        while not reading.rows or reading.rows[-1][2] < last:
            if await get_or_end(reading, len(reading.rows) + 1) is None:
                return False
        if {row[2] for row in reading.rows} >= set(confirmed):
            return True
        assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE
        return False

    async def scenario(talk: Talk) -> None:
        readings = await talk.read(10)
        await asyncio.gather(*(send(talk, author) for author in "abc"))
        readings += await talk.read(5)
        last = await send_until(talk, "last")
        confirmed.append(last)
        assert ascends(sorted(confirmed))
        wholes = [await whole(reading, last) for reading in readings[:10]]
        for reading in readings:
            assert ascends([row[2] for row in reading.rows])
        for reading in readings[10:]:
            await until_there(reading, last)
        assert kind == "pubsub" or all(wholes), "only events are lost for ever"

    try:
        for _ in range(2):
            chat.start_worker()
        chat.start_server()
        talking(chat, scenario)
        chat.end()
    finally:
        chat.close()


def test_a_server_that_begins_anew(chat: Chat) -> None:
    chat.start_worker()
    server = chat.start_server()
    http = chat.start_client()[1]
    http.send("a", "one")
    http_until(http, "one")
    assert server.end(signal.SIGTERM) == 0 and "Traceback" not in server.output
    chat.start_server(chat.port)
    http.send("a", "two")
    assert http_until(http, "two")["author"] == "a"
    chat.end()


def test_the_client_comes_first_and_the_worker_last(chat: Chat) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    http = chat.start_client(f"localhost:{port}")[1]
    assert http.ask("GET", "/") == (200, {"name": "messenger", "streamIsOpen": False})
    assert http.flush() == []
    chat.start_server(port)
    assert http.ask("POST", "/sendMessage", b'{"author": "a", "text": "too early"}')[0] == 503
    chat.start_worker()
    end = time.monotonic() + PATIENCE
    while not http.ask("GET", "/")[1]["streamIsOpen"] and time.monotonic() < end:
        time.sleep(0.02)
    http.send("a", "b")
    assert http_until(http, "b")["author"] == "a"
    chat.end()


def test_sigterm_ends_everything_in_any_order(chat: Chat) -> None:
    chat.start_worker()
    chat.start_server()
    chat.start_client()
    chat.start_client()

    async def scenario(talk: Talk) -> None:
        readings = await talk.read(20)
        await talk.send("a", "b")
        for program in chat.programs:
            program.send_signal(signal.SIGTERM)
        for reading in readings:
            assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE

    talking(chat, scenario)
    chat.end()


def test_sigterm_while_clients_do_not_read(chat: Chat) -> None:
    worker = chat.start_worker()
    server = chat.start_server()

    async def scenario(talk: Talk) -> None:
        readings = await talk.read(2)
        for _ in range(30):
            await asyncio.gather(*(talk.send("a", "x" * 3000) for _ in range(20)))
        for program in (worker, server):
            assert await asyncio.to_thread(program.end, signal.SIGTERM) == 0, program.output
            assert "Traceback" not in program.output, program.output
        assert all(reading.rows == [] for reading in readings)

    talking(chat, scenario)


def test_programs_that_cannot_start_say_why() -> None:
    nowhere = Chat({"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": "redis://127.0.0.1:1/0", "PRPC_CONNECT_TIMEOUT_SEC": "1"})
    try:
        worker = nowhere.start("-m", "examples.messenger.worker")
        assert worker.wait() == 1 and "messenger worker: " in worker.output and "Traceback" not in worker.output
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = str(taken.getsockname()[1])
            server = nowhere.start("-m", "examples.messenger.server.server", MESSENGER_SERVER_PORT=port)
            assert server.wait() == 1 and "messenger server: " in server.output and "Traceback" not in server.output
            client = nowhere.start("-m", "examples.messenger.client.client", MESSENGER_HTTP_PORT=port)
            assert client.wait() == 1 and "messenger client: " in client.output and "Traceback" not in client.output
        client = nowhere.start("-m", "examples.messenger.client.client", MESSENGER_HTTP_PORT="x")
        assert client.wait() == 1 and "messenger client: " in client.output
        server = nowhere.start_server()
        assert server.end(signal.SIGTERM) == 0 and "Traceback" not in server.output
    finally:
        nowhere.close()


def test_a_cancelled_stream_ends_in_the_worker(chat: Chat) -> None:
    worker = chat.start_worker()
    chat.start_server()

    async def scenario(talk: Talk) -> None:
        first, second = await talk.read(2)
        first.call.cancel()
        await asyncio.to_thread(worker.until, r" read_messages\(\) prpc\.exceptions\.CallCancelledError")
        its_time = await talk.send("a", "b")
        assert await second.until(1) == [("a", "b", its_time)]

    talking(chat, scenario)
