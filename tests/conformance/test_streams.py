"""Streams through whole servers, on every kind of broker, for both faces and both kinds of functions."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from broker_harness import Harness
from client_kit import PATIENCE
from stream_kit import (
    MOMENT,
    VALUES,
    AsyncStreams,
    Book,
    Point,
    StreamFace,
    SyncStreams,
    served,
    stream_server,
)

from prpc.app_client import remote_stream
from prpc.exceptions import (
    BadArgumentsError,
    CallCancelledError,
    ClientTimeOutError,
    DeadlineExceededError,
    EncodeError,
    RemoteError,
    WorkerTimeoutError,
)
from prpc.settings import Settings

KINDS = ("thread", "async")
#: Items ahead of the reader, as the settings have it.
WINDOW = 256


@pytest.fixture(params=[SyncStreams, AsyncStreams], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> StreamFace:
    made: StreamFace = request.param()
    return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What runs the function."""
    return f"{request.param}."


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def server(settings: Settings, harness: Harness, book: Book) -> Iterator[None]:
    with served(stream_server(settings, book)):
        yield


def new_token() -> str:
    return uuid.uuid4().hex[:8]


Scenario = Callable[[Any], Any]


@pytest.fixture
def run(face: StreamFace, settings: Settings, server: None) -> Callable[[Scenario], None]:
    """Runs a scenario with a client, which is closed at its end."""

    def start(scenario: Scenario, **more: Any) -> None:
        async def work() -> None:
            client = face.client(settings, connect_timeout=settings.connect_timeout, **more)
            await scenario(client)
            await face.close(client)

        face.run(work())

    return start


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 10_000])
def test_items_come_in_order_and_complete(run: Any, face: StreamFace, book: Book, kind: str, number: int) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        assert await face.items(client.stream(kind + "count", token, number)) == list(range(number))
        await face.wait(book.until_ended, token)
        assert (book.made[token], book.ended[token]) == (number, 1)

    run(scenario)


def test_values_of_all_kinds(run: Any, face: StreamFace, kind: str) -> None:
    async def scenario(client: Any) -> None:
        assert await face.items(client.stream(kind + "values")) == VALUES
        assert await face.result(client.call(kind + "listed", face.feed(VALUES))) == VALUES

    run(scenario)


@remote_stream("x.points")
def points(number: int) -> Iterator[Point]:
    raise NotImplementedError


def test_items_are_what_the_annotation_says(run: Any, face: StreamFace, kind: str) -> None:
    async def scenario(client: Any) -> None:
        function = remote_stream(kind + "points")(points.__wrapped__).options(client=client)
        assert await face.items(function(3)) == [Point(number, MOMENT) for number in range(3)]
        sent = [Point(number, MOMENT) for number in range(300)]
        assert await face.result(client.call(kind + "latest", face.feed(sent))) == {"x": 299, "when": MOMENT}

    run(scenario)


@pytest.mark.parametrize("number", [0, 3, 1000])
def test_an_exception_comes_after_the_items(run: Any, face: StreamFace, book: Book, kind: str, number: int) -> None:
    async def scenario(client: Any) -> None:
        stream = client.stream(kind + "fail", token := new_token(), number)
        for value in range(number):
            assert await face.next(stream) == value
        with pytest.raises(KeyError, match=f"after {number}") as caught:
            await face.next(stream)
        assert isinstance(caught.value, RemoteError)
        assert await face.items(stream) == []
        await face.wait(book.until_ended, token)

    run(scenario)


