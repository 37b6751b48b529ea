"""Where streams meet the rest: callers that go away, attempts, shutdown, middleware, threads, a broker in trouble."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from stream_kit import AsyncFunctions, Book, Functions

from prpc.app_client import AsyncClient, Stream
from prpc.app_server import AppServer
from prpc.brokers.base import Outgoing
from prpc.brokers.memory import MemoryBroker
from prpc.codec import Codec
from prpc.codec.items import Items
from prpc.exceptions import CallError, DecodeError, RegistrationError
from prpc.protocol.facts import MAX_ADDRESS, CallFacts
from prpc.protocol.streams import MAX_WORDS, Word, read_words, write_words
from prpc.server import streams as streams_module
from prpc.server.middleware import IncomingCall, Proceed
from prpc.streaming.ends import Reader
from prpc.testing import running

QUEUE = "q"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def until(check: Callable[[], object]) -> None:
    """A state that other tasks bring about."""
    while not check():
        await asyncio.sleep(0.001)


def make_app(url: str = "", *, slots: int = 4, **settings: Any) -> AppServer:
    return AppServer("memory", url or f"memory://{uuid.uuid4().hex}", "async", slots, name_queue=QUEUE, **settings)


def counting_app(name: str, book: Book, *, slots: int = 4, url: str = "") -> AppServer:
    """A server whose items say whose they are; with a function that keeps a slot."""
    app = make_app(url, slots=slots)

    @app.function(idempotent=True)
    async def count(number: int) -> AsyncIterator[str]:
        try:
            for value in range(number):
                await asyncio.to_thread(book.wait, f"{name} {value}")
                yield f"{name} {value}"
                book.count(name)
        finally:
            book.end(name)

    @app.function()
    async def hold() -> None:
        book.count("hold")
        await asyncio.Event().wait()

    return app


async def send_again(client: AsyncClient, stream: Stream[Any]) -> None:
    """What a client does that had no answer yet."""
    pump = client.channel.pump()
    assert pump._connection is not None
    broker, address = pump._connection.broker, pump._connection.mailbox.address
    assert isinstance(broker, MemoryBroker)
    facts = CallFacts(reply_to=address, window=8, attempt=2)
    await broker.publish(
        QUEUE,
        Outgoing(stream.message.message_id, Codec().write_call(stream.message), facts.to_fields(), address, again=True),
    )


@asynccontextmanager
async def serving(*apps: AppServer, grace: float = 5, **client: Any) -> AsyncIterator[AsyncClient]:
    """These servers, and a client of theirs."""
    servers = [asyncio.create_task(app.serve()) for app in apps]
    try:
        for app in apps:
            await app.ready.wait()
        async with AsyncClient("memory", apps[0].settings.url_broker, QUEUE, **client) as caller:
            yield caller
    finally:
        await asyncio.gather(*(app.stop(grace) for app in apps))
        await asyncio.gather(*servers)


def test_an_upload_that_nobody_waits_for_ends_with_its_call() -> None:
    book = Book()
    app = make_app()

    @app.function()
    async def listen(numbers: AsyncIterator[int]) -> None:
        async for _ in numbers:
            book.count("heard")
        await asyncio.to_thread(book.wait, "gate")

    async def sent() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def scenario() -> None:
        async with serving(app) as client:
            client.call("listen", sent())
            await until(lambda: book.made["heard"] == 5)
            gc.collect()
            book.open("gate")
            await until(lambda: not client.channel.pump().streams._desk.writers)

    run(scenario)


def test_of_two_runs_of_a_call_the_later_one_is_read_and_the_other_ends_unanswered() -> None:
    book = Book()
    first = counting_app("first", book, slots=1)
    second = counting_app("second", book, url=first.settings.url_broker)

    async def scenario() -> None:
        async with serving(first) as client:
            stream = client.stream("count", 20)
            book.open("first 0")
            assert await anext(stream) == "first 0"
            holding = client.call("hold")
            await until(lambda: book.made["hold"])
            async with serving(second):
                await send_again(client, stream)
                for value in range(20):
                    book.open(f"second {value}")
                assert [item async for item in stream] == [f"second {value}" for value in range(1, 20)]
                book.open("first 1")
                await until(lambda: book.ended["first"])
                assert holding.cancel()

    run(scenario)


def test_a_stream_goes_on_where_its_server_stopped() -> None:
    book = Book()
    first = counting_app("first", book)
    second = counting_app("second", book, url=first.settings.url_broker)
    for value in range(10):
        book.open(f"first {value}")
    for value in range(20):
        book.open(f"second {value}")

    async def scenario() -> None:
        async with AsyncClient("memory", first.settings.url_broker, QUEUE) as client:
            async with serving(first, grace=0):
                stream = client.stream("count", 20)
                assert [await anext(stream) for _ in range(10)] == [f"first {value}" for value in range(10)]
                await first.stop(0)
                book.open("first 10")  # a thread of ours waits there
            async with serving(second):
                assert [item async for item in stream] == [f"second {value}" for value in range(10, 20)]

    run(scenario)


@pytest.mark.parametrize("kind", ["thread", "async"])
@pytest.mark.parametrize("how", ["raises", "returns"])
def test_a_server_middleware_that_ends_the_call_ends_the_generator(kind: str, how: str) -> None:
    book = Book()

    async def impatient(call: IncomingCall, proceed: Proceed) -> Any:
        going = asyncio.ensure_future(proceed(call))
        try:
            await until(lambda: book.made["x"])
            if how == "raises":
                raise ValueError("too slow")
        finally:
            going.cancel()

    app = AppServer("memory", f"memory://{uuid.uuid4().hex}", "async", 4, name_queue=QUEUE, middleware=[impatient])
    functions = Functions(book) if kind == "thread" else AsyncFunctions(book)
    app.register_service(functions, worker_type=kind)

    async def scenario() -> None:
        async with serving(app) as client:
            stream = client.stream("endless", "x")
            read = None
            try:
                read = [item async for item in stream]
            except ValueError as exc:
                assert str(exc) == "too slow"
            assert (read is None) == (how == "raises")
            await until(lambda: book.ended["x"])

    run(scenario)


def test_what_a_caller_sends_is_made_in_its_context() -> None:
    app, book = make_app(), Book()
    app.register_service(AsyncFunctions(book))
    request = ContextVar("request", default="nobody's")

    def plain() -> Iterator[str]:
        yield request.get()

    async def asynchronous() -> AsyncIterator[str]:
        yield request.get()

    async def scenario() -> None:
        async with serving(app) as client:
            request.set("mine")
            assert await client.call("listed", plain()) == ["mine"]
            assert await client.call("listed", asynchronous()) == ["mine"]

    run(scenario)


@pytest.mark.parametrize("kind", ["thread", "async"])
def test_a_client_that_closes_at_once_leaves_no_generator_behind(kind: str) -> None:
    book = Book()
    app = make_app(stream_reader_timeout=1000.0)
    app.register_service(Functions(book) if kind == "thread" else AsyncFunctions(book), worker_type=kind)

    async def scenario() -> None:
        async with serving(app) as client:
            async with AsyncClient("memory", app.settings.url_broker, QUEUE) as other:
                stream = other.stream("endless", "x")
            assert [item async for item in client.stream("count", "y", 3)] == [0, 1, 2]
            await until(lambda: book.made["x"] == 0 or book.ended["x"])
            with pytest.raises(CallError, match="closed"):
                [item async for item in stream]

    run(scenario)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_another_thread_may_end_the_reading(how: str) -> None:
    app, book = make_app(), Book()
    app.register_service(Functions(book), worker_type="thread")
    outcomes = Counter[str]()

    def read(stream: Stream[Any]) -> None:
        try:
            for _ in stream:
                pass
            outcomes["end"] += 1
        except BaseException as exc:
            outcomes[type(exc).__name__] += 1

    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with running(app) as client:
            for _ in range(60):
                stream = client.stream("endless", "x")
                thread = threading.Thread(target=read, args=(stream,))
                thread.start()
                while stream.received < 300:
                    thread.join(0.001)
                getattr(stream, how)()
                thread.join()
    finally:
        sys.setswitchinterval(switch_interval)
    assert outcomes == {"end" if how == "close" else "CallCancelledError": 60}


def test_a_stream_for_which_there_is_no_thread_fails_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    app, book = make_app(), Book()
    app.register_service(Functions(book), worker_type="thread")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(("prpc-stream", "prpc-feed")):
            raise RuntimeError("can't start new thread")
        start(thread)

    async def scenario() -> None:
        async with serving(app) as client:
            monkeypatch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                [item async for item in client.stream("count", "x", 3)]
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await client.call("listed", iter([1]))
            monkeypatch.undo()
            assert [item async for item in client.stream("count", "x", 3)] == [0, 1, 2]
            assert await client.call("listed", iter([1])) == [1]

    run(scenario)


def test_a_server_whose_mailbox_fails_ends_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its mail every stream would stand still, and nobody would know."""
    app, book = make_app(shutdown_grace=0.1), Book()
    app.register_service(AsyncFunctions(book))

    def fail(self: object, body: bytes) -> None:
        raise ZeroDivisionError("a fault of ours")

    async def scenario() -> None:
        serving = asyncio.create_task(app.serve())
        await app.ready.wait()
        async with AsyncClient("memory", app.settings.url_broker, QUEUE) as client:
            monkeypatch.setattr(streams_module.Streams, "_receive", fail)
            stream = client.stream("endless", "x")
            await anext(stream)
            with pytest.raises(ZeroDivisionError):
                await serving

    run(scenario)


