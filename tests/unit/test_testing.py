"""The test kit: a server in memory, for plain code and for coroutines, and a clock moved by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import prpc
from prpc.app_client import AsyncClient, Client, remote_function
from prpc.app_server import AppServer
from prpc.client.channel import default_channel
from prpc.deadline import Deadline
from prpc.testing import ManualClock, running


def make_app(**settings: Any) -> AppServer:
    app = AppServer("redis", "redis://nobody.invalid:1/0", **settings)

    @app.function()
    def summ(a: int | float, b: float, z: float = 0.5) -> float:
        return a + b + z

    @app.function("async")
    async def shout(text: str) -> str:
        if not text:
            raise ValueError("nothing to shout")
        return text.upper()

    return app


def test_a_server_in_memory_whatever_broker_it_names() -> None:
    app = make_app()
    before = app.settings
    with running(app) as client:
        assert client.call("summ", 1, 2).result() == 3.5
        assert client.ping() == "pong"
        with pytest.raises(ValueError, match="nothing to shout"):
            client.call("shout", "").result()

        @remote_function("shout")
        def shout(text: str) -> str:
            raise NotImplementedError

        assert shout.options(client=client)("hey").result() == "HEY"
    assert app.settings == before


def test_coroutines_use_it_too() -> None:
    async def scenario() -> str:
        return str(await client.call("shout", "hey"))

    with running(make_app()) as client:
        assert asyncio.run(scenario()) == "HEY"


def test_several_at_once_and_one_after_another() -> None:
    app = make_app()
    with running(app) as first, running(make_app()) as second:
        assert first.call("summ", 1, 2).result() == second.call("summ", 1, 2).result()
    with running(app) as again:
        assert again.call("summ", 1, 2).result() == 3.5
    assert not [thread for thread in threading.enumerate() if thread.name == "prpc-testing-server"]


def test_a_server_that_cannot_start_raises_here() -> None:
    @asynccontextmanager
    async def lifespan(_: AppServer) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    with pytest.raises(OSError, match="no database"), running(make_app(lifespan=lifespan)):
        pass


def test_a_server_that_cannot_start_raises_in_a_coroutine_too() -> None:
    @asynccontextmanager
    async def lifespan(_: AppServer) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    async def scenario() -> None:
        app = make_app(lifespan=lifespan)
        for _ in range(2):  # the first failure is not taken for the second one's
            with pytest.raises(OSError, match="no database"):
                async with running(app):
                    pass

    asyncio.run(scenario())


def test_what_the_end_of_the_server_raises_comes_out() -> None:
    @asynccontextmanager
    async def lifespan(_: AppServer) -> AsyncIterator[None]:
        yield
        raise OSError("no database")

    async def scenario() -> None:
        async with running(make_app(lifespan=lifespan)) as client:
            assert await client.ping() == "pong"

    with pytest.raises(OSError, match="no database"), running(make_app(lifespan=lifespan)) as client:
        assert client.ping() == "pong"
    with pytest.raises(OSError, match="no database"):
        asyncio.run(scenario())


def test_a_server_that_ends_by_itself() -> None:
    app, clock = make_app(), ManualClock()

    @app.function("async")
    async def leave() -> None:
        app._service.request_stop(0)  # type: ignore[union-attr]

    with running(app, clock=clock) as client:
        (server,) = [thread for thread in threading.enumerate() if thread.name == "prpc-testing-server"]
        client.call("leave")
        server.join(60)
        clock.advance(1)


def test_an_app_serves_one_block_at_a_time() -> None:
    app = make_app()
    with running(app) as client:
        with pytest.raises(RuntimeError, match="serving already"), running(app):
            pass
        assert client.call("summ", 1, 2).result() == 3.5
    block = running(app)
    with block as client, pytest.raises(RuntimeError, match="entered already"), block:
        pass
    with block as client:
        assert client.call("summ", 1, 2).result() == 3.5


def test_what_the_test_raises_passes_through() -> None:
    with pytest.raises(KeyError), running(make_app()):
        raise KeyError

    async def scenario() -> None:
        async with running(make_app()):
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(scenario())


def test_a_coroutine_serves_in_its_own_loop() -> None:
    entered: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def lifespan(_: AppServer) -> AsyncIterator[None]:
        entered.append(asyncio.get_running_loop())
        yield
        entered.clear()

    app = make_app(lifespan=lifespan)

    @app.function("async")
    async def loop_is_the_same() -> bool:
        return asyncio.get_running_loop() is entered[0]

    async def scenario() -> None:
        async with running(app) as client:
            assert isinstance(client, AsyncClient)
            assert entered == [asyncio.get_running_loop()]
            assert not [thread for thread in threading.enumerate() if thread.name == "prpc-testing-server"]
            assert await client.call("loop_is_the_same")
            assert await client.call("summ", 1, 2) == 3.5
            assert await client.ping() == "pong"
            with pytest.raises(ValueError, match="nothing to shout"):
                await client.call("shout", "")
            with pytest.raises(prpc.BadArgumentsError):
                await client.call("shout")
        assert not entered

    asyncio.run(scenario())


def test_calls_that_name_no_client_come_here_for_a_while() -> None:
    former = Client("memory", "memory://former")
    prpc.use_client(former)
    try:
        with running(make_app(), use=True) as client:
            assert default_channel() is client.channel
            assert prpc.AwaitableTask("summ", [1, 2]).result() == 3.5
            with running(make_app(), use=True) as inner:
                assert default_channel() is inner.channel
            with pytest.raises(KeyError), running(make_app(), use=True):
                raise KeyError
            assert default_channel() is client.channel
        assert default_channel() is former.channel
        with running(make_app()):
            assert default_channel() is former.channel
    finally:
        prpc.use_client(None)


def test_coroutines_send_calls_that_name_no_client_here_too() -> None:
    async def scenario() -> str:
        async with running(make_app(), use=True):
            return str(await prpc.AwaitableTask("shout", ["hey"]))

    assert asyncio.run(scenario()) == "HEY"


def test_another_broker_needs_its_address() -> None:
    with pytest.raises(prpc.ConfigurationError, match=r"url="):
        running(make_app(), "redis")


def test_a_clock_that_is_moved_by_hand() -> None:
    clock = ManualClock(datetime(2024, 1, 1, tzinfo=UTC))
    deadline = Deadline.after(clock, 10)
    clock.advance(9.5)
    assert deadline.remaining(clock) == 0.5
    clock.advance(0.5)
    assert deadline.expired(clock)
    assert clock.now() == datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=10)
    with pytest.raises(ValueError, match="back by 1 s"):
        clock.advance(-1)
