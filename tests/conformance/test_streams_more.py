"""Streams among other calls: many at once, limited, signed, through middleware, repeated, and beside mail from strangers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from broker_harness import Harness, connected
from client_kit import PATIENCE
from stream_kit import AsyncFunctions, AsyncStreams, Book, Functions, StreamFace, SyncStreams, served, stream_server

from prpc.app_client import AsyncClient, OutgoingCall, Proceed
from prpc.app_server import AppServer
from prpc.call_context import current_call
from prpc.codec.items import Items, write_items
from prpc.exceptions import (
    BrokerUnavailableError,
    CallCancelledError,
    ClientTimeOutError,
    DecodeError,
    NoServerError,
    RegistrationError,
    WorkerTimeoutError,
)
from prpc.protocol.streams import LEFT, Word, write_words
from prpc.server.middleware import IncomingCall
from prpc.settings import Settings

SECRET = "k" * 40


@pytest.fixture(params=[SyncStreams, AsyncStreams], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> StreamFace:
    made: StreamFace = request.param()
    return made


@pytest.fixture(params=["thread.", "async."], ids=["thread", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def book() -> Book:
    return Book()


def new_token() -> str:
    return uuid.uuid4().hex[:8]


Scenario = Callable[[Any], Any]


@pytest.fixture
def run(face: StreamFace, settings: Settings, harness: Harness, book: Book) -> Callable[..., None]:
    """Runs a scenario with a server and a client: `run(scenario, app, stream_window=5)`."""

    def start(scenario: Scenario, app: AppServer | None = None, call_timeout: float | None = None, **more: Any) -> None:
        async def work() -> None:
            ours = dataclasses.replace(settings, call_timeout=call_timeout)
            client = face.client(ours, connect_timeout=settings.connect_timeout, **more)
            await scenario(client)
            await face.close(client)

        with served(app or stream_server(settings, book)):
            face.run(work())

    return start


def test_a_thousand_streams_hold_up_no_other_call(settings: Settings, harness: Harness, book: Book, kind: str) -> None:
    number = 1000

    async def scenario() -> None:
        client = AsyncStreams().client(settings, connect_timeout=settings.connect_timeout)
        streams = [client.stream(kind + "endless", str(token)) for token in range(number)]
        for stream in streams:
            assert await stream.async_next(3 * PATIENCE) == 0
        assert await asyncio.gather(*(client.call(kind + "add", one, 1) for one in range(100))) == list(range(1, 101))
        for stream in streams:
            assert await stream.async_next(PATIENCE) == 1
            stream.close()
        await asyncio.to_thread(book.until, lambda: len(book.ended) == number)
        await client.close()

    with served(stream_server(settings, book, stream_window=8)):
        asyncio.run(scenario())


@pytest.mark.parametrize("limited", ["by its registration", "by the setting"])
def test_no_more_streams_run_than_the_limit(run: Any, face: StreamFace, settings: Settings, book: Book, limited: str) -> None:
    app = stream_server(settings, book, **({"max_streams": 2} if limited == "by the setting" else {}))

    async def limited_stream(token: str) -> AsyncIterator[int]:
        try:
            for value in range(10**6):
                yield value
        finally:
            book.end(token)

    app.register_func(limited_stream, "async", max_concurrency=None if limited == "by the setting" else 2)

    async def scenario(client: Any) -> None:
        first, second = client.stream("limited_stream", "1"), client.stream("limited_stream", "2")
        assert [await face.next(first), await face.next(second)] == [0, 0]
        third = client.stream("limited_stream", "3")
        with pytest.raises(ClientTimeOutError):
            await face.next(third, 0.3)
        assert await face.result(client.call("async.add", 1, 2)) == 3
        await face.close_stream(first)
        assert await face.next(third) == 0
        await face.close_stream(second)
        await face.close_stream(third)
        await face.wait(book.until, lambda: len(book.ended) == 3)

    run(scenario, app)


def test_signed_streams(run: Any, face: StreamFace, settings: Settings, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        assert await face.items(client.stream(kind + "count", "t", 1000)) == list(range(1000))
        assert await face.result(client.call(kind + "total", "u", face.feed(range(1000)))) == sum(range(1000))
        assert await face.items(client.stream(kind + "doubled", "v", face.feed(range(500)))) == list(range(0, 1000, 2))
        stream = client.stream(kind + "endless", "w")
        assert await face.leave(stream, 500) == list(range(500))
        await face.wait(book.until_ended, "w")

    run(scenario, stream_server(settings, book, secret_key=SECRET), secret_key=SECRET)


def test_through_a_clients_middleware(run: Any, face: StreamFace, book: Book, kind: str) -> None:
    seen: list[Any] = []

    async def note(call: OutgoingCall, proceed: Proceed) -> Any:
        try:
            result = await proceed(dataclasses.replace(call, headers={"seen": "yes"}))
        except Exception as exc:
            seen.append(type(exc))
            raise
        seen.append((call.function, result))
        return result

    async def scenario(client: Any) -> None:
        assert await face.items(client.stream(kind + "count", "t", 1000)) == list(range(1000))
        stream = client.stream(kind + "fail", "u", 500)
        assert [await face.next(stream) for _ in range(500)] == list(range(500))
        with pytest.raises(KeyError, match="after 500"):
            await face.next(stream)
        assert await face.items(client.stream(kind + "doubled", "v", face.feed(range(500)))) == list(range(0, 1000, 2))
        left = client.stream(kind + "endless", "w")
        assert await face.leave(left, 500) == list(range(500))
        await face.wait(book.until_ended, "w")
        cancelled = client.stream(kind + "endless", "x")
        assert await face.next(cancelled) == 0
        assert cancelled.cancel()
        with pytest.raises(CallCancelledError):
            await face.next(cancelled)
        await face.wait(book.until_ended, "x")
        assert seen[0] == (kind + "count", 1000)
        assert seen[1] is not KeyError and issubclass(seen[1], KeyError)
        assert seen[2] == (kind + "doubled", 500)

    run(scenario, middleware=[note])


def test_middleware_that_answers_itself_ends_the_stream(run: Any, face: StreamFace, kind: str) -> None:
    async def answer(call: OutgoingCall, proceed: Proceed) -> Any:
        if call.args[0] == "refuse":
            raise LookupError("not today")
        return 5

    async def scenario(client: Any) -> None:
        assert await face.items(client.stream(kind + "count", "t", 10)) == []
        with pytest.raises(LookupError, match="not today"):
            await face.items(client.stream(kind + "count", "refuse", 10))

    run(scenario, middleware=[answer])


def test_through_a_servers_middleware(run: Any, face: StreamFace, settings: Settings, book: Book, kind: str) -> None:
    seen: list[Any] = []
    app = stream_server(settings, book)

    @app.add_middleware
    async def note(call: IncomingCall, proceed: Any) -> Any:
        if call.args[:1] == ["refuse"]:
            raise LookupError("not today")
        result = await proceed(call)
        seen.append((call.function, result))
        if call.args[:1] == ["twice"]:
            await proceed(call)
        return result

    async def scenario(client: Any) -> None:
        assert await face.items(client.stream(kind + "count", "t", 1000)) == list(range(1000))
        assert await face.items(client.stream(kind + "doubled", "v", face.feed(range(500)))) == list(range(0, 1000, 2))
        left = client.stream(kind + "endless", "w")
        assert await face.leave(left, 500) == list(range(500))
        await face.wait(book.until_ended, "w")
        with pytest.raises(LookupError, match="not today"):
            await face.items(client.stream(kind + "count", "refuse", 10))
        stream = client.stream(kind + "count", "twice", 3)
        assert [await face.next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="streams its items: it is run once"):
            await face.next(stream)
        assert seen == [(kind + "count", 1000), (kind + "doubled", 500), (kind + "count", 3)]

    run(scenario, app)


def test_a_stream_that_is_sent_again_is_read_once(face: StreamFace, settings: Settings, harness: Harness, book: Book) -> None:
    """Several entries of one call wait, and two servers run it side by side: the reader sees each item once."""

    async def counted(number: int) -> AsyncIterator[int]:
        for value in range(number):
            book.count("made")
            yield value

    def server() -> AppServer:
        app = stream_server(settings, book)
        app.register_func(counted, "async", idempotent=True)
        return app

    async def scenario() -> None:
        client = face.client(settings, connect_timeout=settings.connect_timeout)
        again = client.options(idempotent=True, retries=6, attempt_timeout=0.05, backoff=0)
        streams = [again.stream("counted", 1000) for _ in range(10)]
        for stream in streams:
            with pytest.raises(ClientTimeOutError):
                await face.next(stream, 0.1)
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(served(server()))
            for stream in streams:
                assert await face.items(stream) == list(range(1000))
        await face.close(client)

    face.run(scenario())


def test_a_stream_is_called_while_the_broker_is_away(
    run: Any, face: StreamFace, monkeypatch: pytest.MonkeyPatch, settings: Settings, book: Book
) -> None:
    from prpc.client import connection

    create, failures = connection.create_broker, [1, 2, 3]

    class Away:
        async def connect(self) -> None:
            raise BrokerUnavailableError("the broker is away", url="there")

        async def close(self) -> None: ...

    def flaky(settings: Settings) -> Any:
        return Away() if failures and failures.pop() else create(settings)

    async def scenario(client: Any) -> None:
        monkeypatch.setattr(connection, "create_broker", flaky)
        again = client.options(idempotent=True, retries=6, attempt_timeout=5, backoff=0.01)
        assert await face.items(again.stream("async.count", "t", 1000)) == list(range(1000))
        assert not failures

    run(scenario)


# Mail from strangers.


def forged(message_id: uuid.UUID) -> list[bytes]:
    """Words and items about a stream, from somebody who has no part in it."""
    items = [
        write_items(Items(message_id, parameter, run, first, "nobody", (), total), [b'"forged"'])
        for parameter in ("", "0", "numbers")
        for run in (1, 2**62)
        for first in (1, 10**6, 2**62)
        for total in (None, 0, 2**62)
    ]
    words = [
        write_words("nobody", [Word(message_id, parameter, run, have, limit, read, again=True)])
        for parameter in ("", "0", "numbers")
        for run in (0, 1, 2**62)
        for have, limit, read in ((0, 0, 0), (LEFT, 0, LEFT), (0, 2**62, 0), (2**62, 2**62, 2**62))
    ]
    broken = [b'{"prpc_mail": "items"', b'{"prpc_mail": "words"', b'{"prpc_mail": "words", "reader": 1}', b'{"prpc_mail": "x"}']
    return [*items, *words, *broken, json.dumps({"prpc_mail": "echo", "nonce": "0" * 32}).encode()]


async def post_to_all(settings: Settings, addresses: list[str], bodies: list[bytes]) -> None:
    async with connected(settings) as broker:
        for address in addresses:
            for body in bodies:
                await broker.post(settings.queue_name, address, body, message_id=uuid.uuid4())


def addresses_of(stream: Any) -> list[str]:
    """Both mailboxes of a stream that runs."""
    return [stream._reading.writer, stream.call.home.streams._address()]


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_mail_about_another_stream_does_no_harm(
    face: StreamFace, settings: Settings, harness: Harness, book: Book, kind: str, signed: bool
) -> None:
    """Without a signature whoever knows a stream's id may speak of it; with one nobody may."""

    async def scenario() -> None:
        client = face.client(settings, connect_timeout=settings.connect_timeout, secret_key=SECRET if signed else None)
        stream = client.stream(kind + "gated", "t", 600)
        book.open("t 0")
        assert await face.next(stream) == 0
        bodies = forged(stream.message.message_id if signed else uuid.uuid4())
        await face.wait(lambda: asyncio.run(post_to_all(settings, addresses_of(stream), bodies)))
        for value in range(1, 600):
            book.open(f"t {value}")
        assert await face.items(stream) == list(range(1, 600))
        assert await face.result(client.call(kind + "total", "u", face.feed(range(1000)))) == sum(range(1000))
        await face.close(client)

    with served(stream_server(settings, book, **({"secret_key": SECRET} if signed else {}))):
        face.run(scenario())


