"""The messenger example as it runs: workers, server and clients are processes, on a real Redis and a real Kafka."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc
import pytest
import redis.asyncio
from messenger_kit import Chat, Http, Reading, Talk, ascends
from metrics_kit import PATIENCE

from prpc.dev_broker import DevBroker
from prpc.settings import Settings

BROKERS = (pytest.param("redis", marks=pytest.mark.real_redis), pytest.param("kafka", marks=pytest.mark.real_kafka))
#: A lost worker is noticed soon.
FAST = {"PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": "0.5", "PRPC_REDIS_RECOVER_INTERVAL_SEC": "2.5"}
NINE_DIGITS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def settings_on(request: pytest.FixtureRequest) -> Settings:
    kind = request.param
    url = request.getfixturevalue("redis_url" if kind == "redis" else "kafka_bootstrap")
    return Settings(type_broker=kind, url_broker=url, queue_name=f"chat_{uuid4().hex}")


@pytest.fixture(scope="module", params=BROKERS)
def shared(request: pytest.FixtureRequest) -> Iterator[Chat]:
    """Two workers and a server, for tests that leave them as they are."""
    chat = Chat.on(settings_on(request))
    try:
        for _ in range(2):
            chat.start_worker()
        chat.start_server()
        yield chat
        chat.end()
    finally:
        chat.close()


@pytest.fixture(scope="module")
def http(shared: Chat) -> Http:
    """A client of the shared system."""
    return shared.start_client()[1]


@pytest.fixture(params=BROKERS)
def chat(request: pytest.FixtureRequest) -> Iterator[Chat]:
    """A system that the test starts, and may harm."""
    chat = Chat.on(settings_on(request), **FAST)
    yield chat
    chat.close()


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


def http_until(http: Http, text: str) -> dict[str, str]:
    """What the buffer has of this text; waits for it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for message in http.flush():
            if message["text"] == text:
                return message
        time.sleep(0.02)
    raise AssertionError(f"{text} did not come")


# gRPC


def test_forty_streams_have_everything_in_one_order(shared: Chat) -> None:
    async def scenario(talk: Talk) -> None:
        readings = await talk.read(40)

        async def sender(author: str) -> list[int]:
            return [await talk.send(author, str(number)) for number in range(12)]

        times = await asyncio.gather(*(sender(f"author {number}") for number in range(10)))
        rows = await readings[0].until(120)
        for reading in readings:
            assert await reading.until(120) == rows
        assert ascends([row[2] for row in rows])
        for number, its_times in enumerate(times):
            mine = [row for row in rows if row[0] == f"author {number}"]
            assert mine == [(f"author {number}", str(n), its_time) for n, its_time in enumerate(its_times)]

    talking(shared, scenario)
    readers = [program.output.count(" deliver() ok") for program in shared.programs[:2]]
    assert min(readers) > 0, "every worker hears"


def test_a_stream_has_nothing_from_before_it_opened(shared: Chat) -> None:
    async def scenario(talk: Talk) -> None:
        (old,) = await talk.read()
        for number in range(10):
            before = await talk.send("a", f"before {number}")
            (new,) = await talk.read()
            after = await talk.send("a", f"after {number}")
            assert await new.until(1) == [("a", f"after {number}", after)]
            assert (await old.until(2 * number + 2))[-2:] == [("a", f"before {number}", before), ("a", f"after {number}", after)]

    talking(shared, scenario)


def test_a_stream_that_was_asked_for_first_has_the_message(shared: Chat) -> None:
    async def scenario(talk: Talk) -> None:
        for number in range(20):
            reading = asyncio.create_task(talk.read())
            await asyncio.sleep(0)
            its_time = await talk.send("a", str(number))
            assert await (await reading)[0].until(1) == [("a", str(number), its_time)]

    talking(shared, scenario)


