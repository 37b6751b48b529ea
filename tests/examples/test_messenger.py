"""The messenger example as it runs: workers, server and clients are processes, on a real Redis and a real Kafka."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from messenger_kit import BROKERS, Chat, Http, Talk, ascends, http_until, settings_on, talking
from metrics_kit import PATIENCE

NINE_DIGITS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


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
