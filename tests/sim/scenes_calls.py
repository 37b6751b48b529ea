"""Scenes of single calls: wrong ones, stale stubs, what callers ask of a task, cancelling, streams that end in other ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

from prpc.app_client import AsyncClient, AwaitableTask, RemoteFunction, Stream, remote_function, remote_stream
from prpc.client.options import CallOptions
from prpc.exceptions import (
    BadArgumentsError,
    CallCancelledError,
    ClientTimeOutError,
    DecodeError,
    EncodeError,
    FunctionNotFoundError,
    NoServerError,
    StaleStubError,
    WorkerTimeoutError,
)
from tests.sim.stage import Stage, ends, sync_ends

__all__ = ["asked", "stubs", "wrong"]


def wrong(stage: Stage) -> None:
    """Calls that a server refuses, and results that cannot be sent."""
    refused = ("BadArgumentsError", "FunctionNotFoundError", "EncodeError", "StaleStubError", "ValueError", "DecodeError")
    stage.acts(_bad_arguments, expects={"*": refused, "feeds": ("anything",)})
    stage.acts(_unsendable, expects={"*": (*refused, "LookupError"), "feeds": ("anything",)}, max_message_bytes=5_000_000)
    stage.acts(_options)


async def _bad_arguments(client: AsyncClient) -> None:
    right: list[tuple[Any, Any]] = [
        ((1, "a", 2.0, 3), {"flag": True, "shade": "red"}),
        (("7",), {"flag": "yes", "shade": "red", "size": 3, "maybe": {"x": 1}}),
        ((1,), {"flag": False, "shade": "x", "maybe": None, "text": "t"}),
    ]
    for args, kwargs in right:
        await client.call("typed", *args, **kwargs)
    bad: list[tuple[str, Any, Any]] = [
        ("typed", (), {}),
        ("typed", ("x",), {"flag": True, "shade": "red"}),
        ("typed", (1, "a", "b"), {"flag": True, "shade": "red"}),
        ("typed", (1, "a"), {"flag": True, "shade": "red", "text": "b"}),
        ("typed", (1,), {"flag": True, "shade": "red", "number": 2}),
        ("typed", (1,), {"flag": True, "shade": "red", "colour": 2}),
        ("typed", (1,), {"flag": True}),
        ("typed", (1,), {"shade": "red"}),
        ("typed", (1,), {"flag": True, "shade": "red", "maybe": {"x": 13}}),
        ("typed", (1,), {"flag": True, "shade": "red", "size": "x"}),
        ("pair", (1, 2, 3), {}),
        ("pair", (1,), {"othr": 2}),
        ("pair", (1,), {"quite_else" * 40: 2}),
        ("nothing_by_name", (), {"number": 2}),
        ("nothing_by_name", (), {"else": 2}),
        ("nothing_by_name", (1, 2), {}),
        ("work", (1.0,), {}),
        ("headers", (1,), {}),
    ]
    for name, args, kwargs in bad:
        error = await ends(client.call(name, *args, **kwargs), BadArgumentsError)
        assert name in str(error)
    for name in ("wrk", "quite_else", "work" * 100):
        await ends(client.call(name), FunctionNotFoundError)
        await ends(client.options(require_server=True).call(name), FunctionNotFoundError)
    await client.options(require_server=True).call("free", 1, 2, three=4)
    await ends(client.call("stream", 0.1, "value", 3), BadArgumentsError)
    await ends(anext(client.stream("work", 0.1, "value")), BadArgumentsError)
    await ends(client.call("pair", _none(), 3), BadArgumentsError)
    await ends(client.call("pair", 3, other=_none()), BadArgumentsError)
    await ends(client.call("free", _none(), _none()), BadArgumentsError)
    await ends(client.call("feeds", 3), BadArgumentsError)
    await ends(client.call("feeds", _texts()), BadArgumentsError)
    await client.call("feeds", [1, 2], second=(3,))
    await client.call("feeds", _numbers(30), second=_numbers(7))


async def _none() -> AsyncIterator[int]:
    return
    yield 0


async def _texts() -> AsyncIterator[Any]:
    yield "no number"


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def _breaks() -> AsyncIterator[int]:
    yield 1
    raise LookupError("nothing more")


class _Own:
    """Iterates without a close of its own."""

    def __init__(self) -> None:
        self._left = 5

    def __aiter__(self) -> _Own:
        return self

    async def __anext__(self) -> int:
        self._left -= 1
        if self._left < 0:
            raise StopAsyncIteration
        return self._left


def _plain() -> Iterator[int]:
    yield from range(20)


def _plain_breaks() -> Iterator[int]:
    yield 0
    raise SystemExit(3)


async def _unsendable(client: AsyncClient) -> None:
    sync_ends(lambda: client.call("free", object()), EncodeError)
    await ends(client.call("big", 2_000_000), EncodeError)
    await ends(client.call("awkward"), EncodeError)
    await ends(client.call("long_error", 2_000_000), ValueError, EncodeError)
    await ends(client.call("free", ["x" * 1000] * 1000), DecodeError)
    sync_ends(lambda: client.call("free", "x" * 6_000_000), EncodeError)
    await ends(client.call("limited", 2.0), WorkerTimeoutError)
    await ends(client.call("feeds", _breaks()), LookupError)
    await client.call("free", "name" * 30)
    await client.call("feeds", _Own())


async def _options(client: AsyncClient) -> None:
    kinds: list[tuple[Any, type[Exception]]] = [
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"item_timeout": -1.0}, ValueError),
        ({"headers": {"a": 1}}, TypeError),
        ({"headers": {"a": "x" * 20_000}}, ValueError),
        ({"headers": {"a": "\ud800"}}, ValueError),
        ({"retries": True}, TypeError),
        ({"retries": -1}, ValueError),
        ({"attempt_timeout": 0.0, "idempotent": True}, ValueError),
        ({"attempt_timeout": float("inf"), "idempotent": True}, ValueError),
        ({"backoff": -1.0, "idempotent": True}, ValueError),
        ({"backoff": 1.0}, ValueError),
    ]
    for given, error in kinds:
        sync_ends(lambda given=given: client.options(**given), error)
    assert CallOptions(timeout=3.0).policy  # what is not given stays as it is
    told = await client.options(headers={"trace": "t1"}, timeout=timedelta(seconds=20)).call("headers")
    assert told["headers"] == {"trace": "t1"} and told["function"] == "headers"
    quick = client.options(retries=1, attempt_timeout=2.0, backoff=0.1)
    await asyncio.gather(*(quick.call("safe", 0.0, "value") for _ in range(3)))
    await client.options(idempotent=True, retries=0).call("safe", 0.0, "value")
    await client.options(idempotent=True, backoff=5.0, timeout=float("inf")).call("safe", 0.0, "value")


def stubs(stage: Stage) -> None:
    """Functions as generated stubs give them, of this server and of another one."""
    stage.acts(_stubs, expects={"*": ("BadArgumentsError", "StaleStubError", "FunctionNotFoundError", "DecodeError")})
    stage.acts(lambda client: _stream_stubs(stage, client), expects={"*": ("DecodeError",)})


def _stub(name: str, function: Any, schema: str = "", *, idempotent: bool = False) -> RemoteFunction[Any, Any]:
    made: RemoteFunction[Any, Any] = remote_function(name, schema=schema, idempotent=idempotent)(function)
    return made


async def _stubs(client: AsyncClient) -> None:
    def pair(number: int, other: int) -> str: ...  # type: ignore[empty-body]
    def as_number(number: int, other: int) -> int: ...  # type: ignore[empty-body]
    def bare(number, other): ...  # type: ignore[no-untyped-def]
    def safe(seconds: float, end: str) -> str: ...  # type: ignore[empty-body]

    good = _stub("pair", pair).options(client=client, timeout=30.0, headers={"a": "b"}, require_server=True)
    first = good(1, 2)
    token = await first
    assert first.get_result() == token and repr(good).startswith("<RemoteFunction pair(") and good.__reduce__() == "pair"
    assert len(await good.map([1, 2, 3], [4, 5, 6])) == 3
    await _stub("pair", bare).options(client=client)(1, 2)
    stale = _stub("pair", pair, "0123456789abcdef").options(client=client)
    await ends(stale(1, "x"), StaleStubError)
    assert "server_func.py" in str(
        await ends(_stub("gone", pair, "01234567").options(client=client)(1, 2), FunctionNotFoundError)
    )
    unfit = _stub("pair", as_number).options(client=client)(1, 2)
    await ends(unfit, DecodeError)
    sync_ends(lambda: _stub("pair", pair).options(retries=3), ValueError)
    again = _stub("safe", safe, idempotent=True).options(
        client=client, retries=2, attempt_timeout=timedelta(seconds=3), backoff=0.1
    )
    await again(0.0, "value")
    functions = await client.get_function_server(timeout=8.0)
    assert "typed" in repr(functions)
    assert await client.ping(timeout=8.0) == "pong"


async def _stream_stubs(stage: Stage, client: AsyncClient) -> None:
    def stream(seconds: float, end: str, count: int) -> Iterator[int]: ...  # type: ignore[empty-body]
    def bare(seconds, end, count): ...  # type: ignore[no-untyped-def]
    def unfit(seconds: float, end: str, count: int) -> Iterator[list[int]]: ...  # type: ignore[empty-body]

    numbers = remote_stream("stream")(stream).options(client=client, timeout=30.0, item_timeout=40.0, headers={"a": "b"})
    assert await stage.read(numbers(0.1, "value", 5), 5) == [0, 1, 2, 3, 4]
    assert await stage.read(remote_stream("stream")(bare).options(client=client)(0.1, "value", 3), 3) == ["0", "1", "2"]
    assert repr(numbers).startswith("<RemoteStream stream(") and numbers.__reduce__() == "stream"
    wrong = remote_stream("stream")(unfit).options(client=client)(0.1, "value", 3)
    async with wrong:
        stage.leave(wrong)
        await ends(anext(wrong), DecodeError)


def asked(stage: Stage) -> None:
    """What one may ask of a call, and how one may leave it."""
    stage.acts(lambda client: _asked(stage, client), expects={"*": ("ValueError",)})
    stage.acts(_cancelled)
    stage.acts(lambda client: _streams(stage, client), expects={"*": ("ValueError",)})
    stage.acts(_nobody_there, queue_name="deserted")
    stage.acts(_sends, expects={"*": ("RuntimeError", "LookupError")})


async def _asked(stage: Stage, client: AsyncClient) -> None:
    task = client.call("work", 0.9, "progress")
    sync_ends(task.get_result, ClientTimeOutError)
    sync_ends(task.result, RuntimeError)
    heard: list[Any] = []

    def bad(progress: Any) -> None:
        raise ValueError("no")

    stop_bad, stop = task.on_progress(bad), task.on_progress(heard.append)
    assert "pending" in repr(task) and task.time_execution is None and not task.failed and task.progress is None
    await ends(task.async_wait_result_task(timedelta(seconds=0.05)), ClientTimeOutError)
    assert not task.is_done_task(update_status=True) and task.message.result is None
    await task
    stop()
    stop_bad()
    late: list[Any] = []
    task.on_progress(late.append)()
    if stage.peaceful:
        assert task.progress is not None and heard and late == [task.progress], heard
    assert task.time_execution is not None and task.message.result == task.get_result() and not task.cancel()
    failed = client.call("work", 0.0, "raise")
    await ends(failed, ValueError)
    assert failed.failed and failed.message.exception_info and "failed" in repr(failed)
    out = client.options(timeout=0.05).call("work", 1.0, "value")
    await ends(out, ClientTimeOutError, WorkerTimeoutError)
    assert out.message.exception_info and out.time_execution is not None
    assert client.queue == "sim" and "queue='sim'" in repr(client)
    assert await client.servers() or not stage.peaceful


async def _nobody_there(client: AsyncClient) -> None:
    """On a queue that nobody serves."""
    for call in (
        client.options(require_server=True).call("work", 0.0, "value"),
        client.ping(2.0),
        client.get_function_server(2.0),
    ):
        await ends(call, NoServerError)
    await ends(client.options(require_server=True, retries=2, backoff=0.1).call("safe", 0.0, "value"), NoServerError)


async def _cancelled(client: AsyncClient) -> None:
    running = client.call("work", 5.0, "value")
    await asyncio.sleep(0.2)
    if running.is_done_task():
        await running
    assert running.cancel() and not running.cancel()
    await ends(running, CallCancelledError)
    unsent = client.call("work", 5.0, "value")
    unsent.cancel()
    await ends(unsent, CallCancelledError)
    waiting = [asyncio.ensure_future(client.call("work", 5.0, "value").async_wait_result_task()) for _ in range(2)]
    await asyncio.sleep(0.2)
    waiting[0].cancel()
    await ends(waiting[0], asyncio.CancelledError)
    waiting[1].cancel()
    two = client.call("work", 0.5, "value")
    both = [asyncio.ensure_future(_wait(two)) for _ in range(2)]
    await asyncio.sleep(0)
    both[0].cancel()
    await both[1]
    client.call("work", 0.1, "value")  # nobody holds it


async def _wait(task: AwaitableTask[Any]) -> Any:
    return await task


async def _streams(stage: Stage, client: AsyncClient) -> None:
    def stream(seconds: float, end: str, count: int, **options: Any) -> Stream[Any]:
        return client.options(**options).stream("stream", seconds, end, count)

    slow = stream(6.0, "value", 2, item_timeout=0.2)
    await ends(anext(slow), ClientTimeOutError)
    assert await slow.async_next(20.0) == "0" and slow.received >= 1 and repr(slow)
    cancelled = slow.cancel()
    stage.leave(slow)
    if cancelled:
        await ends(slow.async_next(), CallCancelledError)
    await slow.aclose()
    slow.close()
    assert "closed" in repr(slow)
    await ends(slow.async_next(), StopAsyncIteration)
    sync_ends(slow.next, StopIteration)
    await stage.read(stream(0.1, "value", 40), 40)
    await stage.read(stream(0.1, "value", 40), 40, most=3)
    await ends(stage.read(stream(0.1, "raise", 4), 4), ValueError)
    again = stream(0.1, "value", 2)
    await stage.read(again, 2)
    with again:
        assert [item async for item in again] == [] and list(again) == []
    dropped = stream(9.0, "value", 30)
    await anext(dropped)
    stage.leave(dropped)
    del dropped
    async with stream(5.0, "value", 9) as left:
        stage.leave(left)
    waited = stream(5.0, "value", 9)
    reading = asyncio.ensure_future(anext(waited))
    await asyncio.sleep(0.1)
    reading.cancel()
    stage.leave(waited)
    await ends(reading, asyncio.CancelledError)


async def _sends(client: AsyncClient) -> None:
    await client.call("feed", _numbers(40), "value")
    await client.call("feed", range(9), end="value")
    await client.call("feed", items=_plain(), end="value")
    await ends(client.call("feed", _plain_breaks(), "value"), RuntimeError)
    open_end = client.call("feed", _slow(), "value")
    await asyncio.sleep(0.3)
    open_end.cancel()
    await ends(open_end, CallCancelledError)


async def _slow() -> AsyncIterator[int]:
    for number in range(100):
        yield number
        await asyncio.sleep(0.1)
