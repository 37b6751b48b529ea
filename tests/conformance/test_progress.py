"""What functions say of their progress, from every kind of worker over every broker to the caller."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import progress_jobs
import pytest
from broker_harness import Harness, connected, run
from worker_kit import Meeting

from prpc import AppServer, AsyncClient, Progress
from prpc.app_client import OutgoingCall, Proceed
from prpc.settings import Settings

#: Least seconds between two words that travel.
EVERY = 0.1

KEYS = pytest.mark.parametrize("secret_key", ["", "a-key-of-the-progress-tests-" + "1" * 20], ids=["unsigned", "signed"])
WORKERS = pytest.mark.parametrize("worker", ["thread", "process", "async"])


def job(worker: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(progress_jobs, f"async_{name}" if worker == "async" else name)
    return found


@asynccontextmanager
async def served(settings: Settings, worker: str, *functions: Callable[..., Any], **more: Any) -> AsyncIterator[AsyncClient]:
    """A server with these functions, and its client."""
    place = (settings.type_broker, settings.url_broker)
    queue, key = settings.queue_name, more.pop("secret_key", "")
    app = AppServer(
        *place,
        worker,
        2,
        name_queue=queue,
        redis_heartbeat=settings.redis_heartbeat,
        redis_recover=settings.redis_recover,
        secret_key=key,
    )
    app.register_funcs(*functions)
    task = asyncio.create_task(app.serve())
    try:
        await app.ready
        async with AsyncClient(*place, queue, secret_key=key, **more) as client:
            yield client
    finally:
        await app.stop(grace=5)
        await task


class Heard:
    """Everything that a task's function said."""

    def __init__(self, task: Any) -> None:
        self.all: list[Progress] = []
        self._news = asyncio.Event()
        self.stop = task.on_progress(self._hear)

    def _hear(self, progress: Progress) -> None:
        self.all.append(progress)
        self._news.set()

    async def until(self, progress: Progress) -> None:
        while progress not in self.all:
            self._news.clear()
            await self._news.wait()


@KEYS
@WORKERS
def test_few_words_of_many_travel_in_order_and_the_last_before_the_result(
    settings: Settings, worker: str, secret_key: str
) -> None:
    async def work() -> None:
        function = job(worker, "count")
        async with served(settings, worker, function, secret_key=secret_key) as client:
            for total in (10_000, 1):
                began = time.monotonic()
                task = client.call(function.__name__, total)
                heard = Heard(task)
                assert await task == total
                passed = time.monotonic() - began
                assert heard.all[-1] == task.progress == Progress(total, total, f"item {total}")
                done = [progress.done for progress in heard.all]
                assert done == sorted(set(done))
                assert len(done) <= 3 + passed / EVERY

    run(work())


@KEYS
@WORKERS
def test_a_word_arrives_while_the_function_runs(settings: Settings, worker: str, secret_key: str) -> None:
    async def work() -> None:
        function = job(worker, "say_and_meet")
        async with Meeting() as meeting, served(settings, worker, function, secret_key=secret_key) as client:
            task = client.call(function.__name__, meeting.path)
            heard = Heard(task)
            guest = await meeting.guest()
            await heard.until(Progress(1))
            assert task.progress == Progress(1, None, None)
            guest.let_go("half of it")
            guest = await meeting.guest()
            await heard.until(Progress(2, 4, "half of it"))
            late = Heard(task)
            assert late.all == [Progress(2, 4, "half of it")]
            guest.let_go("all")
            assert await task == "all"
            assert heard.all == [Progress(1), Progress(2, 4, "half of it")]

    run(work())


@WORKERS
def test_a_call_that_fails_said_how_far_it_came(settings: Settings, worker: str) -> None:
    async def work() -> None:
        function = job(worker, "fail_at")
        async with served(settings, worker, function) as client:
            task = client.call(function.__name__, 7)
            with pytest.raises(KeyError, match="7"):
                await task
            assert task.progress == Progress(7, 10)

    run(work())


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_several_threads_of_a_function_speak_at_once(settings: Settings, worker: str) -> None:
    async def work() -> None:
        async with served(settings, worker, progress_jobs.count_in_threads, progress_jobs.say_nonsense) as client:
            task = client.call("count_in_threads", 1000)
            assert await task == 1000
            assert task.progress == Progress(1000, 1000)
            silent = client.call("say_nonsense")
            assert await silent == "done=-1 cannot be used: allowed is a finite number from 0 up"
            assert silent.progress is None

    run(work())


def test_a_forked_child_of_a_worker_says_nothing(settings: Settings) -> None:
    async def work() -> None:
        async with served(settings, "process", progress_jobs.say_in_a_fork) as client:
            for number in range(3):
                task = client.call("say_in_a_fork", number)
                assert await task == number
                assert task.progress == Progress(number)

    run(work())


def test_words_pass_the_clients_middleware(settings: Settings) -> None:
    async def through(call: OutgoingCall, proceed: Proceed) -> Any:
        return await proceed(call)

    async def work() -> None:
        async with served(settings, "thread", progress_jobs.count, middleware=[through]) as client:
            task = client.call("count", 100)
            heard = Heard(task)
            assert await task == 100
            assert heard.all[-1] == task.progress == Progress(100, 100, "item 100")

    run(work())


def test_callers_without_an_address_and_raw_calls_are_told_nothing(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with served(settings, "thread", progress_jobs.count) as client, connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            text = b'{"func_name": "count", "func_args": [5], "func_kwargs": {}, "message_id": "%b"}'
            ids = [b"6f1c0c1e-8d7a-4d3c-9a53-0f6f2f8e2b11", b"6f1c0c1e-8d7a-4d3c-9a53-0f6f2f8e2b12"]
            await asyncio.to_thread(harness.put, {"message": text % ids[0]}, raw=True)
            await asyncio.to_thread(harness.put, {"message": text % ids[1], "reply_to": mailbox.address.encode()}, raw=True)
            assert await client.call("count", 5) == 5
            while not all([await asyncio.to_thread(harness.kept_raw, uuid.UUID(message_id.decode())) for message_id in ids]):
                await asyncio.sleep(0.01)
            await broker.post(settings.queue_name, mailbox.address, b"the end", message_id=uuid.UUID(ids[0].decode()))
            heard: list[bytes] = []
            while b"the end" not in heard:
                heard += (await mailbox.receive()).bodies
            assert not [body for body in heard if b"prpc_mail" in body]

    run(work())
