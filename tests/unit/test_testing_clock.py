"""Deadlines by a clock that is moved by hand: nothing here waits for time to pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import prpc
from prpc.app_server import AppServer
from prpc.testing import ManualClock, running

KEY = "k" * 32


class Shop:
    """An app of one slot, and what its functions do."""

    def __init__(self, **settings: Any) -> None:
        self.app = AppServer("memory", max_number_worker=1, **settings)
        self.started, self.go_on = threading.Event(), threading.Event()
        self.sold: list[str] = []
        self.left: list[float | None] = []
        self.cancelled: list[bool] = []

        @self.app.function(timeout=500)
        def hold() -> str:
            call = prpc.current_call()
            self.started.set()
            self.go_on.wait(30)
            self.left.append(call.remaining())
            self.cancelled.append(call.cancelled)
            return "held"

        @self.app.function()
        def sell(item: str) -> str:
            self.sold.append(item)
            return item

        @self.app.function("async", timeout=40)
        async def wait() -> None:
            self.started.set()
            await asyncio.Event().wait()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.go_on.set()


def test_a_call_has_its_timeout_when_the_clock_says_so(shop: Shop) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock) as client:
        task = client.options(timeout=60).call("hold")
        clock.advance(59)
        assert not task.is_done_task()
        clock.advance(1)
        with pytest.raises(prpc.ClientTimeOutError, match="within its timeout of 60 s"):
            task.result()
        shop.go_on.set()


def test_a_server_does_not_look_at_a_clock_that_moves() -> None:
    """What it does around a move, it does after it: else a call whose age it knows would begin with a later deadline."""
    app, clock = AppServer("memory"), ManualClock()
    loops: list[asyncio.AbstractEventLoop] = []

    @app.function("async")
    async def here() -> None:
        loops.append(asyncio.get_running_loop())

    with running(app, clock=clock) as client:
        client.call("here").result(30)
        seen, looked = [], threading.Event()

        def look() -> None:
            seen.append(clock.monotonic())
            looked.set()

        with clock.watched(lambda _: loops[0].call_soon_threadsafe(look), lambda: None):
            clock.advance(7)
        assert looked.wait(30)
        assert seen == [7]


@pytest.mark.parametrize("moves", [(29,), (29, 0.5), (0.5,) * 10], ids=str)
def test_a_deadline_counts_from_the_call_also_where_the_clock_moves_before_it_is_sent(moves: tuple[float, ...]) -> None:
    """The first call of a client opens its connection, and is at the broker some time later."""
    for _ in range(10):
        app, clock, begun = AppServer("memory"), ManualClock(), threading.Event()
        deadlines = []

        @app.function("async")
        async def deliver(deadlines: Any = deadlines, clock: ManualClock = clock, begun: threading.Event = begun) -> None:
            deadlines.append(clock.monotonic() + (prpc.current_call().remaining() or 0))
            begun.set()

        with running(app, clock=clock) as client:
            task = client.options(timeout=30).call("deliver")
            for seconds in moves:
                clock.advance(seconds)
            assert begun.wait(30)
            task.result()
        assert deadlines == [pytest.approx(30, abs=0.5)]


def test_a_call_without_a_deadline_goes_on(shop: Shop) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock) as client:
        task = client.call("hold")
        assert shop.started.wait(30)
        clock.advance(400)
        shop.go_on.set()
        assert task.result(30) == "held"
    assert shop.left == [100]


def test_what_expired_in_the_queue_is_not_started(shop: Shop) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock) as client:
        blocking = client.call("hold")
        assert shop.started.wait(30)
        sold = client.options(timeout=60).call("sell", "tea")
        clock.advance(61)
        with pytest.raises(prpc.ClientTimeOutError):
            sold.result()
        shop.go_on.set()
        assert blocking.result(30) == "held"
        assert client.call("sell", "milk").result(30) == "milk"
    assert shop.sold == ["milk"]


@pytest.mark.parametrize("key", ["", KEY], ids=["unsigned", "signed"])
def test_the_server_says_so_to_a_client_of_another_clock(key: str) -> None:
    """Its own deadline is far away by its own clock."""
    shop, clock = Shop(secret_key=key), ManualClock()
    with running(shop.app, clock=clock) as client:
        blocking = client.call("hold")
        assert shop.started.wait(30)
        with prpc.Client("memory", shop.app.settings.url_broker, secret_key=key) as other:
            late, patient = other.options(timeout=400).call("sell", "tea"), other.call("sell", "milk")
            other.servers()  # what it sent before is at the broker then
            clock.advance(450)
            shop.go_on.set()
            with pytest.raises(prpc.DeadlineExceededError, match=r"sell\(\) was not started") as caught:
                late.result(30)
            assert (caught.value.queued, patient.result(30), blocking.result(30)) == (450, "milk", "held")
    assert shop.sold == ["milk"]


@pytest.mark.parametrize("function", ["hold", "wait"])
def test_a_function_has_its_limit_when_the_clock_says_so(shop: Shop, function: str) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock) as client:
        task = client.call(function)
        assert shop.started.wait(30)
        clock.advance(501)
        with pytest.raises(prpc.WorkerTimeoutError, match=function) as caught:
            task.result(30)
        assert caught.value.function == function
        shop.go_on.set()
        assert client.call("sell", "tea").result(30) == "tea"
    assert all(shop.cancelled)


def test_coroutines_use_it_too(shop: Shop) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with running(shop.app, clock=clock) as client:
            task, patient = (
                client.options(timeout=timedelta(minutes=1)).call("wait"),
                client.options(timeout=3600).call("sell", "x"),
            )
            clock.advance(60)
            with pytest.raises(prpc.ClientTimeOutError):
                await task
            assert await patient == "x"

    asyncio.run(scenario())


def test_a_call_that_is_repeated_has_its_deadline_too(shop: Shop) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock) as client:
        task = client.options(timeout=60, idempotent=True, retries=3).call("hold")
        assert shop.started.wait(30)
        clock.advance(61)
        with pytest.raises(prpc.ClientTimeOutError) as caught:
            task.result()
        assert caught.value.attempts == 1
        shop.go_on.set()


def test_the_clock_of_a_server_that_is_gone_moves_alone(shop: Shop) -> None:
    clock = ManualClock()
    with running(shop.app, clock=clock):
        pass
    clock.advance(10)
    assert clock.monotonic() == 10
    with running(shop.app) as client:
        task = client.options(timeout=60).call("sell", "tea")
        clock.advance(61)
        assert task.result(30) == "tea"
