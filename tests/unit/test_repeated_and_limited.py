"""Calls that are run again, given up or held back, through `AppServer`."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers import create_broker
from prpc.brokers.base import Broker, DeadLetter
from prpc.call_context import current_call
from prpc.exceptions import CallCancelledError, RegistrationError, WorkerLostError
from prpc.server import line as line_module
from prpc.server.middleware import IncomingCall, Proceed

QUEUE = "limited"


def in_loop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def make_app(worker: str = "async", slots: int = 4, **settings: Any) -> AppServer:
    return AppServer("memory", f"memory://{uuid.uuid4().hex}", worker, slots, name_queue=QUEUE, **settings)


@asynccontextmanager
async def serving(app: AppServer, grace: float = 20) -> AsyncIterator[tuple[AsyncClient, Broker]]:
    broker = create_broker(app.settings)
    server = asyncio.create_task(app.serve())
    await app.ready
    try:
        async with AsyncClient("memory", app.settings.url_broker, QUEUE) as client:
            yield client, broker
    finally:
        await app.stop(grace)
        await server
        await broker.close()


async def letters_of(broker: Broker) -> list[DeadLetter]:
    return [letter async for letter in broker.dead_letters(QUEUE).read()]


async def until(check: Callable[[], bool]) -> None:
    """A state that other tasks bring about."""
    while not check():
        await asyncio.sleep(0)


class Gate:
    """A function that runs until it is let go, and counts."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.most = 0
        self.order: list[int] = []

    async def __call__(self, number: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(number)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        return number


def die_until(path: str, times: int) -> int:
    """Kills its own process the first `times` times."""
    seen = Path(path)
    before = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (before + 1))
    if before < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_call().attempt


class TestLimits:
    def test_so_many_run_at_once_and_others_are_not_blocked(self) -> None:
        async def quick() -> str:
            return "quick"

        async def scenario() -> None:
            app, gate = make_app(), Gate()
            app.register_func(gate, name="gate", max_concurrency=2)
            app.function(quick)
            async with serving(app) as (client, broker):
                tasks = [client.call("gate", number) for number in range(20)]
                for _ in range(10):
                    assert await client.call("quick") == "quick"
                assert gate.running == 2
                gate.open.set()
                assert [await task for task in tasks] == list(range(20))
                assert gate.most == 2
                assert await letters_of(broker) == []

        in_loop(scenario)

    def test_more_than_a_server_holds_do_not_block_others_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_module, "SECONDS_IN_LINE", 0.01)
        monkeypatch.setattr(line_module, "MOST_WAITING", 5)

        async def quick() -> str:
            return "quick"

        async def scenario() -> None:
            app, gate = make_app(), Gate()
            app.register_func(gate, name="gate", max_concurrency=1)
            app.function(quick)
            async with serving(app) as (client, _):
                tasks = [client.call("gate", number) for number in range(50)]
                assert await client.call("quick") == "quick"
                assert gate.running == 1
                gate.open.set()
                assert sorted([await task for task in tasks]) == list(range(50))
                assert sorted(gate.order) == list(range(50))
                assert gate.most == 1

        in_loop(scenario)

    def test_the_limit_counts_calls_given_back_by_a_stopping_server(self) -> None:
        """A call that waits in line is not lost when its server stops: the next server runs it."""

        async def scenario() -> None:
            app, gate = make_app(), Gate()
            app.register_func(gate, name="gate", max_concurrency=1)
            other = AppServer("memory", app.settings.url_broker, "async", name_queue=QUEUE)
            second = Gate()
            second.open.set()
            other.register_func(second, name="gate", max_concurrency=1)
            async with serving(app) as (client, _):
                tasks = [client.call("gate", number) for number in range(3)]
                await until(lambda: gate.running == 1)
                stopping = asyncio.create_task(app.stop(20))
                async with serving(other):
                    assert [await task for task in tasks[1:]] == [1, 2]
                    assert (gate.order, second.order) == ([0], [1, 2])
                    gate.open.set()
                    assert await tasks[0] == 0
                await stopping

        in_loop(scenario)

    def test_a_cancelled_call_in_line_never_starts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_module, "SECONDS_IN_LINE", 0.01)

        async def scenario() -> None:
            app, gate = make_app(), Gate()
            app.register_func(gate, name="gate", max_concurrency=1)
            async with serving(app) as (client, _):
                first, second, third = (client.call("gate", number) for number in range(3))
                await until(lambda: gate.running == 1)
                second.cancel()
                with pytest.raises((CallCancelledError, asyncio.CancelledError)):
                    await second
                gate.open.set()
                assert [await first, await third] == [0, 2]
                assert gate.order == [0, 2]

        in_loop(scenario)

    def test_a_failing_function_gives_its_place_free(self) -> None:
        async def fail() -> None:
            raise KeyError("x")

        async def scenario() -> None:
            app = make_app()
            app.function(max_concurrency=1)(fail)
            async with serving(app) as (client, _):
                for task in [client.call("fail") for _ in range(10)]:
                    with pytest.raises(KeyError):
                        await task

        in_loop(scenario)

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
    def test_a_limit_that_cannot_be_used(self, limit: Any) -> None:
        with pytest.raises(RegistrationError, match=r"max_concurrency .* allowed is a whole number from 1 up"):
            make_app().register_func(Gate.__call__, name="gate", max_concurrency=limit)


