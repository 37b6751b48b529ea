"""Eager calls: at once, in the calling thread, with what a real server would answer."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

import prpc
from prpc.app_client import Client, remote_function
from prpc.app_server import AppServer
from prpc.client.channel import default_channel
from prpc.server.middleware import IncomingCall, Proceed
from prpc.testing import EagerClient, ManualClock, eager, running

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@dataclass
class Order:
    item: str
    count: int = 1


class ShopError(Exception):
    pass


class Rude(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


def double(number: int) -> int:
    return 2 * number


def make_app(**settings: Any) -> AppServer:
    app = AppServer("redis", "redis://nobody.invalid:1/0", **settings)
    app.register_func(double, "process")

    @app.function
    def price(order: Order, each: float = 2.5) -> float:
        if order.count < 1:
            raise ValueError("count must be 1 or more")
        return each * order.count

    @app.function
    def order(item: str) -> Order:
        return Order(item)

    @app.function
    def fail(how: str) -> object:
        if how == "own":
            raise ShopError("closed") from KeyError("key")
        if how == "exit":
            sys.exit(3)
        if how == "rude":
            raise Rude
        return object()

    @app.function("async")
    async def shout(text: str) -> str:
        await asyncio.sleep(0)
        if not text:
            raise ValueError("nothing to shout")
        return text.upper()

    @app.function("async")
    async def give_up() -> None:
        raise asyncio.CancelledError

    @app.function
    def where() -> list[Any]:
        call = prpc.current_call()
        return [call.function, dict(call.headers), call.attempt, call.remaining() is None, threading.current_thread().name]

    return app


@pytest.fixture
def client() -> Iterator[EagerClient]:
    with eager(make_app()) as client:
        yield client


CALLS: list[tuple[Any, ...]] = [
    ("price", Order("tea", 2)),
    ("price", {"item": "tea"}, 3),
    ("price", Order("tea", 0)),
    ("price", 7),
    ("price",),
    ("price", Order("tea"), 1.0, 1),
    ("order", "tea"),
    ("double", 4),
    ("double", "four"),
    ("shout", "hey"),
    ("shout", ""),
    ("give_up",),
    ("fail", "own"),
    ("fail", "exit"),
    ("fail", "rude"),
    ("fail", "object"),
    ("pricee", 1),
    ("ping",),
    ("ping", 1),
    ("get_function_server",),
]


def outcome_of(client: Client, call: tuple[Any, ...]) -> tuple[object, ...]:
    """What a caller can see of it."""
    try:
        return ("value", client.call(*call).result(30))
    except BaseException as exc:
        facts = {
            name: getattr(exc, name, None) for name in ("function", "parameter", "nearest", "path", "type_name", "traceback")
        }
        return type(exc).__name__, type(exc).__mro__[1:], str(exc), exc.args, facts, type(exc.__cause__).__name__


def test_the_outcomes_are_those_of_a_real_server() -> None:
    app = make_app()
    with running(app) as served:
        expected = [outcome_of(served, call) for call in CALLS]
    with eager(app) as client:
        assert [outcome_of(client, call) for call in CALLS] == expected
    assert {outcome[0] for outcome in expected} >= {"value", "BadArgumentsError", "FunctionNotFoundError", "EncodeError"}


def test_tasks_are_done_when_they_are_made(client: EagerClient) -> None:
    task = client.call("price", Order("tea", 2))
    assert task.is_done_task() and task.is_done_task(update_status=True)
    assert task.get_result() == 5.0 == task.result(0)
    assert not task.cancel()
    assert task.message.result == 5.0 and task.time_execution is not None
    assert prpc.gather(task, client.call("shout", "x")).result() == [5.0, "X"]
    assert [done.get_result() for done in prpc.as_completed([task])] == [5.0]
    with pytest.raises(prpc.EncodeError, match="no form is known"):
        client.call("price", object())


def test_remote_errors_keep_their_class_and_traceback(client: EagerClient) -> None:
    with pytest.raises(prpc.RemoteError, match="closed") as caught:
        client.call("fail", "own").result()
    assert caught.value.type_name.endswith("ShopError")
    assert "in fail" in (caught.value.traceback or "") and "eager_loop" not in (caught.value.traceback or "")
    with pytest.raises(KeyError):
        raise caught.value.__cause__ or AssertionError


def test_it_runs_in_the_calling_thread_without_threads_and_loops() -> None:
    before, app = set(threading.enumerate()), make_app()

    @app.function
    def no_loop() -> bool:
        assert not set(threading.enumerate()) - before
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return threading.current_thread() is threading.main_thread()

    with eager(app) as client:
        assert client.call("no_loop").result() is True
        assert client.call("shout", "x").result() == "X"
        assert client.ping() == "pong"
        assert [server.info["draining"] for server in client.servers()] == [False]
        assert not set(threading.enumerate()) - before


def test_the_current_call_is_there(client: EagerClient) -> None:
    name = threading.current_thread().name
    assert client.options(headers={"user": "jo"}).call("where").result() == ["where", {"user": "jo"}, 1, True, name]
    assert client.options(timeout=5).call("where").result()[3] is False
    with pytest.raises(LookupError):
        prpc.current_call()


def test_a_function_sees_nothing_of_its_callers_context(client: EagerClient) -> None:
    app = make_app()

    @app.function
    def colour() -> str:
        seen = COLOUR.get()
        COLOUR.set("blue")
        return seen

    COLOUR.set("red")
    with eager(app) as client:
        assert client.call("colour").result() == "none"
    assert COLOUR.get() == "red"


def test_arguments_and_results_are_copies() -> None:
    app, kept = AppServer("memory"), [1]

    @app.function
    def keep(items: list[int]) -> list[int]:
        items.append(2)
        return kept

    with eager(app) as client:
        mine = [0]
        got = client.call("keep", mine).result()
        got.append(9)
    assert (mine, kept) == ([0], [1])


def test_stubs_go_there_and_convert() -> None:
    @remote_function("order")
    def order(item: str) -> Order:
        raise NotImplementedError

    former = Client("memory", "memory://former")
    prpc.use_client(former)
    try:
        with eager(make_app(), use=True) as client:
            assert order("tea").result() == Order("tea")
            assert order.options(client=client)("milk").result() == Order("milk")
        assert default_channel() is former.channel
    finally:
        prpc.use_client(None)


def test_a_stale_stub_is_told_apart() -> None:
    @remote_function("order", schema="0123456789abcdef")
    def order(item: str, count: int) -> Order:
        raise NotImplementedError

    with eager(make_app(), use=True), pytest.raises(prpc.StaleStubError):
        order("tea", 1).result()


def test_coroutines_may_use_it() -> None:
    async def scenario() -> list[Any]:
        here = threading.current_thread()
        with eager(make_app()) as client:
            assert await client.call("where") == ["where", {}, 1, True, here.name]
            return [await client.call("shout", "x"), *await prpc.gather(client.call("price", {"item": "x"}))]

    assert asyncio.run(scenario()) == ["X", 2.5]


def test_functions_call_functions() -> None:
    app = make_app()

    @app.function("async")
    async def outer(depth: int) -> str:
        return str(await client.call("outer" if depth else "shout", *([depth - 1] if depth else ["x"])))

    @app.function
    def plain(text: str) -> str:
        return str(client.call("outer", 0).result()) + text

    with eager(app) as client:
        assert client.call("outer", 2).result() == "X"
        assert client.call("plain", "y").result() == "Xy"


def test_async_functions_share_a_loop_within_the_block() -> None:
    app, loops = AppServer("memory"), []

    @app.function("async")
    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    with eager(app) as client:
        for _ in range(2):
            client.call("note").result()
    assert loops[0] is loops[1] and loops[0].is_closed()


def test_threads_may_use_it() -> None:
    ready, go_on, found = threading.Event(), threading.Event(), []
    app = make_app()

    @app.function("async")
    async def hold() -> str:
        ready.set()
        assert go_on.wait(30)
        return "held"

    with eager(app) as client:
        other = threading.Thread(target=lambda: found.append(client.call("hold").result()))
        other.start()
        assert ready.wait(30)
        assert client.call("shout", "x").result() == "X"  # although the loop of the block is taken
        go_on.set()
        other.join()
    assert found == ["held"]


class Doorman:
    """Middleware that needs a loop, refuses, changes and repeats."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, call: IncomingCall, proceed: Proceed) -> Any:
        await asyncio.sleep(0)
        self.seen.append(call.function)
        if call.context.headers.get("token") == "wrong":
            raise PermissionError("who are you?")
        if call.function == "shout":
            return await proceed(replace(call, args=[call.args[0] + "!"]))
        try:
            return await proceed(call)
        except ValueError:
            return await proceed(replace(call, args=[Order("tea", 3)]))