async def streams_late(number: int) -> AsyncIterator[int]:
    for value in range(number):
        yield value


def reads_late(numbers: Iterator[int]) -> int:
    return sum(numbers)


async def late() -> int:
    return 1


class TestLateRegistration:
    """Functions that come when the server runs already."""

    def test_what_the_server_cannot_run_is_refused(self) -> None:
        plain, streaming = make_app(), make_app()
        plain.register_func(late, "async")
        plain.register_func(time.time, "thread")
        streaming.register_func(streams_late, "async")

        async def scenario() -> None:
            async with serving(plain), serving(streaming):
                with pytest.raises(
                    RegistrationError, match=r"'streams_late' comes too late: .* streaming function of type 'async'"
                ):
                    plain.register_func(streams_late, "async")
                with pytest.raises(RegistrationError, match=r"'reads_late' comes too late: .* that streams or reads a stream"):
                    plain.register_func(reads_late, "thread")
                with pytest.raises(RegistrationError, match=r"'reads_late', parameter 'numbers': .* cannot be idempotent"):
                    plain.register_func(reads_late, "thread", idempotent=True)
                with pytest.raises(RegistrationError, match=r"'late' comes too late: .* function of type 'async'"):
                    streaming.register_func(late, "async")

        run(scenario)

    def test_what_it_can_run_is_served(self) -> None:
        app = make_app()
        app.register_func(streams_late, "async", name="first")
        app.register_func(time.time, "thread")

        async def scenario() -> None:
            async with serving(app) as client:
                app.register_func(streams_late, "async")
                app.register_func(reads_late, "thread")
                assert [item async for item in client.stream("streams_late", 3)] == [0, 1, 2]
                assert await client.call("reads_late", iter([1, 2])) == 3

        run(scenario)