class TestLostTooOften:
    def test_an_idempotent_call_whose_servers_are_lost_is_buried_and_answered(self) -> None:
        async def scenario() -> None:
            runs: list[int] = []

            async def work(x: int) -> None:
                runs.append(x)

            app = make_app(max_deliveries=2, redis_heartbeat=0.05, redis_recover=0.1)
            app.register_func(work, idempotent=True)
            broker = create_broker(app.settings)
            async with AsyncClient("memory", app.settings.url_broker, QUEUE) as client:
                task = client.call("work", 7)
                for name in ("first", "second"):  # both take it and are never heard of again
                    while not (taken := await broker.consume(QUEUE, consumer=name).take(1)):
                        pass
                    original = taken[0]
                    for part in broker._parts:
                        part._renewal.cancel()
                async with serving(app):
                    with pytest.raises(WorkerLostError, match="lost its server 2 times"):
                        await task
                (letter,) = await letters_of(broker)
                assert (letter.reason, letter.attempts, letter.body) == ("attempts", 3, original.body)
                assert dict(letter.fields)[b"reply_to"].decode() == original.facts["reply_to"]
                assert letter.details.startswith("prpc.exceptions.WorkerLostError: work() lost its server")
                assert runs == []
                assert await broker.dead_letters(QUEUE).requeue(letter.id)
                async with serving(app):
                    await until(lambda: runs == [7])
            await broker.close()

        in_loop(scenario)

    @pytest.mark.parametrize("seconds", [None, 0.0], ids=["", "no job waits behind another"])
    @pytest.mark.parametrize("layers", [0, 1], ids=["", "middleware"])
    def test_a_lost_worker_process_is_tried_again_with_idempotent_calls_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None, layers: int
    ) -> None:
        if seconds is not None:
            monkeypatch.setattr("prpc.workers.process.SECONDS_BEHIND", seconds)

        async def passes_on(call: IncomingCall, proceed: Proceed) -> Any:
            return await proceed(call)

        async def scenario() -> None:
            app = make_app("process", 1, max_deliveries=3, middleware=[passes_on] * layers)
            app.register_func(die_until, idempotent=True)
            app.register_func(die_until, name="once")
            async with serving(app) as (client, broker):
                assert await client.call("die_until", str(tmp_path / "a"), 2) == 3
                with pytest.raises(WorkerLostError):
                    await client.call("once", str(tmp_path / "b"), 1)
                assert (tmp_path / "b").read_text() == "x"
                assert await letters_of(broker) == []
                with pytest.raises(WorkerLostError) as caught:
                    await client.call("die_until", str(tmp_path / "c"), 9)
                assert caught.value.exit_code == -signal.SIGKILL
                assert (tmp_path / "c").read_text() == "xxx"
                (letter,) = await letters_of(broker)
                assert letter.reason == "attempts"
                assert "WorkerLostError" in letter.details

        in_loop(scenario)

    def test_the_same_error_raised_by_the_function_itself_is_its_outcome(self) -> None:
        async def scenario() -> None:
            runs: list[int] = []

            async def outer() -> None:
                runs.append(1)
                raise WorkerLostError("an inner call's server was lost")

            app = make_app()
            app.register_func(outer, idempotent=True)
            async with serving(app) as (client, broker):
                with pytest.raises(WorkerLostError):
                    await client.call("outer")
                assert runs == [1]
                assert await letters_of(broker) == []

        in_loop(scenario)