def test_middleware_surrounds_every_call() -> None:
    doorman = Doorman()
    app, thread = make_app(middleware=[doorman]), threading.current_thread().name

    @app.function
    def own_loop() -> int:
        async def one() -> int:
            return 1

        return asyncio.run(one())  # as it may in a worker thread

    with running(app) as client:
        expected = [outcome_of(client, call) for call in CALLS]
    with eager(app) as client:
        assert [outcome_of(client, call) for call in CALLS] == expected
        assert client.call("shout", "hey").result() == "HEY!"
        assert client.call("price", Order("tea", -1)).result() == 7.5
        assert client.call("where").result()[4] == thread
        assert client.call("own_loop").result() == 1
        with pytest.raises(PermissionError, match="who are you"):
            client.options(headers={"token": "wrong"}).call("price", Order("tea")).result()

        async def scenario() -> Any:
            return await client.call("shout", "a"), await client.call("price", Order("x"))

        assert asyncio.run(scenario()) == ("A!", 2.5)
    assert doorman.seen[-1] == "price"


def test_middleware_sets_what_the_function_sees() -> None:
    async def paint(call: IncomingCall, proceed: Proceed) -> Any:
        COLOUR.set("green")
        return await proceed(call)

    app = AppServer("memory", middleware=[paint])

    @app.function
    def colour() -> str:
        return COLOUR.get()

    with eager(app) as client:
        assert client.call("colour").result() == "green"