def test_forged_mail_about_a_stream_ends_neither_side(run: Any, face: StreamFace, settings: Settings, book: Book) -> None:
    """It may spoil that one stream, and no more."""

    async def scenario(client: Any) -> None:
        stream = client.stream("async.endless", "t")
        assert await face.next(stream) == 0
        bodies, addresses = forged(stream.message.message_id), addresses_of(stream)
        await face.wait(lambda: asyncio.run(post_to_all(settings, addresses, bodies)))
        task = client.call("async.some", "u", 1, face.feed(range(10)))
        await face.wait(book.until, lambda: book.made["u"] == 1)
        await face.wait(lambda: asyncio.run(post_to_all(settings, addresses, forged(task.message.message_id))))
        task.cancel()
        await face.wait(book.until_ended, "u")
        book.open("u")
        await face.close_stream(stream)
        await face.wait(book.until_ended, "t")
        assert await face.items(client.stream("thread.count", "v", 1000)) == list(range(1000))
        assert await face.result(client.call("async.total", "x", face.feed(range(1000)))) == sum(range(1000))

    run(scenario)


def test_a_feed_for_what_is_not_there(settings: Settings, harness: Harness, book: Book) -> None:
    """Callers that say of an argument what is not so."""
    with served(stream_server(settings, book)):

        async def scenario() -> None:
            from datetime import UTC, datetime

            from prpc.brokers.base import Outgoing
            from prpc.codec import Codec
            from prpc.prpcmessage import PRPCMessage

            codec = Codec()
            async with connected(settings) as broker:
                mailbox = await broker.open_mailbox(settings.queue_name)
                for feeds in ("0", "1", "2", "99999999999999999999", "numbers", "00", "x", "1,numbers", "0,1"):
                    message = PRPCMessage("async.total", ("t",), {"0": None, "1": None}, uuid.uuid4(), datetime.now(UTC))
                    facts = {"reply_to": mailbox.address, "feeds": feeds}
                    outgoing = Outgoing(message.message_id, codec.write_call(message), facts, mailbox.address)
                    await broker.publish(settings.queue_name, outgoing)
                    reply = None
                    while reply is None or reply.message_id != message.message_id:
                        for body in (await mailbox.receive()).bodies:
                            if not body.startswith(b'{"prpc_mail"'):
                                reply = codec.read_reply(body)
                    assert reply.failure is not None
                    assert reply.failure.type_name == "prpc.exceptions.BadArgumentsError", reply.failure
            async with AsyncClient(settings.type_broker, settings.url_broker, settings.queue_name) as client:
                assert await client.call("async.total", "t", range(10)) == 45
            assert not harness.dead_letters()

        asyncio.run(scenario())


