"""`map`: a bounded number of calls in flight. One scenario for both faces and every kind of broker."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from client_kit import PATIENCE, AsyncFace, Face, ScriptedServer, SyncFace, memory_settings

from prpc.app_client import OutgoingCall, Proceed, remote_function
from prpc.client.call import Call
from prpc.exceptions import CallCancelledError, CallError, ClientTimeOutError, EncodeError
from prpc.settings import Settings


@remote_function("add")
def add(a: int, b: int = 1) -> int:
    raise NotImplementedError


@remote_function("hold")
def hold(item: object) -> Any:
    raise NotImplementedError


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    made: Face = request.param()
    return made


@pytest.fixture
def server(settings: Settings) -> Iterator[ScriptedServer]:
    with ScriptedServer(settings) as running:
        yield running


@pytest.fixture
def quick() -> Iterator[ScriptedServer]:
    """A server in memory, for what brokers have no part in."""
    with ScriptedServer(memory_settings()) as running:
        yield running


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], object]], Future[object]]]:
    """Does something in another thread, while this one reads."""
    with ThreadPoolExecutor(1) as pool:
        done: list[Future[object]] = []

        def act(work: Callable[[], object]) -> Future[object]:
            done.append(pool.submit(work))
            return done[-1]

        yield act
        for future in done:
            future.result()


class Source:
    """An endless input that knows how many of its items were consumed, and that no more are than there is room for."""

    def __init__(self, limit: int, handed: list[Any], items: Iterator[Any] | None = None) -> None:
        self.consumed = 0
        self._limit = limit
        self._handed = handed
        self._items = itertools.count() if items is None else items

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.consumed += 1
            assert self.consumed <= len(self._handed) + self._limit
            yield item


def item_of(server: ScriptedServer, item: object) -> Any:
    """The id of the call of this item."""
    return next(message.message_id for message in server.calls if message.func_args[0] == item)


def test_results_come_in_the_order_of_the_items(face: Face, server: ScriptedServer, beside: Any) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)

        def answer() -> None:
            server.until(lambda: len(server.calls) == 4)
            for item in (3, 1, 2, 0):
                server.answer(item_of(server, item), f"item {item}")

        beside(answer)
        results = await face.gathered(hold.options(client=client).map(range(4)))
        assert results == ["item 0", "item 1", "item 2", "item 3"]
        await face.close(client)

    face.run(scenario())


def test_results_come_as_they_are_there_when_order_does_not_matter(face: Face, server: ScriptedServer, beside: Any) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)

        def answer() -> None:
            server.until(lambda: len(server.calls) == 4)
            server.answer(item_of(server, 3), 3)

        beside(answer)
        results = await face.start(hold.options(client=client).map(range(4), ordered=False))
        seen = [await face.step(results)]
        for item in (1, 2, 0):
            server.answer(item_of(server, item), item)
            seen.append(await face.step(results))
        assert seen == [3, 1, 2, 0]
        assert [await face.step(results), await face.step(results)] == ["end", "end"]
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_is_consumed_as_there_is_room(face: Face, server: ScriptedServer, ordered: bool) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        seen: list[int] = []
        source = Source(7, seen)
        await face.read(add.options(client=client).map(source, max_in_flight=7, ordered=ordered), 100, seen)
        assert sorted(seen)[:90] == list(range(10, 100))
        assert source.consumed <= 107
        if ordered:
            assert seen == list(range(10, 110))
        await face.close(client)

    face.run(scenario())


def test_a_slow_first_call_holds_back_the_input_in_order(face: Face, server: ScriptedServer, beside: Any) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        seen: list[Any] = []
        source = Source(5, seen, iter(range(8)))

        def answer() -> None:
            for sent, items in ((5, (4, 2, 3, 1)), (5, (0,)), (8, (7, 6, 5))):
                server.until(lambda sent=sent: len(server.calls) == sent)  # type: ignore[misc]
                assert source.consumed == sent
                for item in items:
                    server.answer(item_of(server, item), item)

        beside(answer)
        await face.read(hold.options(client=client).map(source, max_in_flight=5), 8, seen)
        assert seen == list(range(8))
        await face.close(client)

    face.run(scenario())


def test_the_first_failure_ends_it_without_waiting_for_earlier_items(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        seen: list[Any] = []
        source = Source(4, seen, itertools.chain([0, "hold", "boom"], itertools.count(3)))
        with pytest.raises(KeyError):
            await face.read(client.map("play", source, max_in_flight=4), 9, seen)
        assert seen in ([], [0])  # the failure may be here first
        await face.until(server, lambda: item_of(server, "hold") in server.cancelled)
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("ordered", [True, False])
def test_failures_can_stand_among_the_results(face: Face, server: ScriptedServer, ordered: bool) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        items = [0, "boom", object(), 3, "boom", 5]
        mapped = client.map("play", items, max_in_flight=2, ordered=ordered, return_exceptions=True)
        results = await face.gathered(mapped)
        kinds = [result if isinstance(result, int) else type(result) for result in results]
        if ordered:
            assert kinds == [0, type(results[1]), EncodeError, 3, type(results[1]), 5]
        assert {0, 3, 5, EncodeError} < set(kinds)
        assert sum(isinstance(result, KeyError) for result in results) == 2
        await face.close(client)

    face.run(scenario())


def test_an_item_that_cannot_be_sent_is_a_failure_in_its_place(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        assert await face.result(client.call("add", 1)) == 11
        source = Source(9, [], itertools.chain([0, object()], itertools.count(2)))
        with pytest.raises(EncodeError):
            await face.gathered(client.map("play", source, max_in_flight=9))
        assert source.consumed == 2
        await face.close(client)

    face.run(scenario())


def test_leaving_the_loop_cancels_what_is_in_flight(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        seen: list[Any] = []
        source = Source(4, seen, itertools.chain(["hold"] * 3, itertools.count()))
        mapped = client.map("play", source, max_in_flight=4, ordered=False)
        await face.read(mapped, 1, seen)
        assert seen == [0]
        await face.until(server, lambda: len(server.cancelled) == 3)
        assert mapped.cancel() == 0
        await face.close(client)

    face.run(scenario())


def test_an_error_of_the_loops_body_cancels_too(face: Face, server: ScriptedServer) -> None:
    class Broken(list[Any]):
        def append(self, _: object) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        client = face.client(server.settings)
        with pytest.raises(ZeroDivisionError):
            await face.read(client.map("play", ["hold", "hold", 1], ordered=False), 1, Broken())
        await face.until(server, lambda: len(server.cancelled) == 2)
        await face.close(client)

    face.run(scenario())


def test_the_timeout_bounds_the_whole_loop(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        items = ["hold", 1, "hold", 3]
        assert await face.gathered(client.map("play", [1], timeout=5 * PATIENCE), None) == [1]
        for mapped, seconds in ((client.map("play", items, timeout=0.5), None), (client.map("play", items), 0.5)):
            with pytest.raises(ClientTimeOutError, match=r"the map of play\(\) did not end within 0.5 s: 0 results") as caught:
                await face.gathered(mapped, seconds)
            assert caught.value.timeout == 0.5

        def held() -> set[Any]:
            return {message.message_id for message in server.calls if message.func_args[0] == "hold"}

        # On a busy machine the others may not have been answered by then, and are cancelled, too.
        await face.until(server, lambda: len(held()) == 4 and held() <= set(server.cancelled))
        await face.close(client)

    face.run(scenario())


def test_the_timeout_ends_an_input_that_never_ends(face: Face, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        with pytest.raises(ClientTimeOutError):
            await face.gathered(add.options(client=client).map(itertools.count(), timeout=0.1))
        with pytest.raises(ClientTimeOutError, match="within 0 s: 0 results were handed out, 0 calls"):
            await face.gathered(add.options(client=client).map(itertools.count()), 0)
        await face.close(client)

    face.run(scenario())


def test_an_error_of_the_input_is_raised_and_what_is_in_flight_is_cancelled(face: Face, server: ScriptedServer) -> None:
    def broken() -> Iterator[Any]:
        yield from ["hold", "hold"]
        raise ZeroDivisionError

    async def scenario() -> None:
        client = face.client(server.settings)
        with pytest.raises(ZeroDivisionError):
            await face.gathered(client.map("play", broken()))
        assert await face.result(client.call("add", 1)) == 11
        await face.until(server, lambda: all(message.message_id in server.cancelled for message in server.calls[:-1]))
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_of_the_input_comes_after_all_results_where_failures_are_collected(
    face: Face, quick: ScriptedServer, ordered: bool
) -> None:
    def broken() -> Iterator[Any]:
        yield from [0, "boom", 2]
        raise ZeroDivisionError

    async def scenario() -> None:
        client = face.client(quick.settings)
        seen: list[Any] = []
        with pytest.raises(ZeroDivisionError):
            await face.read(client.map("play", broken(), ordered=ordered, return_exceptions=True), 9, seen)
        assert sorted(result for result in seen if isinstance(result, int)) == [0, 2]
        assert [type(result) for result in seen if not isinstance(result, int)] == [type(seen[seen.index(0) + 1])] or not ordered
        assert len(seen) == 3
        await face.close(client)

    face.run(scenario())


def test_middleware_sees_no_more_calls_at_once(face: Face, quick: ScriptedServer) -> None:
    running: set[object] = set()
    most: list[int] = []

    async def layer(call: OutgoingCall, proceed: Proceed) -> Any:
        running.add(call.message_id)
        most.append(len(running))
        try:
            return await proceed(call)
        finally:
            running.remove(call.message_id)

    async def scenario() -> None:
        client = face.client(quick.settings, middleware=[layer])
        assert await face.gathered(client.map("play", range(50), max_in_flight=4)) == list(range(50))
        with pytest.raises(KeyError):
            await face.gathered(client.map("play", ["hold", "boom"]))
        await face.until(quick, lambda: item_of(quick, "hold") in quick.cancelled)
        assert max(most) <= 4
        await face.close(client)
        assert not running

    face.run(scenario())


def test_it_is_read_once(face: Face, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        mapped = add.options(client=client).map([1, 2], [3, 4])
        assert await face.gathered(mapped) == [4, 6]
        with pytest.raises(RuntimeError, match="read once"):
            await face.start(mapped)
        with pytest.raises(RuntimeError, match="read once"):
            await face.gathered(mapped)
        await face.close(client)

    face.run(scenario())


def test_nothing_is_sent_before_it_is_read(face: Face, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        stub = add.options(client=client)
        source = Source(1, [])
        mapped = stub.map(source)
        await face.start(stub.map(source))
        assert await face.result(client.call("add", 1)) == 11
        assert (source.consumed, len(quick.calls)) == (0, 1)
        assert mapped.cancel() == 0
        with pytest.raises(CallCancelledError, match=r"map of add\(\) was cancelled"):
            await face.gathered(mapped)
        await face.close(client)

    face.run(scenario())


def test_cancelling_from_another_thread_wakes_the_reader(face: Face, server: ScriptedServer, beside: Any) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        mapped = client.map("play", itertools.repeat("hold"), max_in_flight=3, return_exceptions=True)

        def cancel() -> None:
            server.until(lambda: len(server.calls) == 3)
            assert mapped.cancel() == 3

        beside(cancel)
        with pytest.raises(CallCancelledError):
            await face.gathered(mapped)
        await face.until(server, lambda: len(server.cancelled) == 3)
        await face.close(client)

    face.run(scenario())


def test_closing_the_client_ends_it(face: Face, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        results = await face.start(client.map("play", ["hold", "hold", 1], ordered=False))
        assert await face.step(results) == 1
        await face.close(client)
        with pytest.raises(CallError, match="closed before"):
            await face.step(results)
        await face.close(client)

    face.run(scenario())


def test_one_map_can_feed_another(face: Face, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        stub = add.options(client=client)
        seen: list[Any] = []
        await face.read(stub.map(stub.map(itertools.count(), max_in_flight=3), max_in_flight=3), 50, seen)
        assert seen == list(range(20, 70))
        await face.close(client)

    face.run(scenario())


def test_the_input_is_let_go(face: Face, quick: ScriptedServer) -> None:
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    async def scenario() -> None:
        client = face.client(quick.settings)
        mapped = add.options(client=client).map(source())
        await face.read(mapped, 3, [])
        gc.collect()
        assert closed == [True]
        kept = source()
        await face.read(add.options(client=client).map(kept), 3, [])
        assert next(kept) > 2
        kept.close()
        await face.close(client)

    face.run(scenario())


class Counted(list[Any]):
    """Checks the results and forgets them, and looks now and then how many calls the whole process holds."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.most = 0

    def append(self, result: object) -> None:
        assert result == self.seen + 10
        self.seen += 1
        if self.seen % 5_000 == 0:
            self.most = max(self.most, sum(type(thing) is Call for thing in gc.get_objects()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("face", "items"), [(SyncFace(), 100_000), (AsyncFace(), 20_000)], ids=["sync", "async"])
def test_a_hundred_thousand_items_need_a_bounded_number_of_calls(face: Face, items: int, quick: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(quick.settings)
        gc.collect()
        results = Counted()
        await face.read(add.options(client=client).map(range(items)), -1, results)
        assert results.seen == items
        assert results.most < 1000
        await face.close(client)

    face.run(scenario())


def test_reading_in_plain_code_inside_a_loop_says_what_to_do(quick: ScriptedServer) -> None:
    async def scenario() -> None:
        async with AsyncFace().client(quick.settings) as client:
            with pytest.raises(RuntimeError, match="use `async for`"):
                client.map("add", [1]).result()

    asyncio.run(scenario())


async def numbers(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


def test_async_inputs_are_read_in_coroutines(server: ScriptedServer) -> None:
    async def scenario() -> None:
        async with AsyncFace().client(server.settings) as client:
            assert await client.map("add", numbers(1, 2, 3), itertools.count(1)) == [2, 4, 6]
            assert await client.map("add", range(2), numbers(5, 6, 7), max_in_flight=1) == [5, 7]
            assert await client.map("add", numbers()) == []

    asyncio.run(scenario())


def test_async_inputs_in_plain_code_are_type_errors(quick: ScriptedServer) -> None:
    with SyncFace().client(quick.settings) as client:
        for read in (iter, lambda mapped: mapped.result()):
            with pytest.raises(TypeError, match=r"async iterable has to be awaited.*`async for`"):
                read(client.map("add", [1], numbers(1)))


def test_results_do_not_wait_for_the_next_item(server: ScriptedServer) -> None:
    async def scenario() -> None:
        handed: asyncio.Queue[int] = asyncio.Queue()

        async def source() -> AsyncIterator[int]:
            for item in range(5):
                yield item
                assert await handed.get() == item + 10

        async with AsyncFace().client(server.settings) as client:
            async for result in client.map("add", source()):
                handed.put_nowait(result)
            assert result == 14

    asyncio.run(scenario())


def test_async_inputs_are_consumed_as_there_is_room(server: ScriptedServer) -> None:
    async def scenario() -> None:
        seen: list[Any] = []
        source = Source(5, seen)

        async def endless() -> AsyncIterator[int]:
            for item in source:
                yield item

        async with AsyncFace().client(server.settings) as client:
            await AsyncFace().read(client.map("add", endless(), max_in_flight=5), 50, seen)
            assert seen == list(range(10, 60))

    asyncio.run(scenario())


def test_errors_of_async_inputs_are_raised(quick: ScriptedServer) -> None:
    async def broken() -> AsyncIterator[Any]:
        yield 0
        raise ZeroDivisionError

    async def given_up() -> AsyncIterator[Any]:
        yield 0
        raise asyncio.CancelledError

    async def scenario() -> None:
        async with AsyncFace().client(quick.settings) as client:
            seen: list[Any] = []
            with pytest.raises(ZeroDivisionError):
                await client.map("play", broken())
            with pytest.raises(ZeroDivisionError):
                await AsyncFace().read(client.map("play", broken(), return_exceptions=True), 9, seen)
            assert seen == [0]
            with pytest.raises(asyncio.CancelledError):
                await client.map("play", given_up())
            with pytest.raises(EncodeError):
                await client.map("play", numbers(object()))

    asyncio.run(scenario())


def test_a_cancelled_reader_cancels_what_is_in_flight_and_its_input(server: ScriptedServer) -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def source() -> AsyncIterator[Any]:
            try:
                yield "hold"
                yield "hold"
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with AsyncFace().client(server.settings) as client:
            task = asyncio.ensure_future(client.map("play", source()).async_result())
            await asyncio.to_thread(server.until, lambda: len(server.calls) == 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ended.wait()
            await asyncio.to_thread(server.until, lambda: len(server.cancelled) == 2)

    asyncio.run(scenario())


def test_the_end_of_a_block_cancels_what_is_in_flight(server: ScriptedServer) -> None:
    ended: list[bool] = []

    async def source() -> AsyncIterator[Any]:
        try:
            for item in itertools.chain(["hold", "hold"], itertools.count()):
                yield item
        finally:
            ended.append(True)

    async def scenario() -> None:
        async with AsyncFace().client(server.settings) as client:
            async with client.map("play", source(), ordered=False, max_in_flight=3) as mapped:
                results = aiter(mapped)
                assert [await anext(results), await anext(results)] == [0, 1]
            with pytest.raises(CallCancelledError):
                await anext(results)
            await asyncio.to_thread(server.until, lambda: len(server.cancelled) == 2)
        del results, mapped

    asyncio.run(scenario())
    with SyncFace().client(server.settings) as client:
        with client.map("play", itertools.chain(["hold", "hold"], [5]), ordered=False) as mapped:
            results = iter(mapped)
            assert next(results) == 5
        with pytest.raises(CallCancelledError):
            next(results)
        server.until(lambda: len(server.cancelled) == 4)
        mapped.close()


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ([], {}, "at least one iterable"),
        ([3], {}, "int is none"),
        ([[]], {"max_in_flight": 0}, "max_in_flight=0 cannot be used"),
        ([[]], {"max_in_flight": True}, "whole number"),
        ([[]], {"max_in_flight": 1.5}, "whole number"),
        ([[]], {"timeout": float("nan")}, "not a number"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(arguments: list[Any], options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        add.map(*arguments, **options)
