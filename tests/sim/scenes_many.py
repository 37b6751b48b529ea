"""Scenes of coroutines that make many calls at once: maps, gather, as_completed, and bars that show how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

from prpc.app_client import AsyncClient, as_completed, gather, progress_bar
from prpc.exceptions import CallCancelledError, ClientTimeOutError, EncodeError
from tests.sim.drawn import without_tqdm
from tests.sim.stage import Stage, ends, healthy, sync_ends

__all__ = ["bars", "bursts", "gathers", "maps", "rows"]

ERRORS = {"*": ("ValueError", "EncodeError")}


def maps(stage: Stage) -> None:
    """All ways to read a map, and to leave one."""
    stage.acts(_maps_read, expects=ERRORS)
    stage.acts(_maps_left, expects=ERRORS)
    stage.acts(_maps_refused, expects=ERRORS)


def bursts(stage: Stage) -> None:
    """So many short calls that a server takes them ahead and gathers their outcomes, and then long ones among them."""
    stage.acts(_bursts, expects=ERRORS)


def rows(stage: Stage) -> None:
    """The same of process workers, in which calls wait behind others."""
    stage.acts(_rows, expects=ERRORS)


async def _bursts(client: AsyncClient) -> None:
    await _burst(client, "work", "safe")


async def _rows(client: AsyncClient) -> None:
    await _burst(client, "process", "process_safe")


async def _burst(client: AsyncClient, once: str, often: str) -> None:
    short = 0.0002
    assert len(await client.map(once, [short] * 240, ["value"] * 240, max_in_flight=30)) == 240
    seconds = [1.0 if number in (4, 5, 6, 7) else short for number in range(30)]
    functions = [once, often] * 15
    tasks = [client.call(name, each, "value") for name, each in zip(functions, seconds, strict=True)]
    for number, task in enumerate(tasks):
        if number % 7 == 6 and task.cancel():
            await ends(task, CallCancelledError)
        else:
            await task


async def _seconds(count: int, fails_at: int | None = None) -> AsyncIterator[float]:
    for number in range(count):
        await asyncio.sleep(0.001)
        if number == fails_at:
            raise LookupError("the input has a hole")
        yield 0.01 * (number % 3)


async def _maps_read(client: AsyncClient) -> None:
    ends_of = ["value"] * 8
    assert len(await client.map("work", [0.01] * 8, ends_of, max_in_flight=3)) == 8
    assert len([token async for token in client.map("safe", _seconds(6), ends_of, ordered=False, max_in_flight=2)]) == 6
    mixed = healthy(await client.map("work", [0.0] * 4, ["value", "raise", "value", "unwritable"], return_exceptions=True))
    assert [isinstance(each, Exception) for each in mixed] == [False, True, False, True], mixed
    refused = healthy(await client.map("work", [0.0, object(), 0.0], ["value"] * 3, return_exceptions=True, ordered=False))
    assert sorted(isinstance(each, EncodeError) for each in refused) == [False, False, True], refused
    async with client.map("work", [0.0] * 3, ends_of, timeout=timedelta(seconds=60)) as mapped:
        assert len([each async for each in mapped]) == 3
        assert isinstance(await ends(mapped, RuntimeError), RuntimeError)
    assert len(await client.map("work", [0.0] * 3, ends_of).async_result(60.0)) == 3
    assert await client.map("work", [], []) == []
    assert len(await client.map("work", _seconds(6), ["value"] * 6, max_in_flight=1)) == 6


async def _maps_left(client: AsyncClient) -> None:
    await ends(client.map("work", [0.0] * 8, ["value", "raise"] * 4, max_in_flight=2), ValueError)
    await ends(client.map("work", _seconds(5, fails_at=2), ["value"] * 5), LookupError)
    await ends(client.map("work", _holes(), ["value"] * 5, ordered=False), LookupError)
    await ends(client.map("work", [2.0] * 3, ["value"] * 3, timeout=0.2, max_in_flight=2), ClientTimeOutError)
    await ends(client.map("work", [0.0, object()], ["value"] * 2), EncodeError)
    async for _ in client.map("work", [0.01] * 9, ["value"] * 9, max_in_flight=3):
        break
    async with client.map("work", _seconds(50), ["value"] * 50, max_in_flight=3) as mapped:
        async for _ in mapped:
            break
    mapped = client.map("work", [3.0] * 4, ["value"] * 4)
    reading = asyncio.ensure_future(mapped.async_result())
    await asyncio.sleep(0.05)
    mapped.cancel()
    await ends(reading, CallCancelledError)
    reading = asyncio.ensure_future(client.map("work", [3.0] * 4, ["value"] * 4).async_result())
    await asyncio.sleep(0.05)
    reading.cancel()
    await ends(reading, asyncio.CancelledError)
    reader = aiter(client.map("work", [0.0], ["value"]))
    await anext(reader)
    for _ in range(2):
        await ends(anext(reader), StopAsyncIteration)


def _holes() -> Iterator[float]:
    yield 0.0
    raise LookupError("the input has a hole")


async def _maps_refused(client: AsyncClient) -> None:
    for limit, error in ((0, ValueError), (True, TypeError), ("2", TypeError)):
        sync_ends(lambda limit=limit: client.map("work", [], max_in_flight=limit), error)
    sync_ends(lambda: client.map("work"), TypeError)
    sync_ends(lambda: client.map("work", 3), TypeError)  # type: ignore[arg-type]
    sync_ends(lambda: client.map("work", _seconds(3)).result(), TypeError)
    sync_ends(lambda: list(client.map("work", [0.0], ["value"])), RuntimeError)
    two = client.map("work", [1.0] * 2, ["value"] * 2)
    first, second = aiter(two), asyncio.ensure_future(two._window.wait_async(None))
    await asyncio.sleep(0)
    await ends(anext(first), RuntimeError)
    second.cancel()


def gathers(stage: Stage) -> None:
    """gather and as_completed."""
    stage.acts(_gathers, expects=ERRORS)
    stage.acts(lambda client: _completes(stage, client), expects=ERRORS)


async def _gathers(client: AsyncClient) -> None:
    tasks = [client.call("work", 0.01 * number, "value") for number in range(4)]
    assert await gather(*tasks, tasks[0]) == [task.get_result() for task in [*tasks, tasks[0]]]
    wrong = [client.call("work", 0.0, end) for end in ("value", "raise", "unwritable")]
    found = healthy(await gather(*wrong, return_exceptions=True))
    assert type(found[0]) is str and isinstance(found[1], ValueError) and isinstance(found[2], EncodeError), found
    await ends(gather(client.call("work", 2.0, "value"), client.call("work", 0.0, "raise")), ValueError)
    slow = gather(client.call("work", 2.0, "value"), client.call("work", 0.0, "value"))
    await ends(slow.async_result(0.3), ClientTimeOutError)
    slow.cancel()
    await ends(slow, CallCancelledError)
    waiting = asyncio.ensure_future(gather(client.call("work", 5.0, "value"), client.call("work", 5.0, "value")).async_result())
    await asyncio.sleep(0.05)
    waiting.cancel()
    await ends(waiting, asyncio.CancelledError)
    sync_ends(lambda: gather([client]), TypeError)  # type: ignore[arg-type]
    alone = client.call("work", 0.5, "value")
    sync_ends(gather(alone).result, RuntimeError)
    await alone
    assert gather(alone).result() == [alone.get_result()]
    assert await gather() == []


async def _completes(stage: Stage, client: AsyncClient) -> None:
    tasks = [client.call("work", 0.02 * number, "value") for number in range(4)]
    assert {task async for task in as_completed(tasks)} == set(tasks)
    assert set(as_completed(tasks)) == set(tasks)
    late = as_completed([client.call("work", 3.0, "value"), client.call("work", 0.0, "value")], timeout=0.5)
    if stage.peaceful:
        await ends(_all(late), ClientTimeOutError)
    late.cancel()
    alone = [client.call("work", 0.5, "value")]
    sync_ends(lambda: list(as_completed(alone)), RuntimeError)


async def _all(many: Any) -> list[Any]:
    return [each async for each in many]


def bars(stage: Stage) -> None:
    """Bars of calls that say how far they are."""
    stage.acts(lambda client: _bars(stage, client), expects=ERRORS)


async def _bars(stage: Stage, client: AsyncClient) -> None:
    def call(seconds: float = 0.4) -> Any:
        return client.call("work", seconds, "progress")

    with progress_bar(call(), leave=False) as task:
        await task
    with progress_bar([call(), call()]) as tasks:
        await gather(*tasks, progress=True)
    with progress_bar(tasks) as again:
        assert again == tasks
    assert len(await gather(*(call() for _ in range(3)), *tasks, progress=True)) == 5
    async for _ in as_completed([call() for _ in range(13)], progress=True):
        pass
    assert len(await client.map("work", [0.1] * 3, ["progress"] * 3, progress=True)) == 3
    assert len(await client.map("work", (0.1 for _ in range(3)), ["progress"] * 3, progress=True)) == 3
    if stage.peaceful:
        await ends(as_completed_early(call), ClientTimeOutError)
    sync_ends(lambda: progress_bar([3]), TypeError)  # type: ignore[list-item]
    with without_tqdm():
        sync_ends(lambda: progress_bar([]), ModuleNotFoundError)


async def as_completed_early(call: Any) -> None:
    tasks = [call(3.0) for _ in range(2)]
    try:
        async for _ in as_completed(tasks, timeout=1.5, progress=True):
            pass
    finally:
        for task in tasks:
            task.cancel()