def test_plain_code_cannot_send_an_async_iterable(settings: Settings, harness: Harness) -> None:
    async def each() -> AsyncIterator[int]:
        yield 1

    client = SyncStreams().client(settings)
    with pytest.raises(TypeError, match="is an async iterable: send it in a coroutine, or send a plain iterable"):
        client.call("async.total", "t", each())
    client.close()


def test_items_that_a_reader_cannot_read_end_its_stream(run: Any, face: StreamFace, settings: Settings, book: Book) -> None:
    """Its bounds are narrower than the writer's: whatever it is sent again will not fit either."""
    app = stream_server(settings, book)

    def nested(number: int) -> Any:
        value: Any = number
        for _ in range(number):
            value = [value]
        return value

    @app.decorator_reg_func("async")
    async def deeper(token: str) -> AsyncIterator[Any]:
        try:
            for number in range(100):
                yield nested(number)
        finally:
            book.end(token)

    async def scenario(client: Any) -> None:
        stream = client.stream("deeper", "t")
        found = []
        with pytest.raises(DecodeError, match=r"nested|deep"):
            while True:
                found.append(await face.next(stream))
        assert found == [nested(number) for number in range(len(found))]
        await face.wait(book.until_ended, "t")

    run(scenario, app, max_message_depth=8, stream_window=2)