def test_a_writer_is_never_further_ahead_than_the_window(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        stream = client.stream(kind + "endless", token := new_token())
        await face.wait(book.until, lambda: book.made[token] == WINDOW)
        for read in range(1, 2000):
            assert await face.next(stream) == read - 1
            assert book.made[token] <= read + WINDOW
        await face.close_stream(stream)
        await face.wait(book.until_ended, token)

    run(scenario)


def test_a_window_of_one(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        stream = client.stream(kind + "endless", token := new_token())
        await face.wait(book.until, lambda: book.made[token] == 1)
        for read in range(1, 20):
            assert await face.next(stream) == read - 1
            assert book.made[token] <= read + 1
        await face.close_stream(stream)
        await face.wait(book.until_ended, token)

    run(scenario, stream_window=1)


@pytest.mark.parametrize("how", ["close", "cancel", "break", "with", "drop", "unread"])
def test_leaving_ends_the_generator(run: Any, face: StreamFace, book: Book, kind: str, how: str) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        if how == "break":
            assert await face.some(client.stream(kind + "endless", token), 3) == [0, 1, 2]
        elif how == "unread":
            stream = client.stream(kind + "endless", token)
            await face.wait(book.until, lambda: book.made[token] > 0)
            del stream
        elif how == "with":
            stream = client.stream(kind + "endless", token)
            assert await face.leave(stream, 3) == [0, 1, 2]
            assert await face.items(stream) == []
        else:
            stream = client.stream(kind + "endless", token)
            assert await face.next(stream) == 0
            if how == "close":
                await face.close_stream(stream)
                await face.close_stream(stream)
                assert await face.items(stream) == []
            elif how == "cancel":
                assert stream.cancel()
                assert not stream.cancel()
                with pytest.raises(CallCancelledError, match=r"endless\(\)"):
                    await face.next(stream)
            else:
                del stream
                gc.collect()
        await face.wait(book.until_ended, token)
        assert book.made[token] <= WINDOW + 10

    run(scenario)


def test_leaving_before_it_started(face: StreamFace, settings: Settings, harness: Harness, book: Book, kind: str) -> None:
    """What is left before a server has it does not run."""

    async def scenario() -> None:
        client = face.client(settings, connect_timeout=settings.connect_timeout)
        left = client.stream(kind + "endless", "left")
        with pytest.raises(ClientTimeOutError):
            await face.next(left, 0.1)
        await face.close_stream(left)
        with served(stream_server(settings, book)):
            assert await face.items(client.stream(kind + "count", "read", 3)) == [0, 1, 2]
            await face.wait(book.until, lambda: book.made["left"] == book.ended["left"] == 0 or book.ended["left"] == 1)
        await face.close(client)

    face.run(scenario())


def test_the_time_for_one_item_runs_out_and_reading_goes_on(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        stream = client.options(item_timeout=0.05).stream(kind + "gated", token, 3)
        for _ in range(2):
            with pytest.raises(ClientTimeOutError, match=r"no item of .*gated\(\) within 0.05 s.*asking again works"):
                await face.items(stream)
        book.open(f"{token} 0")
        assert await face.next(stream) == 0
        for seconds in (0, 0.01):
            with pytest.raises(ClientTimeOutError):
                await face.next(stream, seconds)
        book.open(f"{token} 1")
        book.open(f"{token} 2")
        assert [await face.next(stream), await face.next(stream)] == [1, 2]
        assert await face.at_end(stream)

    run(scenario)


def test_the_deadline_ends_both_sides(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        stream = client.options(timeout=1).stream(kind + "endless", token)
        with pytest.raises((ClientTimeOutError, DeadlineExceededError, WorkerTimeoutError)):
            while True:
                await face.next(stream)
        if stream.received:  # else it may have waited in the queue for as long
            await face.wait(book.until_ended, token)

    run(scenario)


def test_a_stream_may_be_read_late(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        few, many = client.stream(kind + "count", "few", 10), client.stream(kind + "count", "many", 1000)
        await face.wait(book.until_ended, "few")
        await face.wait(book.until, lambda: book.made["many"] == WINDOW)
        assert await face.items(many) == list(range(1000))
        assert await face.items(few) == list(range(10))
        assert (few.received, many.received) == (10, 1000)

    run(scenario)


def test_an_item_that_cannot_be_written(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        stream = client.stream(kind + "unwritable", token := new_token(), 3)
        assert [await face.next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(EncodeError, match=r"an item of .*unwritable\(\)"):
            await face.next(stream)
        await face.wait(book.until_ended, token)

    run(scenario)


@pytest.mark.parametrize(("number", "size"), [(40, 1_000_000), (3, 6_000_000)])
def test_large_items(run: Any, face: StreamFace, book: Book, kind: str, number: int, size: int) -> None:
    async def scenario(client: Any) -> None:
        expected = [f"{value} ".ljust(size, "x") for value in range(number)]
        assert await face.items(client.stream(kind + "large", number, size)) == expected
        assert await face.result(client.call(kind + "sizes", face.feed(expected))) == [size] * number

    run(scenario)


# Sent to the function.


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 10_000])
def test_a_function_reads_what_is_sent(run: Any, face: StreamFace, book: Book, kind: str, number: int) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        for numbers in (face.feed(range(number)), range(number), (value for value in range(number))):
            assert await face.result(client.call(kind + "total", token, numbers)) == sum(range(number))
        assert book.made[token] == 3 * number
        assert await face.result(client.call(kind + "total", token, numbers=face.feed(range(number)))) == sum(range(number))
        assert await face.result(client.call(kind + "total", token, list(range(number)))) == sum(range(number))

    run(scenario)


def test_two_streams_in_one_call(run: Any, face: StreamFace, kind: str) -> None:
    async def scenario(client: Any) -> None:
        texts = [str(number) for number in range(500)]
        result = await face.result(client.call(kind + "two", face.feed(range(500)), other=face.feed(texts)))
        assert result == [[number, str(number)] for number in range(500)]

    run(scenario)


def test_a_caller_is_never_further_ahead_than_the_window(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        made = []

        def numbers() -> Iterator[int]:
            try:
                while True:
                    made.append(len(made))
                    book.count("made")
                    yield made[-1]
            finally:
                book.end("numbers")

        task = client.call(kind + "some", token := new_token(), 1000, face.feed(numbers()))
        await face.wait(book.until, lambda: book.made[token] == 1000)
        await face.wait(book.until, lambda: book.made["made"] == 1000 + WINDOW)
        book.open(token)
        assert await face.result(task) == list(range(1000))
        await face.wait(book.until_ended, "numbers")
        assert len(made) == 1000 + WINDOW

    run(scenario)


def test_both_ways_at_once(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        token = new_token()
        stream = client.stream(kind + "doubled", token, face.feed(range(2000)))
        assert await face.items(stream) == list(range(0, 4000, 2))
        await face.wait(book.until_ended, token)

    run(scenario)


def test_both_ways_step_by_step(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    """Each question follows the answer before."""

    async def scenario(client: Any) -> None:
        answers: list[int] = []

        def numbers() -> Iterator[int]:
            for number in range(20):
                yield number
                book.wait(f"answer {number}")

        stream = client.stream(kind + "doubled", token := new_token(), numbers())
        for number in range(20):
            answers.append(await face.next(stream))
            book.open(f"answer {number}")
        assert await face.at_end(stream)
        assert answers == list(range(0, 40, 2))
        await face.wait(book.until_ended, token)

    run(scenario)


def test_leaving_ends_both_ways(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                book.end("sent")

        stream = client.stream(kind + "doubled", token := new_token(), face.feed(endless()))
        assert await face.leave(stream, 3) == [2, 2, 2]
        await face.wait(book.until_ended, token)
        await face.wait(book.until_ended, "sent")

    run(scenario)


@pytest.mark.parametrize("number", [0, 3, 1000])
def test_what_a_callers_iterable_raises_is_the_outcome(run: Any, face: StreamFace, book: Book, kind: str, number: int) -> None:
    async def scenario(client: Any) -> None:
        def broken() -> Iterator[int]:
            yield from range(number)
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine") as caught:
            await face.result(client.call(kind + "total", new_token(), face.feed(broken())))
        assert not isinstance(caught.value, RemoteError)
        stream = client.stream(kind + "doubled", token := new_token(), face.feed(broken()))
        with pytest.raises(LookupError, match="mine"):
            while True:
                await face.next(stream)
        if book.made[token]:
            await face.wait(book.until_ended, token)

    run(scenario)


def test_cancelling_ends_the_function_that_reads(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        def slow() -> Iterator[int]:
            yield 1
            book.wait("never" if face.name == "async" else "soon")

        task = client.call(kind + "some", token := new_token(), 5, slow())
        await face.wait(book.until, lambda: book.made[token] == 1)
        assert task.cancel()
        with pytest.raises(CallCancelledError):
            await face.result(task)
        await face.wait(book.until_ended, token)
        book.open("never")
        book.open("soon")

    run(scenario)


def test_an_item_that_does_not_fit_is_told_by_name(run: Any, face: StreamFace, kind: str) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(BadArgumentsError, match=r"an item of the argument 'numbers'.*int"):
            await face.result(client.call(kind + "total", "t", face.feed([1, 2, "three"])))
        with pytest.raises(EncodeError, match=r"an item of the argument 1 of .*total\(\)"):
            await face.result(client.call(kind + "total", "t", face.feed([1, object()])))

    run(scenario)


# Refused.


def test_what_does_not_fit_is_refused_with_a_word(run: Any, face: StreamFace, kind: str) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(BadArgumentsError, match=r"count\(\) streams its items: .*client.stream\('.*count', \.\.\.\)"):
            await face.result(client.call(kind + "count", "t", 1))
        with pytest.raises(BadArgumentsError, match=r"add\(\) does not stream: .*client.call\('.*add', \.\.\.\)"):
            await face.items(client.stream(kind + "add", 1, 2))
        for sent in (face.feed([1]), range(3)):
            with pytest.raises(BadArgumentsError, match=r"add\(\): argument 'one' is sent as a stream, which only.*send a list"):
                await face.result(client.call(kind + "add", sent, 2))
        with pytest.raises(BadArgumentsError, match=r"total\(\).*'numbers'.*must be a stream or a list"):
            await face.result(client.call(kind + "total", "t", "text"))
        with pytest.raises(BadArgumentsError, match=r"misses the argument"):
            await face.items(client.stream(kind + "count", "t"))
        assert await face.result(client.call(kind + "add", 1, 2)) == 3

    run(scenario)


def test_raw_callers_are_told(server: None, harness: Harness, book: Book, kind: str) -> None:
    import json
    import time

    message_id = uuid.uuid4()
    call = {"func_name": kind + "count", "func_args": ["t", 1], "func_kwargs": {}, "message_id": str(message_id)}
    harness.put({"message": json.dumps(call).encode()}, raw=True)
    until = time.monotonic() + PATIENCE
    while (kept := harness.kept_raw(message_id)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert kept is not None and b"streams its items" in kept
    assert not book.made["t"]
