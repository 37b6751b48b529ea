"""Whole servers and clients over Kafka, the one in memory and a real one: the same promises as on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

import prpc
from prpc import AppServer, AsyncClient
from prpc.exceptions import (
    CallCancelledError,
    ClientTimeOutError,
    DeadlineExceededError,
    DecodeError,
    NoServerError,
    QueueFullError,
    WorkerLostError,
)
from prpc.settings import Settings

KINDS = ("kafka", pytest.param("real_kafka", marks=pytest.mark.real_kafka))
TESTS = Path(__file__).parent.parent
KEY = "k" * 32


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, settings_for: Callable[..., Settings]) -> Settings:
    return settings_for(request.param, redis_heartbeat=0.5, redis_recover=2.5, kafka_queue_partitions=4)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


class Gate:
    """What runs until it is told to end, and how often it was started."""

    def __init__(self) -> None:
        self.started = 0
        self.go, self.news, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(self, number: int = 0) -> int:
        self.started += 1
        self.news.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return number

    async def runs(self, count: int = 1) -> None:
        while self.started < count:
            self.news.clear()
            await self.news.wait()


def make_app(settings: Settings, gate: Gate | None = None, **more: Any) -> AppServer:
    """A server with these settings."""
    given = {"redis_heartbeat": settings.redis_heartbeat, "redis_recover": settings.redis_recover}
    given |= {"kafka_queue_partitions": settings.kafka_queue_partitions, **more}
    workers = given.pop("workers", 8)
    app = AppServer("kafka", settings.url_broker, "async", workers, name_queue=settings.queue_name, **given)

    @app.function()
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @app.function("thread")
    def fail(text: str) -> None:
        raise KeyError(text)

    if gate is not None:
        app.register_func(gate.wait)
    return app


@contextlib.asynccontextmanager
async def serving(*apps: AppServer) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for app in apps:
            task = asyncio.create_task(app.serve())
            stack.push_async_callback(stop, app, task)
            await app.ready
        yield


async def stop(app: AppServer, task: asyncio.Task[None]) -> None:
    await app.stop()
    await task


def client_of(settings: Settings, **more: Any) -> AsyncClient:
    return AsyncClient("kafka", settings.url_broker, settings.queue_name, **more)


def test_values_and_errors_come_back(settings: Settings) -> None:
    async def scenario() -> None:
        async with serving(make_app(settings)), client_of(settings) as client:
            assert await client.call("add", 1, b=2) == 3
            with pytest.raises(KeyError, match="x"):
                await client.call("fail", "x")
            assert await prpc.gather(*(client.call("add", number) for number in range(500))) == list(range(1, 501))
            (record,) = await client.servers()
            assert record.info["draining"] is False

    run(scenario())


def test_calls_wait_for_a_server_or_are_refused(settings: Settings) -> None:
    async def scenario() -> None:
        async with client_of(settings) as client:
            early = client.call("add", 1)
            with pytest.raises(NoServerError):
                await client.options(require_server=True).call("add", 1)
            async with serving(make_app(settings)):
                assert await early == 2
                assert await client.options(require_server=True).call("add", 2) == 3

    run(scenario())


def test_cancelling_reaches_the_function(settings: Settings) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(make_app(settings, gate)), client_of(settings) as client:
            call = client.call("wait")
            await gate.runs()
            assert call.cancel()
            with pytest.raises(CallCancelledError):
                await call
            await gate.cancelled.wait()

    run(scenario())


def test_what_expired_in_the_queue_is_not_started(settings: Settings) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(make_app(settings, gate, workers=1)), client_of(settings) as client:
            first = client.call("wait", 1)
            await gate.runs()
            late = client.options(timeout=0.3).call("wait", 2)
            with pytest.raises((ClientTimeOutError, DeadlineExceededError)):
                await late
            gate.go.set()
            assert await first == 1
            assert await client.call("wait", 3) == 3
            assert gate.started == 2

    run(scenario())


def test_signed_calls_and_no_others_are_served(settings: Settings) -> None:
    async def scenario() -> None:
        async with serving(make_app(settings, secret_key=KEY)), client_of(settings, secret_key=KEY) as client:
            assert await client.call("add", 1) == 2
            async with client_of(settings) as stranger:
                with pytest.raises(DecodeError):
                    await stranger.call("add", 1)
            assert await client.call("add", 2) == 3

    run(scenario())


def test_a_bound_of_the_queue_refuses(settings: Settings) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with serving(make_app(settings, gate, workers=1)), client_of(settings, max_queue_length=3) as client:
            calls = [client.call("wait", number) for number in range(10)]
            results = asyncio.gather(*calls, return_exceptions=True)
            await gate.runs()
            while sum(call.is_done_task() for call in calls) < 7:
                await asyncio.sleep(0.01)
            gate.go.set()
            outcomes = await results
            assert sum(isinstance(outcome, QueueFullError) for outcome in outcomes) == 7

    run(scenario())


def test_a_call_goes_on_while_servers_come_and_go(settings: Settings) -> None:
    """Whoever joins takes partitions away, also those of calls that run."""

    async def scenario() -> None:
        gate = Gate()
        async with serving(make_app(settings, gate, workers=16)), client_of(settings) as client:
            long = [client.call("wait", number) for number in range(8)]
            await gate.runs(8)
            others = [make_app(settings), make_app(settings)]
            async with serving(*others):
                assert await prpc.gather(*(client.call("add", number) for number in range(100))) == list(range(1, 101))
            async with serving(make_app(settings)):
                assert await client.call("add", 1) == 2
                gate.go.set()
                assert await prpc.gather(*long) == list(range(8))
            assert gate.started == 8

    run(scenario())


def test_clients_share_the_partitions_of_the_results(settings: Settings) -> None:
    async def scenario() -> None:
        narrow = replace(settings, kafka_feedback_partitions=2)
        async with serving(make_app(narrow, kafka_feedback_partitions=2)), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(narrow)) for _ in range(5)]
            for round_ in range(2):
                calls = [client.call("add", 100 * n + k) for n, client in enumerate(clients) for k in range(20)]
                assert await prpc.gather(*calls) == [100 * n + k + 1 for n in range(5) for k in range(20)]
                if round_ == 0:
                    await grow(settings, f"prpc_feedback_{settings.queue_name}", 5)
                    clients.append(await stack.enter_async_context(client_of(narrow)))
                    assert await clients.pop().call("add", 1) == 2

    run(scenario())


async def grow(settings: Settings, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.url_broker)
    await admin.start()
    try:
        answer = await admin.create_partitions({topic: NewPartitions(partitions)})
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


SERVER = """
import os, sys, time
from pathlib import Path
from prpc import AppServer