def test_clients_that_do_not_read_stop_nobody_and_miss_nothing(shared: Chat) -> None:
    long = "ж" * 2000

    async def scenario(talk: Talk) -> None:
        lazy = await talk.read(5)
        (reading,) = await talk.read()
        for start in range(0, 400, 20):
            await asyncio.gather(*(talk.send("a", f"{number} {long}") for number in range(start, start + 20)))
        rows = await reading.until(400)
        for other in lazy:
            assert await other.until(400) == rows

    talking(shared, scenario)


def test_texts_of_any_kind(shared: Chat) -> None:
    texts = ["", " ", "\x00\n\r\t", "Привет, мир", "😀" * 100, "\u2028\ufeff", '{"py/object": "x"}', "a" * 400_000, "ж" * 100_000]

    async def scenario(talk: Talk) -> None:
        (reading,) = await talk.read()
        for text in texts:
            await talk.send(text[:1000], text)
        assert [row[:2] for row in await reading.until(len(texts))] == [(text[:1000], text) for text in texts]
        with pytest.raises(grpc.aio.AioRpcError, match="can be sent") as caught:
            await talk.send("a", "x" * 1_000_000)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    talking(shared, scenario)


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


# HTTP


def test_messages_over_http(shared: Chat, http: Http) -> None:
    other = shared.start_client()[1]
    http.flush()

    async def scenario(talk: Talk) -> None:
        (reading,) = await talk.read()
        times = [http.send("Ада", "Привет 😀"), http.send("", ""), http.send("a", "b")]
        expected = [
            {"author": author, "text": text, "sendTime": its_time}
            for (author, text), its_time in zip([("Ада", "Привет 😀"), ("", ""), ("a", "b")], times, strict=True)
        ]
        assert all(NINE_DIGITS.fullmatch(its_time) for its_time in times) and ascends(times)
        for one in (http, other):
            came = []
            while len(came) < 3:
                came += one.flush()
            assert came == expected
            assert one.flush() == []
        rows = await reading.until(3)
        assert [(author, text) for author, text, _ in rows] == [("Ада", "Привет 😀"), ("", ""), ("a", "b")]
        for its_time, (_, _, nanos) in zip(times, rows, strict=True):
            assert its_time.endswith(f".{nanos % 10**9:09d}Z")
            assert its_time.startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanos // 10**9)))

    talking(shared, scenario)


def test_many_http_clients_at_once(http: Http) -> None:
    http.flush()
    with ThreadPoolExecutor(30) as pool:
        times = list(pool.map(lambda number: http.send(str(number), "at once"), range(150)))
    messages: list[dict[str, str]] = []
    while len(messages) < 150:
        messages += http.flush()
    assert [message["sendTime"] for message in messages] == sorted(times) and ascends(sorted(times))
    assert {message["author"]: message["sendTime"] for message in messages} == {str(n): t for n, t in enumerate(times)}


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=latin-1", "application/x-www-form-urlencoded", None])
def test_a_body_is_utf_8_whatever_its_content_type_says(http: Http, kind: str | None) -> None:
    http.flush()
    headers = {} if kind is None else {"Content_Type": kind}
    status, answer = http.ask("POST", "/sendMessage", '{"author": "ö", "text": "ж", "more": 1}'.encode(), **headers)
    assert status == 200 and NINE_DIGITS.fullmatch(answer["sendTime"])
    assert http_until(http, "ж") == {"author": "ö", "text": "ж", **answer}


