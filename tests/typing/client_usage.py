"""What type checkers make of the client's face; checked by test_client_types.py, never run."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

import prpc
from prpc import AsyncClient, AwaitableTask, Client, Progress, RemoteFunction, as_completed, gather, progress_bar
from prpc.app_client import AsCompleted, Mapped, RemoteStream, Stream, remote_function, remote_stream
from prpc.brokers.base import ServerRecord


@dataclass
class Point:
    x: int


@remote_function("summ", schema="0123456789abcdef", idempotent=True)
def summ(a: float, b: float, /, z: float = 0.5, *rest: int, name: str = "") -> float:
    raise NotImplementedError


@remote_function("point")
def point() -> Point:
    raise NotImplementedError


@remote_function("nothing")
def nothing() -> None:
    raise NotImplementedError


def plain() -> None:
    task = summ(1, 2)
    assert_type(task, AwaitableTask[float])
    assert_type(task.sync_wait_result_task(timedelta(seconds=1)), float)
    assert_type(task.result(2.5), float)
    assert_type(task.get_result(), float)
    assert_type(task.is_done_task(update_status=True), bool)
    assert_type(task.cancel(), bool)
    assert_type(task.time_execution, timedelta | None)
    assert_type(task.message, prpc.PRPCMessage)
    assert_type(point().result(), Point)
    assert_type(nothing(), AwaitableTask[None])
    assert_type(summ.options(timeout=3, headers={"a": "b"})(1, 2, 3.0, 4, 5, name="x"), AwaitableTask[float])
    repeated = summ.options(timeout=20, retries=3, attempt_timeout=timedelta(seconds=2), backoff=0.1)
    assert_type(repeated(1, 2), AwaitableTask[float])
    summ.options(retries="3")  # expect-error: no number
    assert_type(summ.map([1, 2], [3, 4]), Mapped[float])
    for value in summ.map([1, 2], [3, 4], max_in_flight=5, ordered=False, timeout=timedelta(seconds=9), progress=True):
        assert_type(value, float)
    for either in summ.map([1, 2], [3, 4], return_exceptions=True):
        assert_type(either, float | BaseException)
    with point.map([1]) as points:
        assert_type(points.result(20), list[Point])
        assert_type(points.cancel(), int)
    summ.map(3)  # expect-error: not iterable
    summ.map([1], max_in_flight="3")  # expect-error: no number
    summ("x", 2)  # expect-error: argument type
    summ(1)  # expect-error: missing argument
    summ(a=1, b=2)  # expect-error: positional only
    summ.options(timeout=3)(1, 2, nonsense=1)  # expect-error: unknown keyword


def with_client() -> None:
    with Client("redis", "redis://localhost:6379/0", "orders", connect_timeout=3) as client:
        assert_type(client, Client)
        assert_type(client.call("anything", 1, key=2), AwaitableTask[Any])
        assert_type(client.map("anything", [1, 2], return_exceptions=True), Mapped[Any])
        assert_type(client.options(timeout=timedelta(seconds=3)), Client)
        assert_type(client.options(idempotent=True, retries=3, attempt_timeout=2.0, backoff=0.1), Client)
        assert_type(client.ping(), str)
        assert_type(client.get_function_server(), list[dict[str, Any]])
        assert_type(client.servers(), Sequence[ServerRecord])
        assert_type(point.options(client=client)(), AwaitableTask[Point])
        assert_type(prpc.ping(3), str)


async def numbers() -> AsyncIterator[float]:
    yield 1


async def coroutines() -> None:
    async for value in summ.map(numbers(), [3, 4]):
        assert_type(value, float)
    assert_type(await summ.map([1, 2], [3, 4]), list[float])
    async with point.map([1], return_exceptions=True) as points:
        assert_type(await points.async_result(3), list[Point | BaseException])
    assert_type(await summ(1, 2), float)
    assert_type(await point().async_wait_result_task(3), Point)
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        assert_type(await client.ping(), str)
        assert_type(await client.call("anything"), Any)
        assert_type(client.map("anything", numbers()), Mapped[Any])
        assert_type(await client.servers(), Sequence[ServerRecord])
    assert_type(await gather(summ(1, 2), summ(3, 4)), list[float])
    assert_type(await gather(summ(1, 2), return_exceptions=True), list[float | BaseException])
    assert_type(gather(point(), point()).result(5), list[Point])
    assert_type(as_completed([point()]), AsCompleted[Point])
    for done in as_completed([point()], timeout=3):
        assert_type(done, AwaitableTask[Point])
    async for done in as_completed([point()], progress=True):
        assert_type(await done, Point)


def progress() -> None:
    task = point()
    assert_type(task.progress, Progress | None)
    stop = task.on_progress(lambda said: print(said.done, said.total, said.message))
    stop()
    with progress_bar(task, unit="file") as same:
        assert_type(same, AwaitableTask[Point])
    with progress_bar(point() for _ in range(3)) as several:
        assert_type(several, list[AwaitableTask[Point]])


def wider(task: AwaitableTask[float | None]) -> float | None:
    return task.result()


def typed_names(task: AwaitableTask[float], function: RemoteFunction[[int], str]) -> None:
    assert_type(wider(task), float | None)
    assert_type(function(1).result(), str)


@remote_stream("points", schema="0123456789abcdef", idempotent=True)
def points(number: int, /, *, first: int = 0) -> Iterator[Point]:
    raise NotImplementedError


@remote_function("farthest")
def farthest(points: Iterable[Point] | AsyncIterable[Point]) -> Point | None:
    raise NotImplementedError


def streams() -> None:
    stream = points(3, first=1)
    assert_type(stream, Stream[Point])
    for point_ in stream:
        assert_type(point_, Point)
    with points(3) as block:
        assert_type(block, Stream[Point])
        assert_type(next(block), Point)
        assert_type(block.next(timeout=1.5), Point)
        assert_type(block.next(timedelta(seconds=1)), Point)
    assert_type(stream.cancel(), bool)
    assert_type(stream.received, int)
    stream.close()
    assert_type(points.options(timeout=60, item_timeout=timedelta(seconds=1), headers={"a": "b"})(3), Stream[Point])
    with Client() as client:
        assert_type(client.stream("points", 3), Stream[Any])
        assert_type(client.options(item_timeout=1).stream("points", 3), Stream[Any])
        assert_type(points.options(client=client)(3), Stream[Point])
    assert_type(farthest(points(3)), AwaitableTask[Point | None])
    assert_type(farthest([Point(1)]).result(), Point | None)
    assert_type(farthest(Point(x) for x in range(3)).result(), Point | None)


async def async_points() -> AsyncIterator[Point]:
    async for point_ in points(3):
        assert_type(point_, Point)
        yield point_
    async with points(3) as block:
        assert_type(await block.async_next(timeout=1), Point)
        assert_type(await anext(block), Point)
    async with AsyncClient() as client:
        assert_type(client.stream("points", 3), Stream[Any])
    assert_type(await farthest(async_points()), Point | None)


def stream_names(function: RemoteStream[[int], str]) -> None:
    assert_type(function(1), Stream[str])