app = AppServer(max_number_worker=4)

def note(word):
    with open("ran", "a") as file:
        file.write(f"{word} {os.getpid()}\\n")

@app.function()
def once() -> int:
    note("once")
    while True:
        time.sleep(0.05)

@app.function(idempotent=True)
def again() -> int:
    note("again")
    while not Path("second").exists():
        time.sleep(0.05)
    return os.getpid()

@app.function("process")
def pid() -> int:
    return os.getpid()

@app.function()
def double(x: int) -> int:
    return 2 * x

if __name__ == "__main__":
    app.start()
"""


class Programs:
    """Server processes in a folder, told everything by their environment."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder, self.environ = folder, environ
        (folder / "server.py").write_text(SERVER)
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "server.py"]
            self.running.append(subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=log, stderr=log))
        self.run("prpc", "ping", "--wait", "30")
        return self.running[-1]

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, (words, done.stdout, done.stderr, (self.folder / "server.log").read_text())
        return done.stdout

    def ran(self, word: str) -> list[str]:
        file = self.folder / "ran"
        return [line.split()[1] for line in file.read_text().splitlines() if line.startswith(word)] if file.exists() else []

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def programs(tmp_path: Path, settings: Settings) -> Iterator[Programs]:
    environ = {
        **os.environ,
        "PRPC_TYPE_BROKER": "kafka",
        "PRPC_URL_BROKER": settings.url_broker,
        "PRPC_QUEUE_NAME": settings.queue_name,
        "PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": "0.3",
        "PRPC_REDIS_RECOVER_INTERVAL_SEC": "2.5",
        "PYTHONPATH": str(TESTS.parent),
    }
    programs = Programs(tmp_path, environ)
    yield programs
    programs.end()


def test_one_variable_moves_an_application_from_redis(programs: Programs, redis_url: str) -> None:
    client = "from server_func import double, pid\nprint(double(21).result(20), pid().result(20) > 0)"
    (programs.folder / "use.py").write_text(client)
    programs.start()
    programs.run("prpc.create_server_func")
    stubs = (programs.folder / "server_func.py").read_text()
    assert programs.run("use") == "42 True\n"
    programs.environ |= {"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": redis_url}
    programs.start()
    assert programs.run("use") == "42 True\n"
    programs.run("prpc.create_server_func")
    assert (programs.folder / "server_func.py").read_text() == stubs


def test_what_a_killed_server_ran_is_taken_over(programs: Programs, settings: Settings) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(None, programs.start)
        async with client_of(settings) as client:
            once, again = client.call("once"), client.call("again")
            while not (programs.ran("once") and programs.ran("again")):
                await asyncio.sleep(0.01)
            first.send_signal(signal.SIGKILL)
            first.wait()
            (programs.folder / "second").touch()
            second = await loop.run_in_executor(None, programs.start)
            with pytest.raises(WorkerLostError):
                await once
            assert await again == second.pid
        assert len(programs.ran("once")) == 1
        assert len(programs.ran("again")) == 2

    run(scenario())