def test_the_lifespan_surrounds_the_block() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: AppServer) -> AsyncIterator[None]:
        seen.append(asyncio.get_running_loop())

        @app.function("async")
        async def late() -> bool:
            return asyncio.get_running_loop() is seen[0]

        async with asyncio.timeout(60):  # whoever enters it must be the one that leaves it
            yield
        seen.append("left")

    app = make_app(lifespan=lifespan)
    with eager(app) as client:
        assert client.call("late").result() is True
    assert seen[1:] == ["left"]

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match=r"use `async with running\(app\)`"), eager(app):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["entering", "leaving"])
def test_what_the_lifespan_raises_comes_out(when: str) -> None:
    @asynccontextmanager
    async def lifespan(_: AppServer) -> AsyncIterator[None]:
        if when == "entering":
            raise OSError("no database")
        yield
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"), eager(make_app(lifespan=lifespan)) as client:
        assert client.ping() == "pong"


def test_a_deadline_that_is_over_counts() -> None:
    app, clock = make_app(), ManualClock()

    @app.function
    def slow() -> list[float | None]:
        before = prpc.current_call().remaining()
        clock.advance(501)
        left = prpc.current_call().remaining()
        with pytest.raises(prpc.ClientTimeOutError, match="was over before the call") as caught:
            client.call("shout", "x").result()
        assert caught.value.sent is False
        return [before, left]

    with eager(app, clock=clock) as client:
        task = client.options(timeout=500).call("slow")
        before, left = task.result()
        assert before > 400 and left == 0
        assert task.message.date_done_message == datetime(2024, 1, 1, 0, 8, 21, tzinfo=UTC)