def test_a_broadcast_function_takes_no_stream() -> None:
    app = make_app()

    def hear(numbers: Iterator[int]) -> None: ...

    app.register_func(hear, "thread", broadcast=True)

    async def scenario() -> None:
        with pytest.raises(RegistrationError, match=r"'hear', parameter 'numbers': a stream cannot be sent to every server"):
            await app.serve()

    run(scenario)


def test_a_mail_of_words_is_bounded() -> None:
    word = Word(uuid.UUID(int=2**128 - 1), "\N{GRINNING FACE}" * MAX_ADDRESS, *[2**63 - 1] * 4, again=True)
    body = write_words("r" * MAX_ADDRESS, [word] * MAX_WORDS)
    assert read_words(body)[1] == [word] * MAX_WORDS
    for hostile in (
        b'{"prpc_mail": "words", "reader": "r", "words": [' + b"[]," * 2_000_000 + b"[]]}",
        write_words("r" * 501, []),
    ):
        with pytest.raises(DecodeError, match="words about streams"):
            read_words(hostile)


def items_of(writer: str, run: int, first: int, *values: int) -> Items:
    return Items(uuid.UUID(int=1), "", run, first, writer, values)


class TestReader:
    """Whose items are read."""

    def read(self, reader: Reader, *mails: Items) -> list[tuple[str, int] | None]:
        away = []
        for mail in mails:
            reader.arrive(mail, 10)
            away.append(reader.away)
        return away

    def test_the_run_that_began_last(self) -> None:
        reader = Reader((uuid.UUID(int=1), ""), 10)
        away = self.read(
            reader,
            items_of("a", 1, 1, 11, 12),
            items_of("b", 1, 1, 21, 22, 23),
            items_of("a", 1, 3, 13, 14, 15),  # it has not heard yet that it is not read
            items_of("c", 2, 1, 31, 32, 33, 34),
            items_of("b", 1, 4, 24, 25, 26),
        )
        assert away == [None, ("a", 1), ("a", 1), ("b", 1), ("b", 1)]
        assert [reader.inbox.take() for _ in range(4)] == [11, 12, 23, 34]
        assert (reader.writer, reader.inbox.have, reader.word().run) == ("c", 4, 2)

    def test_a_new_writer_hears_at_once_how_far_the_reader_is(self) -> None:
        reader = Reader((uuid.UUID(int=1), ""), 10)
        mails = (items_of("a", 1, 1, 1), items_of("a", 1, 2, 2), items_of("b", 1, 1), items_of("b", 1, 1, 1))
        told = []
        for mail in mails:
            told.append(reader.arrive(mail, 10))
        assert told == [True, False, True, False]

    def test_nobody_but_the_writer_that_is_known_from_the_start(self) -> None:
        reader = Reader((uuid.UUID(int=1), "numbers"), 10, "caller")
        assert self.read(reader, items_of("thief", 2, 1, 66), items_of("caller", 1, 1, 1)) == [None, None]
        assert (reader.writer, reader.inbox.have, reader.inbox.take()) == ("caller", 1, 1)

    def test_once_the_number_of_items_is_known_no_other_run(self) -> None:
        reader = Reader((uuid.UUID(int=1), ""), 10)
        self.read(reader, items_of("a", 1, 1, 1))
        reader.total = 2
        assert self.read(reader, items_of("b", 1, 1, 21, 22), items_of("a", 1, 2, 2)) == [("b", 1), None]
        assert [reader.inbox.take() for _ in range(2)] == [1, 2]
