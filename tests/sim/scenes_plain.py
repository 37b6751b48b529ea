"""Scenes of plain programs: blocking calls, threads, streams of plain code, the default client, and loops beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import prpc
from prpc import app_client
from prpc.app_client import AsyncClient, Client, as_completed, gather, progress_bar, use_client
from prpc.client.portal import current_portal, stop_portal
from prpc.exceptions import CallCancelledError, CallError, ClientTimeOutError, EncodeError, PRPCError
from tests.sim.stage import Stage, healthy, sync_ends

__all__ = ["blocking", "crossing", "plain_many", "plain_streams"]

ERRORS = {"*": ("ValueError", "EncodeError", "RuntimeError", "LookupError")}


def blocking(stage: Stage) -> None:
    """Calls that are waited for in the thread that made them, and the default client."""
    stage.plays(_blocking, expects=ERRORS)
    stage.plays(_default_client, expects=ERRORS)


def _blocking(client: Client) -> None:
    assert client.ping(8.0) == "pong" and client.get_function_server(8.0)
    client.servers()  # none may be there whose word is late
    task = client.call("thread_work", 0.9, "progress")
    seen: list[Any] = []
    stop = task.on_progress(seen.append)
    sync_ends(lambda: task.sync_wait_result_task(0.1), ClientTimeOutError)
    task.is_done_task(update_status=True)
    assert task.result(60.0) == task.get_result() and task.is_done_task(update_status=True)
    stop()
    with progress_bar(client.call("thread_work", 0.6, "progress")) as shown:
        shown.result()
    sync_ends(client.call("thread_work", 0.0, "raise").result, ValueError)
    sync_ends(client.call("thread_work", 0.0, "unwritable").result, EncodeError)
    sync_ends(lambda: client.call("free", _async_items()), TypeError)
    lost = client.options(timeout=0.3).call("thread_work", 2.0, "value")
    sync_ends(lost.result, CallError)
    open_end = client.call("thread_work", 3.0, "value")
    time.sleep(0.2)
    open_end.cancel()
    sync_ends(open_end.result, CallCancelledError)
    client.options(retries=2, attempt_timeout=3.0).call("thread_safe", 0.1, "value").result()
    sync_ends(lambda: current_portal().run(_inside(client)), RuntimeError)
    client.call("work", 0.3, "value")
    client.close()
    client.call("work", 0.0, "value").result()
    closed = client.call("work", 9.0, "value")
    time.sleep(0.1)
    client.close()
    sync_ends(closed.result, CallError)
    client.close()


async def _inside(client: Client) -> None:
    client.servers()


async def _async_items() -> Any:
    yield 1


def _default_client(client: Client) -> None:
    use_client(client)
    try:
        assert app_client.ping(8.0) == "pong" and app_client.get_function_server(8.0)
        app_client.servers()
        assert prpc.AwaitableTask("work", (0.0, "value")).result(20.0)

        @prpc.remote_function("work")
        def work(seconds: float, end: str) -> str: ...  # type: ignore[empty-body]

        assert work(0.0, "value").result(20.0) and work.map([0.0] * 3, ["value"] * 3).result()
        stop_portal()
        assert work(0.0, "value").result(20.0)
    finally:
        use_client(None)
    assert app_client._default().channel.settings is not client.channel.settings
    use_client(None)


def plain_many(stage: Stage) -> None:
    """Maps, gather and as_completed in plain code."""
    stage.plays(_maps, expects=ERRORS)
    stage.plays(_gathers, expects=ERRORS)


def _holes() -> Iterator[float]:
    yield 0.0
    raise LookupError("the input has a hole")


def _maps(client: Client) -> None:
    good = ["value"] * 8
    assert len(client.map("work", [0.01] * 8, good, max_in_flight=3).result()) == 8
    assert len(list(client.map("thread_safe", [0.01] * 8, good, max_in_flight=3, ordered=False))) == 8
    mixed = healthy(client.map("work", [0.0, object(), 0.0], ["value", "value", "raise"], return_exceptions=True).result(60.0))
    assert [isinstance(each, Exception) for each in mixed] == [False, True, True], mixed
    sync_ends(client.map("work", [0.0, 0.0, 0.0], ["value", "raise", "value"]).result, ValueError)
    sync_ends(client.map("work", _holes(), good).result, LookupError)
    sync_ends(client.map("work", [2.0] * 3, good, timeout=0.3).result, ClientTimeOutError)
    for _ in client.map("work", [0.01] * 8, good, max_in_flight=2):
        break
    with client.map("work", [0.01] * 8, good, progress=True) as mapped:
        next(iter(mapped))
        sync_ends(lambda: iter(mapped), RuntimeError)
    mapped = client.map("work", [3.0] * 4, good)
    _soon(0.2, mapped.cancel)
    sync_ends(mapped.result, CallCancelledError)


def _soon(seconds: float, function: Callable[[], Any]) -> None:
    def run() -> None:
        time.sleep(seconds)
        function()

    threading.Thread(target=run).start()


def _gathers(client: Client) -> None:
    tasks = [client.call("thread_work", 0.05 * number, "value") for number in range(4)]
    assert {task.get_result() for task in as_completed(tasks, progress=True)} == set(gather(*tasks).result())
    found = healthy(gather(client.call("work", 0.0, "value"), client.call("work", 0.0, "raise"), return_exceptions=True).result())
    assert isinstance(found[1], ValueError), found
    sync_ends(gather(client.call("work", 2.0, "value"), client.call("work", 0.0, "raise")).result, ValueError)
    slow = gather(client.call("work", 2.0, "value"), progress=True)
    sync_ends(lambda: slow.result(0.2), ClientTimeOutError)
    assert slow.cancel() == 1
    sync_ends(slow.result, CallCancelledError)
    late = as_completed([client.call("work", 2.0, "value")], timeout=0.3)
    sync_ends(lambda: [task.get_result() for task in late], ClientTimeOutError)


def plain_streams(stage: Stage) -> None:
    """Streams in plain code, in both directions."""
    stage.plays(lambda client: _reads(stage, client), expects=ERRORS)
    stage.plays(_sends, expects=ERRORS)


def _reads(stage: Stage, client: Client) -> None:
    assert len(stage.sync_read(client.stream("thread_stream", 0.1, "value", 30), 30)) == 30
    stage.sync_read(client.stream("stream", 0.1, "value", 30), 30, most=4)
    sync_ends(lambda: stage.sync_read(client.stream("thread_stream", 0.0, "raise", 4), 4), ValueError)
    slow = client.options(item_timeout=0.2).stream("thread_stream", 3.0, "value", 3)
    sync_ends(lambda: next(slow), ClientTimeOutError)
    _soon(0.3, slow.close)
    sync_ends(lambda: slow.next(20.0), StopIteration)
    stage.leave(slow)
    with client.stream("thread_stream", 3.0, "value", 3) as left:
        _soon(0.2, left.cancel)
        sync_ends(lambda: next(left), CallCancelledError)
        stage.leave(left)
    dropped = client.stream("thread_stream", 3.0, "value", 30)
    next(dropped)
    stage.leave(dropped)
    del dropped
    client.call("work", 0.2, "value").result()


def _sends(client: Client) -> None:
    client.call("thread_feed", range(40), "value").result()
    client.call("feed", iter(range(20)), "value").result()
    client.call("thread_feed", iter(range(40)), "early").result()
    client.call("thread_feed", [0, 1, 2], "value", seconds=0.01).result()
    client.call("thread_feed", _slowly(9), end="value").result()
    client.call("feed", {0: 0, 1: 1}.keys(), "value").result()
    sync_ends(client.call("thread_feed", _breaks(), "value").result, LookupError)
    endless = client.call("thread_feed", _slowly(1000), "value")
    time.sleep(0.4)
    endless.cancel()
    sync_ends(endless.result, CallCancelledError)


def _slowly(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.03)
        yield number


def _breaks() -> Iterator[int]:
    yield 0
    raise LookupError("nothing more")


def crossing(stage: Stage) -> None:
    """One client in plain code, in threads and in loops."""
    stage.plays(_threads, expects=ERRORS)
    stage.plays(lambda client: _loops(stage, client), expects=ERRORS)
    stage.plays(lambda client: _left_open(stage, client), expects=ERRORS)


def _threads(client: Client) -> None:
    seen: list[Any] = []
    shared = client.call("work", 0.5, "value")

    def wait(number: int) -> None:
        try:
            seen.append((shared.result(), client.call("work", 0.01 * number, "value").result()))
        except PRPCError as exc:
            seen.append(exc)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    healthy(seen)
    assert len({first for first, _ in seen}) == 1, seen
    many = [client.call("work", 2.0, "value") for _ in range(6)]
    racers = [threading.Thread(target=task.cancel) for task in many for _ in range(2)]
    for thread in racers:
        thread.start()
    for task in many:
        sync_ends(task.result, CallCancelledError)
    for thread in racers:
        thread.join()


def _loops(stage: Stage, client: Client) -> None:
    plain = client.call("work", 0.4, "value")

    async def main() -> None:
        assert await plain == plain.get_result()
        own = client.call("work", 0.3, "value")
        there = asyncio.ensure_future(_wait(client.call("work", 5.0, "value")))
        waited = await own
        assert waited == own.get_result()
        there.cancel()
        assert len(await client.map("work", [0.0] * 3, ["value"] * 3)) == 3
        late = client.call("work", 0.5, "value")
        late.is_done_task(update_status=True)
        await late
        open_calls.append(client.call("work", 8.0, "value"))
        client.close()

    open_calls: list[Any] = []
    try:
        asyncio.run(main())
    except PRPCError:
        stage.gone(client)  # its loop has ended before it could say that it wants no more of the others
        raise
    sync_ends(open_calls[0].result, CallError, RuntimeError)
    other = client.call("work", 0.4, "value")

    async def elsewhere() -> None:
        assert await other and await gather(other, client.call("work", 0.1, "value"))
        async for _ in as_completed([other]):
            pass
        lost.append(client.call("work", 30.0, "value"))
        await asyncio.sleep(0.1)

    lost: list[Any] = []
    asyncio.run(elsewhere())
    sync_ends(lost[0].result, CallError, RuntimeError)
    lost[0].cancel()
    lost[0].on_progress(print)()


async def _wait(task: Any) -> Any:
    return await task


def _left_open(stage: Stage, client: Client) -> None:
    async def main() -> None:
        mine = AsyncClient._over(client.channel)
        await mine.call("work", 0.0, "value")
        held.append(mine.call("work", 20.0, "value"))
        held.append(mine.stream("stream", 5.0, "value", 9))

    held: list[Any] = []
    asyncio.run(main())
    stage.gone(client)