def test_a_server_is_there_for_those_who_require_one(client: EagerClient) -> None:
    sure = client.options(require_server=True)
    assert sure.call("shout", "x").result() == "X"
    with pytest.raises(prpc.FunctionNotFoundError):
        sure.call("nothing").result()


def test_limits_of_the_server_hold() -> None:
    with eager(make_app(max_message_bytes=1024)) as client:
        with pytest.raises(prpc.DecodeError):
            client.call("shout", "x" * 2000).result()
        assert client.call("shout", "x").result() == "X"


def test_a_validator_that_fails_in_its_own_way() -> None:
    class Odd:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            from pydantic_core import core_schema

            def refuse(value: Any) -> Any:
                raise OSError("no disk")

            return core_schema.no_info_plain_validator_function(refuse)

    app = AppServer("memory")

    @app.function
    def odd(value: Odd) -> None: ...

    odd.__annotations__["value"] = Odd
    with running(app) as client:
        expected = outcome_of(client, ("odd", 1))
    with eager(app) as client:
        assert outcome_of(client, ("odd", 1)) == expected


def test_ctrl_c_is_the_developers() -> None:
    app = AppServer("memory")

    @app.function
    def stop() -> None:
        raise KeyboardInterrupt

    @app.function("async")
    async def stop_loop() -> None:
        raise KeyboardInterrupt

    with eager(app) as client:
        for name in ("stop", "stop_loop"):
            with pytest.raises(KeyboardInterrupt):
                client.call(name)


def test_streams_are_refused() -> None:
    app = AppServer("memory")

    @app.function()
    def numbers() -> Iterator[int]:
        yield 1

    with eager(app) as client:
        with pytest.raises(NotImplementedError, match=r"use running\(app\)"):
            client.stream("numbers")
        with pytest.raises(prpc.BadArgumentsError, match="streams its items"):
            client.call("numbers").get_result()


def test_an_argument_that_is_a_stream_is_run_through_first() -> None:
    app = AppServer("memory")

    @app.function()
    def total(numbers: Iterator[int]) -> int:
        return sum(numbers)

    with eager(app) as client:
        assert client.call("total", iter([1, 2, 3])).get_result() == 6
        assert client.call("total", range(4)).get_result() == 6


@pytest.mark.parametrize("worker", ["thread", "async"])
def test_the_last_word_of_progress_is_there(worker: str) -> None:
    app = AppServer("memory")

    def plain() -> None:
        for done in range(3):
            prpc.current_call().progress(done, 2)

    async def coroutine() -> None:
        plain()

    app.register_func(plain if worker == "thread" else coroutine, worker, name="work")
    with eager(app) as client:
        task, heard = client.call("work"), []
        task.on_progress(heard.append)
        assert [(said.done, said.total) for said in heard] == [(2, 2)]
        assert task.progress == heard[0]


def test_a_broadcast_function_runs_here_and_gives_nothing() -> None:
    app, heard = AppServer("memory"), []

    def hear(word: str):  # type: ignore[no-untyped-def]
        heard.append(word)
        if word == "bad":
            raise ValueError(word)
        return len(word)

    app.register_func(hear, "thread", broadcast=True)
    with eager(app) as client:
        assert client.call("hear", "good").get_result() is None
        with pytest.raises(ValueError, match="bad"):
            client.call("hear", "bad").get_result()
    assert heard == ["good", "bad"]


def test_the_block_ends() -> None:
    block = eager(make_app())
    with block as client:
        with pytest.raises(RuntimeError, match="entered already"), block:
            pass
        client.close()
        assert client.call("shout", "x").result() == "X"
    with pytest.raises(RuntimeError, match="has ended"):
        client.call("shout", "x")
    with block as client:
        assert client.call("shout", "x").result() == "X"
