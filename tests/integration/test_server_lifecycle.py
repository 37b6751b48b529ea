"""A server from its start to its end, in one event loop over the memory broker."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers.memory import MemoryBroker
from prpc.exceptions import BrokerUnavailableError, PRPCError, RegistrationError, ServerShutdownError
from prpc.server import presence, reloading


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def make_app(queue: str = "task_prpc", **settings: Any) -> AppServer:
    return AppServer("memory", f"memory://{uuid4().hex}", "async", name_queue=queue, **settings)


@asynccontextmanager
async def client_of(app: AppServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("memory", app.settings.url_broker, app.settings.queue_name) as client:
        yield client


async def echo(x: Any) -> Any:
    return x


class Gate:
    """A function that waits, and what it saw."""

    def __init__(self) -> None:
        self.started, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(self) -> str:
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


def test_stop_waits_for_calls_that_run_and_takes_no_more() -> None:
    async def scenario() -> None:
        gate, app = Gate(), make_app()
        app.register_func(gate.wait)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            call = client.call("wait")
            await gate.started.wait()
            stop = asyncio.create_task(app.stop())
            await asyncio.sleep(0.01)
            assert not stop.done()
            late = client.call("wait")
            gate.go.set()
            assert await call == "done"
            await stop
            await server
            assert not app.ready.is_set()
            server = asyncio.create_task(app.serve())  # the same server may serve again, and finds what was not taken
            assert await late == "done"
            await app.stop()
            await server

    run(scenario)


def test_after_the_grace_time_calls_are_answered_or_given_back() -> None:
    async def scenario() -> None:
        gate, again, app = Gate(), Gate(), make_app(shutdown_grace=0.02)
        app.register_func(gate.wait)
        app.register_func(again.wait, name="again", idempotent=True)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            call, repeated = client.call("wait"), client.call("again")
            await gate.started.wait()
            await again.started.wait()
            await app.stop()
            await server
            with pytest.raises(ServerShutdownError) as caught:
                await call
            assert caught.value.function == "wait"
            assert gate.cancelled.is_set() and again.cancelled.is_set()
            again.go.set()
            server = asyncio.create_task(app.serve())
            assert await repeated == "done"
            await app.stop()
            await server

    run(scenario)


def test_a_thread_that_does_not_end_does_not_hold_up_the_stop() -> None:
    async def scenario() -> None:
        started, go = threading.Event(), threading.Event()

        def stuck() -> None:
            started.set()
            go.wait(20)

        app = make_app()
        app.register_func(stuck, "thread")
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            call = client.call("stuck")
            await asyncio.to_thread(started.wait)
            await app.stop(grace=0)
            await server
            with pytest.raises(ServerShutdownError):
                await call
            go.set()

    run(scenario)


def test_a_coroutine_that_does_not_heed_its_cancellation_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prpc.workers.coroutine.STOP_SECONDS", 0.01)

    async def scenario() -> None:
        started, go = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            started.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue

        app = make_app()
        app.register_func(stubborn)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            call = client.call("stubborn")
            await started.wait()
            await app.stop(grace=0)
            await server
            with pytest.raises(ServerShutdownError):
                await call
            go.set()

    run(scenario)


def test_a_cancelled_serve_ends_its_calls_at_once() -> None:
    async def scenario() -> None:
        gate, app = Gate(), make_app()
        app.register_func(gate.wait)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            call = client.call("wait")
            await gate.started.wait()
            server.cancel()
            with pytest.raises(ServerShutdownError):
                await call
            with pytest.raises(asyncio.CancelledError):
                await server

    run(scenario)


def test_several_servers_in_one_process() -> None:
    async def scenario() -> None:
        apps = [make_app(f"queue_{i}") for i in range(3)]
        for number, app in enumerate(apps):
            app.register_func(lambda n=number: n, "thread", name="number")
        servers = [asyncio.create_task(app.serve()) for app in apps]
        for number, app in enumerate(apps):
            async with client_of(app) as client:
                assert await client.call("number") == number
        await asyncio.gather(*(app.stop() for app in apps))
        await asyncio.gather(*servers)

    run(scenario)


def test_serving_twice_at_once_is_an_error() -> None:
    async def scenario() -> None:
        app = make_app()
        server = asyncio.create_task(app.serve())
        await app.ready
        with pytest.raises(RuntimeError, match="serving already"):
            await app.serve()
        assert app.ready.is_set()
        await app.stop()
        await server

    run(scenario)


def test_lifespan_surrounds_the_run() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        @asynccontextmanager
        async def lifespan(app: AppServer) -> AsyncIterator[None]:
            seen.append(f"open {app.ready.is_set()}")
            yield
            seen.append("close")

        async def note() -> None:
            seen.append("call")

        app = make_app(lifespan=lifespan)
        app.register_func(note)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await client.call("note")
            await app.stop()
            await server
        assert seen == ["open False", "call", "close"]

    run(scenario)


def test_functions_registered_by_the_lifespan_are_served() -> None:
    async def scenario() -> None:
        @asynccontextmanager
        async def lifespan(app: AppServer) -> AsyncIterator[None]:
            app.register_func(lambda: "from the lifespan", "thread", name="early")
            yield

        app = make_app(lifespan=lifespan)
        app.register_func(echo)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            assert await client.call("early") == "from the lifespan"
            await app.stop()
            await server

    run(scenario)


def test_functions_outlived_by_the_lifespan() -> None:
    """What the lifespan closes is there for a function until it has ended."""

    async def scenario() -> None:
        seen: list[str] = []
        gate = Gate()

        @asynccontextmanager
        async def lifespan(app: AppServer) -> AsyncIterator[None]:
            yield
            seen.append("closed")

        async def clean_up() -> None:
            try:
                await gate.wait()
            finally:
                await asyncio.sleep(0.02)
                seen.append("cleaned up")

        app = make_app(lifespan=lifespan)
        app.register_func(clean_up)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            call = client.call("clean_up")
            await gate.started.wait()
            await app.stop(grace=0)
            await server
            with pytest.raises(ServerShutdownError):
                await call
        assert seen == ["cleaned up", "closed"]

    run(scenario)


def test_a_function_that_comes_too_late_is_refused() -> None:
    async def scenario() -> None:
        app = make_app()
        app.register_func(echo)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            await app.ready
            with pytest.raises(RegistrationError, match=r"'late' comes too late: .* without any function of type 'thread'"):
                app.register_func(lambda: 1, "thread", name="late")
            app.register_func(echo, name="echo_too")
            assert await client.call("echo_too", 4) == 4
            await app.stop()
            await server
        app.register_func(lambda: 1, "thread", name="late")

    run(scenario)


def test_a_failing_start_is_told_to_those_who_wait() -> None:
    async def scenario() -> None:
        @asynccontextmanager
        async def lifespan(_: AppServer) -> AsyncIterator[None]:
            raise OSError("no database")
            yield

        app = make_app(lifespan=lifespan)
        waiter = asyncio.create_task(app.ready.wait())
        with pytest.raises(OSError, match="no database"):
            await app.serve()
        with pytest.raises(OSError, match="no database"):
            await waiter

    run(scenario)


def test_an_unreachable_broker_is_named() -> None:
    async def scenario() -> None:
        app = AppServer("redis", "redis://:geheim@127.0.0.1:1/0", connect_timeout=0.5)
        with pytest.raises(BrokerUnavailableError) as caught:
            await app.serve()
        assert "geheim" not in str(caught.value)

    run(scenario)


def test_presence_is_announced_renewed_and_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "PER_WINDOW", 600)

    async def scenario() -> None:
        app = make_app(max_number_worker=7)
        app.register_func(echo)
        broker = MemoryBroker(app.settings)
        announced: list[float] = []
        original = MemoryBroker.announce

        async def announce(self: MemoryBroker, queue: str, record: Any, ttl: float) -> None:
            announced.append(ttl)
            if len(announced) == 2:
                raise BrokerUnavailableError("away for a moment")
            await original(self, queue, record, ttl)
            if len(announced) == 4:
                enough.set()

        monkeypatch.setattr(MemoryBroker, "announce", announce)
        enough = asyncio.Event()
        server = asyncio.create_task(app.serve())
        await app.ready
        (record,) = await broker.servers("task_prpc")
        assert record.instance == app.settings.instance_name
        assert list(record.info["functions"]) == ["echo"] and record.info["capacity"] == 7
        await enough.wait()
        await app.stop()
        await server
        assert await broker.servers("task_prpc") == []
        await broker.close()

    run(scenario)


def test_an_announcement_that_cannot_be_taken_back_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def withdraw(self: MemoryBroker, queue: str, instance: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryBroker, "withdraw", withdraw)

    async def scenario() -> None:
        app = make_app(connect_timeout=0.01)
        server = asyncio.create_task(app.serve())
        await app.ready
        await app.stop()
        await server
        assert "could not be taken back: the broker does not answer" in caplog.text

    run(scenario)


def test_reading_goes_on_after_broker_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prpc.server.dispatcher._READ_AGAIN_AFTER", 0.001)

    async def scenario() -> None:
        app = make_app()
        app.register_func(echo)
        consumer_type = type(MemoryBroker(app.settings).consume("q", consumer="c"))
        original, failures = consumer_type.take, [BrokerUnavailableError("cut")]

        async def take(self: Any, most: int) -> Any:
            if failures:
                raise failures.pop()
            return await original(self, most)

        monkeypatch.setattr(consumer_type, "take", take)
        async with client_of(app) as client:
            server = asyncio.create_task(app.serve())
            assert await client.call("echo", 5) == 5
            await app.stop()
            await server

    run(scenario)


def test_a_pump_that_fails_ends_the_server_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        app = make_app()
        consumer_type = type(MemoryBroker(app.settings).consume("q", consumer="c"))

        async def take(_: Any, most: int) -> Any:
            raise PRPCError(f"broken at {most}")

        monkeypatch.setattr(consumer_type, "take", take)
        with pytest.raises(PRPCError, match="broken at 4"):
            await app.serve()

    run(scenario)


class TestStart:
    """`app.start()` in this very process."""

    @pytest.fixture(autouse=True)
    def unfreeze(self) -> Iterator[None]:
        yield
        gc.unfreeze()

    def test_it_returns_after_a_signal_and_puts_the_handlers_back(self) -> None:
        @asynccontextmanager
        async def lifespan(_: AppServer) -> AsyncIterator[None]:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
            yield

        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        make_app(lifespan=lifespan).start()
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    def test_a_second_signal_ends_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        codes: list[int] = []
        monkeypatch.setattr(os, "_exit", codes.append)

        @asynccontextmanager
        async def lifespan(_: AppServer) -> AsyncIterator[None]:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
            yield

        make_app(lifespan=lifespan).start()
        assert codes == [128 + signal.SIGTERM]

    def test_in_another_thread_signals_are_left_alone(self) -> None:
        @asynccontextmanager
        async def lifespan(app: AppServer) -> AsyncIterator[None]:
            stopping.append(asyncio.create_task(app.stop()))
            yield

        stopping: list[asyncio.Task[None]] = []
        thread = threading.Thread(target=make_app(lifespan=lifespan).start)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    def test_what_cannot_start_says_so_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            AppServer("redis", "redis://127.0.0.1:1/0", connect_timeout=0.5).start()
        assert caught.value.code == 1
        text = capsys.readouterr().err
        assert text.startswith("prpc: ") and text.count("\n") == 1


def test_supervise_starts_again_and_kills_what_does_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "STOP_SECONDS", 0.05)
    script, log = tmp_path / "script.py", tmp_path / "log.txt"

    def write(text: str) -> None:
        script.write_text(f"import time\nopen({str(log)!r}, 'a').write({text!r})\n{ignore}time.sleep(60)\n")

    def act() -> None:
        until("one ")
        write("two ")
        until("one two ")
        os.kill(os.getpid(), signal.SIGTERM)

    def until(text: str) -> None:
        while not (log.exists() and log.read_text() == text):
            time.sleep(0.01)

    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    write("one ")
    actor = threading.Thread(target=act)
    actor.start()
    assert reloading.supervise([sys.executable, str(script)], str(tmp_path)) == 0
    actor.join()