def test_items_that_a_function_cannot_read_are_its_error(run: Any, face: StreamFace, settings: Settings, book: Book) -> None:
    async def scenario(client: Any) -> None:
        deep: Any = [[[[[[[[[[[1]]]]]]]]]]]
        for kind in ("thread.", "async."):
            with pytest.raises(DecodeError, match=r"nested|deep"):
                await face.result(client.call(kind + "listed", face.feed([1, [2], deep, 3])))

    run(scenario, stream_server(settings, book, max_message_depth=8))


def test_what_comes_too_late_to_stream_is_refused(settings: Settings, harness: Harness, book: Book) -> None:
    plain = AppServer(settings.type_broker, settings.url_broker, "async", name_queue=settings.queue_name)

    @plain.decorator_reg_func
    async def add(one: int, other: int) -> int:
        return one + other

    async def streaming() -> AsyncIterator[int]:
        yield 1

    async def sent(numbers: AsyncIterator[int]) -> int:
        return 1

    async def wrong(numbers: Iterator[int]) -> int:
        return 1

    with served(plain):
        with pytest.raises(RegistrationError, match=r"too late: .* without any streaming function of type 'async'"):
            plain.register_func(streaming)
        with pytest.raises(RegistrationError, match=r"too late: .* without any function that streams or reads a stream"):
            plain.register_func(sent)
        with pytest.raises(RegistrationError, match="reads a stream as AsyncIterator"):
            plain.register_func(wrong)
    with served(app := stream_server(settings, book)):
        app.register_func(streaming, "async")
        app.register_func(sent, "async")
        with SyncStreams().client(settings) as client:
            assert list(client.stream("streaming")) == [1]
            assert client.call("sent", iter([1])).sync_wait_result_task(PATIENCE) == 1


