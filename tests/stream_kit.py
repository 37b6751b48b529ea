"""For the tests of streams: a whole server in a thread of its own, the functions that it serves, and the two faces."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from client_kit import PATIENCE, AsyncFace, SyncFace

from prpc.app_client import Stream
from prpc.app_server import AppServer
from prpc.settings import Settings

#: Values of all kinds that travel without an annotation.
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**80, 1.5, "", "ä\n\0", [], {}, [[1], {"a": [None]}], {"a": {"b": "c"}}),
    *((1, (2, 3)), {1, 2}, frozenset({3}), b"\x00\xff", datetime(2024, 1, 2, tzinfo=UTC), Decimal("1.50"), UUID(int=5)),
    *({1: "one", None: "none"}, {"py/object": "not.a.tag"}, {"prpc_mail": "items"}, "x" * 10_000),
]


@dataclasses.dataclass
class Point:
    x: int
    when: datetime


MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


class Book:
    """What happened in the functions, by the caller's token; from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: Items made so far, or read by functions that are sent some.
        self.made = Counter[str]()
        self.ended = Counter[str]()
        self._open: set[str] = set()

    def count(self, token: str) -> None:
        with self._changed:
            self.made[token] += 1
            self._changed.notify_all()

    def end(self, token: str) -> None:
        with self._changed:
            self.ended[token] += 1
            self._changed.notify_all()

    def open(self, token: str) -> None:
        """Let the functions go on that wait for this token."""
        with self._changed:
            self._open.add(token)
            self._changed.notify_all()

    def wait(self, token: str) -> None:
        self.until(lambda: token in self._open)

    def until(self, happened: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(happened, PATIENCE), (self.made, self.ended)

    def until_ended(self, token: str) -> None:
        self.until(lambda: self.ended[token] > 0)


class Functions:
    """The plain generators, and functions that are sent streams."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def count(self, token: str, number: int) -> Iterator[int]:
        try:
            for value in range(number):
                self.book.count(token)
                yield value
        finally:
            self.book.end(token)

    def values(self) -> Iterator[Any]:
        yield from VALUES

    def points(self, number: int) -> Iterator[Point]:
        for value in range(number):
            yield Point(value, MOMENT)

    def fail(self, token: str, number: int) -> Iterator[int]:
        yield from self.count(token, number)
        raise KeyError(f"after {number}")

    def endless(self, token: str) -> Iterator[int]:
        yield from self.count(token, 2**62)

    def gated(self, token: str, number: int) -> Iterator[int]:
        try:
            for value in range(number):
                self.book.wait(f"{token} {value}")
                yield value
        finally:
            self.book.end(token)

    def unwritable(self, token: str, number: int) -> Iterator[Any]:
        try:
            yield from range(number)
            yield object()
        finally:
            self.book.end(token)

    def large(self, number: int, size: int) -> Iterator[str]:
        for value in range(number):
            yield f"{value} ".ljust(size, "x")

    def total(self, token: str, numbers: Iterator[int]) -> int:
        total = 0
        for number in numbers:
            self.book.count(token)
            total += number
        return total

    def listed(self, values: Iterator[Any]) -> list[Any]:
        return list(values)

    def sizes(self, texts: Iterator[str]) -> list[int]:
        return [len(text) for text in texts]

    def latest(self, points: Iterator[Point]) -> Point:
        last = None
        for point in points:
            assert isinstance(point, Point)
            last = point
        assert last is not None
        return last

    def some(self, token: str, number: int, numbers: Iterator[int]) -> list[int]:
        """Reads so many, then waits for its gate."""
        found = []
        try:
            for _ in range(number):
                found.append(next(numbers))
                self.book.count(token)
            self.book.wait(token)
            return found
        finally:
            self.book.end(token)

    def doubled(self, token: str, numbers: Iterator[int]) -> Iterator[int]:
        try:
            for number in numbers:
                self.book.count(token)
                yield 2 * number
        finally:
            self.book.end(token)

    def two(self, one: Iterator[int], *, other: Iterator[str]) -> list[Any]:
        return [list(pair) for pair in zip(one, other, strict=True)]

    def add(self, one: int, other: int) -> int:
        return one + other


class AsyncFunctions:
    """The same as coroutines and async generators."""

    def __init__(self, book: Book) -> None:
        self.book = book

    async def count(self, token: str, number: int) -> AsyncIterator[int]:
        try:
            for value in range(number):
                self.book.count(token)
                yield value
        finally:
            await asyncio.sleep(0)
            self.book.end(token)

    async def values(self) -> AsyncIterator[Any]:
        for value in VALUES:
            yield value

    async def points(self, number: int) -> AsyncIterator[Point]:
        for value in range(number):
            yield Point(value, MOMENT)

    async def fail(self, token: str, number: int) -> AsyncIterator[int]:
        try:
            for value in range(number):
                yield value
            raise KeyError(f"after {number}")
        finally:
            self.book.end(token)

    async def endless(self, token: str) -> AsyncIterator[int]:
        value = 0
        try:
            while True:
                self.book.count(token)
                yield value
                value += 1
        finally:
            self.book.end(token)

    async def gated(self, token: str, number: int) -> AsyncIterator[int]:
        try:
            for value in range(number):
                await asyncio.to_thread(self.book.wait, f"{token} {value}")
                yield value
        finally:
            self.book.end(token)

    async def unwritable(self, token: str, number: int) -> AsyncIterator[Any]:
        try:
            for value in range(number):
                yield value
            yield object()
        finally:
            self.book.end(token)

    async def large(self, number: int, size: int) -> AsyncIterator[str]:
        for value in range(number):
            yield f"{value} ".ljust(size, "x")

    async def total(self, token: str, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            self.book.count(token)
            total += number
        return total

    async def listed(self, values: AsyncIterator[Any]) -> list[Any]:
        return [value async for value in values]

    async def sizes(self, texts: AsyncIterator[str]) -> list[int]:
        return [len(text) async for text in texts]

    async def latest(self, points: AsyncIterator[Point]) -> Point:
        last = None
        async for point in points:
            assert isinstance(point, Point)
            last = point
        assert last is not None
        return last

    async def some(self, token: str, number: int, numbers: AsyncIterator[int]) -> list[int]:
        found = []
        try:
            for _ in range(number):
                found.append(await anext(numbers))
                self.book.count(token)
            await asyncio.to_thread(self.book.wait, token)
            return found
        finally:
            self.book.end(token)

    async def doubled(self, token: str, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        try:
            async for number in numbers:
                self.book.count(token)
                yield 2 * number
        finally:
            self.book.end(token)

    async def two(self, one: AsyncIterator[int], *, other: AsyncIterator[str]) -> list[Any]:
        return [[number, await anext(other)] async for number in one]

    async def add(self, one: int, other: int) -> int:
        return one + other


def stream_server(settings: Settings, book: Book, **more: Any) -> AppServer:
    """A server with the functions of both kinds, as "thread.count", "async.count" and so on."""
    given: Mapping[str, Any] = {
        "redis_heartbeat": settings.redis_heartbeat,
        "redis_recover": settings.redis_recover,
        "kafka_queue_partitions": settings.kafka_queue_partitions or None,
        "connect_timeout": settings.connect_timeout,
        **more,
    }
    app = AppServer(settings.type_broker, settings.url_broker, "thread", 4, name_queue=settings.queue_name, **given)
    app.register_service(Functions(book), prefix="thread.", worker_type="thread")
    app.register_service(AsyncFunctions(book), prefix="async.")
    return app


@contextmanager
def served(app: AppServer, grace: float = 5.0) -> Iterator[AppServer]:
    """Run the server in a thread of its own; the loop comes along as `app.loop`."""
    ready = threading.Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        serving = asyncio.ensure_future(app.serve())
        app.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
        await asyncio.wait([serving, asyncio.ensure_future(app.ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        ready.set()
        await serving

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            failed.append(exc)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="stream-server", daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        if failed:
            raise failed[0]
        yield app
    finally:
        if not failed:
            asyncio.run_coroutine_threadsafe(app.stop(grace), app.loop).result(PATIENCE)  # type: ignore[attr-defined]
        thread.join(PATIENCE)
    assert not failed, failed


class SyncStreams(SyncFace):
    """Reading in plain code."""

    async def items(self, stream: Stream[Any]) -> list[Any]:
        return list(stream)

    async def next(self, stream: Stream[Any], seconds: float | None = PATIENCE) -> Any:
        return stream.next(seconds)

    async def some(self, stream: Iterable[Any], number: int) -> list[Any]:
        """The first so many, and then the loop is left."""
        found = []
        for item in stream:
            found.append(item)
            if len(found) == number:
                break
        return found

    async def leave(self, stream: Stream[Any], number: int) -> list[Any]:
        """The first so many, in a `with` block."""
        with stream:
            return [stream.next(PATIENCE) for _ in range(number)]

    async def at_end(self, stream: Stream[Any]) -> bool:
        """Whether there are no more; raises what ended it."""
        try:
            stream.next(PATIENCE)
        except StopIteration:
            return True
        return False

    async def close_stream(self, stream: Stream[Any]) -> None:
        stream.close()

    def feed(self, items: Iterable[Any]) -> Any:
        """An argument that is a stream of these."""
        return iter(items)

    async def wait(self, waiting: Callable[..., None], *args: Any) -> None:
        waiting(*args)


class AsyncStreams(AsyncFace):
    """Reading in coroutines."""

    async def items(self, stream: Stream[Any]) -> list[Any]:
        return [item async for item in stream]

    async def next(self, stream: Stream[Any], seconds: float | None = PATIENCE) -> Any:
        return await stream.async_next(seconds)

    async def some(self, stream: Stream[Any], number: int) -> list[Any]:
        found = []
        async for item in stream:
            found.append(item)
            if len(found) == number:
                break
        return found

    async def leave(self, stream: Stream[Any], number: int) -> list[Any]:
        async with stream:
            return [await stream.async_next(PATIENCE) for _ in range(number)]

    async def at_end(self, stream: Stream[Any]) -> bool:
        try:
            await stream.async_next(PATIENCE)
        except StopAsyncIteration:
            return True
        return False

    async def close_stream(self, stream: Stream[Any]) -> None:
        await stream.aclose()

    def feed(self, items: Iterable[Any]) -> Any:
        async def each() -> AsyncIterator[Any]:
            for item in items:
                yield item

        return each()

    async def wait(self, waiting: Callable[..., None], *args: Any) -> None:
        await asyncio.to_thread(waiting, *args)


StreamFace = SyncStreams | AsyncStreams