def test_requests_without_content_length(http: Http) -> None:
    http.send("a", "b")
    with socket.create_connection(("127.0.0.1", http.port), PATIENCE) as connection, connection.makefile("rb") as answers:
        for body in (b"[{", b"[]", b"[]"):
            connection.sendall(b"POST /getAndFlushMessages HTTP/1.1\r\nHost: x\r\n\r\n")
            lines = []
            while (line := answers.readline().strip()) != b"":
                lines.append(line.lower())
            (length,) = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
            assert lines[0] == b"http/1.1 200 ok" and answers.read(length).startswith(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"author": "a"}',
        b'{"text": "a"}',
        b'{"author": "a", "text": null}',
        b'{"author": 1, "text": "b"}',
        b'{"author": "a", "text": ["b"]}',
        b'{"author": "a", "text": "\xff"}',
        b'{"author": "a", "text": "\\ud800"}',
        b'{"author": "a", "text": "b"} x',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_bad_bodies(http: Http, body: bytes) -> None:
    status, answer = http.ask("POST", "/sendMessage", body)
    assert status == 400 and list(answer) == ["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/?a=b", 200),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("GET", "/sendMessage", 405),
        ("PUT", "/sendMessage", 405),
        ("GET", "/getAndFlushMessages", 405),
        ("POST", "/getAndFlushMessages?x=1", 200),
        ("POST", "/sendMessage/", 404),
        ("POST", "/sendmessage", 404),
        ("GET", "/messages", 404),
        ("DELETE", "/x", 404),
    ],
)
def test_paths(http: Http, method: str, path: str, status: int) -> None:
    assert http.ask(method, path)[0] == status


def test_bodies_that_are_too_long(http: Http) -> None:
    assert http.ask("POST", "/sendMessage", b'{"author": "", "text": "' + b"x" * 1_000_000 + b'"}')[0] == 413
    assert http.ask("POST", "/sendMessage", None, Content_Length=str(10**9))[0] == 413
    assert http.ask("POST", "/sendMessage", None, Content_Length="-1")[0] == 411
    assert http.ask("POST", "/sendMessage", None, Transfer_Encoding="chunked")[0] == 411


# Comings and goings


def test_workers_come_and_go(chat: Chat) -> None:
    """Streams of a worker that stops are told so; those of the others have everything."""
    first = chat.start_worker()
    chat.start_server()

    async def scenario(talk: Talk) -> None:
        (old,) = await talk.read()
        chat.start_worker()
        # The second worker gets its share of the streams sooner or later.
        readings = await talk.read(12)
        times = [await talk.send("a", f"one {number}") for number in range(5)]
        rows = [("a", f"one {number}", its_time) for number, its_time in enumerate(times)]
        for reading in [old, *readings]:
            assert await reading.until(5) == rows
        first.send_signal(signal.SIGTERM)
        assert await old.end() == (grpc.StatusCode.UNAVAILABLE, "the worker stops; open another stream")
        assert await asyncio.to_thread(first.wait) == 0
        assert "Traceback" not in first.output, first.output
        its_time = await send_until(talk, "two")
        (new,) = await talk.read()
        kept = [reading for reading in readings if not await has_ended(reading)]
        assert kept, "the second worker had no stream"
        for reading in kept:
            assert (await reading.until(6))[-1] == ("a", "two", its_time)
        its_time = await send_until(talk, "three")
        assert await new.until(1) == [("a", "three", its_time)]

    talking(chat, scenario)
    chat.end()


async def has_ended(reading: Reading) -> bool:
    """Whether its worker has stopped, which the server has heard of."""
    await asyncio.sleep(0)
    return bool(reading.call.done())


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
        again = await talk.send("a", "again")
        assert await reading.until(1) == [("a", "again", again)]

    talking(chat, scenario)
    # The stream of the killed worker, if nothing else, is found out by what it misses.
    http.flush()
    end = time.monotonic() + PATIENCE
    while not any(message["text"] == "knock" for message in http.flush()):
        assert time.monotonic() < end, "the client has no stream that lives"
        http.send("b", "knock")


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
        try:
            while not reading.rows or reading.rows[-1][2] < last:
                await reading.until(len(reading.rows) + 1)
        except (AssertionError, grpc.aio.AioRpcError):
            assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE
            return False
        if {row[2] for row in reading.rows} >= set(confirmed):
            return True
        assert (await reading.end())[0] is grpc.StatusCode.UNAVAILABLE
        return False

    async def whole_from_now(reading: Reading, last: int) -> bool:
        while not reading.rows or reading.rows[-1][2] < last:
            await reading.until(len(reading.rows) + 1)
        return reading.rows[-1][2] == last

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
            assert await whole_from_now(reading, last)
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
