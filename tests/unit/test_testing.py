"""The test kit: a server in memory and a clock moved by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prpc.app_client import remote_function
from prpc.app_server import AppServer
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


def test_what_the_test_raises_passes_through() -> None:
    with pytest.raises(KeyError), running(make_app()):
        raise KeyError


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