def test_a_generator_knows_its_call(run: Any, face: StreamFace, settings: Settings, book: Book) -> None:
    app = stream_server(settings, book)

    @app.decorator_reg_func("thread", name="thread.call")
    def plain(number: int) -> Iterator[Any]:
        for _ in range(number):
            yield [current_call().function, dict(current_call().headers)]

    @app.decorator_reg_func("async", name="async.call")
    async def asynchronous(number: int) -> AsyncIterator[Any]:
        for _ in range(number):
            await asyncio.sleep(0)
            yield [current_call().function, dict(current_call().headers)]

    async def scenario(client: Any) -> None:
        for name in ("thread.call", "async.call"):
            stream = client.options(headers={"a": "b"}).stream(name, 300)
            assert await face.items(stream) == [[name, {"a": "b"}]] * 300

    run(scenario, app)


def test_a_functions_own_time_ends_its_stream_and_the_servers_does_not(
    run: Any, face: StreamFace, settings: Settings, book: Book
) -> None:
    app = stream_server(settings, book, timeout_worker=0.2)
    functions, coroutines = Functions(book), AsyncFunctions(book)
    app.register_func(functions.endless, "thread", name="short.thread", timeout=0.2)
    app.register_func(coroutines.endless, "async", name="short.async", timeout=0.2)

    async def scenario(client: Any) -> None:
        for kind in ("thread", "async"):
            stream = client.stream(f"short.{kind}", kind)
            with pytest.raises(WorkerTimeoutError):
                while True:
                    await face.next(stream)
            await face.wait(book.until_ended, kind)
        for kind in ("thread.", "async."):
            stream = client.stream(kind + "gated", kind, 2)
            book.open(f"{kind} 0")
            assert await face.next(stream) == 0
            with pytest.raises(ClientTimeOutError):
                await face.next(stream, 0.5)
            book.open(f"{kind} 1")
            assert [await face.next(stream), await face.at_end(stream)] == [1, True]

    run(scenario, app, call_timeout=0.2)


def test_nobody_there_to_stream(face: StreamFace, settings: Settings, harness: Harness) -> None:
    async def scenario() -> None:
        client = face.client(settings, connect_timeout=settings.connect_timeout)
        with pytest.raises(NoServerError):
            await face.items(client.options(require_server=True).stream("async.count", "t", 1))
        await face.close(client)

    face.run(scenario())


def test_many_large_streams_at_once(settings: Settings, harness: Harness, book: Book, kind: str) -> None:
    """More is on its way than a broker keeps for a reader (Redis: 32 MB)."""

    async def scenario() -> None:
        async with AsyncStreams().client(settings, connect_timeout=settings.connect_timeout) as client:

            async def sizes(stream: Any) -> list[int]:
                return [len(item) async for item in stream]

            streams = [client.stream(kind + "large", 10, 1_000_000) for _ in range(8)]
            for stream in streams:
                await stream.async_next(PATIENCE)
            assert await asyncio.gather(*map(sizes, streams)) == [[1_000_000] * 9] * 8

    with served(stream_server(settings, book, redis_heartbeat=3.0, redis_recover=20.0)):
        asyncio.run(scenario())


def test_nothing_is_left_of_streams_that_ended(run: Any, face: StreamFace, settings: Settings, book: Book, kind: str) -> None:
    async def scenario(client: Any) -> None:
        for number in range(20):
            assert await face.items(client.stream(kind + "count", "t", number)) == list(range(number))
            assert await face.result(client.call(kind + "total", "t", face.feed(range(number)))) == sum(range(number))
            assert await face.leave(client.stream(kind + "endless", "u"), 3) == [0, 1, 2]
        await face.wait(book.until, lambda: book.ended["u"] == 20)
        desk = client.channel.pump().streams._desk
        assert await face.result(client.call(kind + "add", 1, 2)) == 3  # whatever was queued in the client's loop has happened
        assert (desk.readers, desk.writers) == ({}, {})

    run(scenario)


def test_types_that_say_nothing_of_items(run: Any, face: StreamFace, settings: Settings, book: Book) -> None:
    """Annotations without an item's type, and none at all."""
    app = stream_server(settings, book)

    @app.decorator_reg_func("thread")
    def bare(values: Iterator):  # type: ignore[no-untyped-def,type-arg]
        yield from values

    async def scenario(client: Any) -> None:
        assert await face.items(client.stream("bare", [1, "x"])) == [1, "x"]
        assert await face.items(client.stream("bare", face.feed([1, "x"]))) == [1, "x"]

    run(scenario, app)
