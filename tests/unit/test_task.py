"""AwaitableTask between threads and loops: whoever made it, anybody may wait."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_kit import PATIENCE, ScriptedServer, memory_settings, served

from prpc.app_client import AsyncClient, AwaitableTask, Client, as_completed, gather
from prpc.exceptions import CallError, ClientTimeOutError, RemoteError


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(memory_settings()) as running:
        yield running


def client_of(server: ScriptedServer) -> Client:
    return Client("memory", server.settings.url_broker, "q")


def test_a_task_made_in_plain_code_can_be_awaited_in_any_loop(server: ScriptedServer) -> None:
    with client_of(server) as client:
        task = client.call("hold")

        async def wait() -> Any:
            return await task

        async def impatient() -> None:
            with pytest.raises(ClientTimeOutError):
                await task.async_wait_result_task(0.01)

        asyncio.run(impatient())
        server.answer(task.message.message_id, 1)
        assert asyncio.run(wait()) == 1
        assert asyncio.run(wait()) == 1
        assert task.result() == 1


def test_a_task_made_in_a_loop_can_be_waited_for_in_a_thread(server: ScriptedServer) -> None:
    async def scenario() -> None:
        async with AsyncClient("memory", server.settings.url_broker, "q") as client:
            task = client.call("hold")
            waiting = [asyncio.create_task(asyncio.to_thread(task.result, PATIENCE)) for _ in range(3)]
            waiting.append(asyncio.ensure_future(task.async_wait_result_task()))
            await asyncio.to_thread(server.answer, task.message.message_id, 5)
            assert await asyncio.gather(*waiting) == [5, 5, 5, 5]

    asyncio.run(scenario())


def test_several_threads_and_loops_wait_for_one_task(server: ScriptedServer) -> None:
    with client_of(server) as client:
        task = client.call("hold")
        results: list[Any] = []

        async def wait() -> None:
            results.append(await task)

        threads = [threading.Thread(target=lambda: results.append(task.result(PATIENCE))) for _ in range(4)]
        threads += [threading.Thread(target=lambda: asyncio.run(wait())) for _ in range(4)]
        for thread in threads:
            thread.start()
        server.answer(task.message.message_id, "x")
        for thread in threads:
            thread.join()
        assert results == ["x"] * 8


def test_a_sync_wait_inside_the_loop_that_receives_the_result_says_so(server: ScriptedServer) -> None:
    async def scenario() -> None:
        async with AsyncClient("memory", server.settings.url_broker, "q") as client:
            task = client.call("hold")
            for wait in (task.result, gather(task).result, lambda: list(as_completed([task]))):
                with pytest.raises(RuntimeError, match="await task"):
                    wait()
            await asyncio.to_thread(server.answer, task.message.message_id, 5)
            assert await task == 5
            assert task.result() == 5
            assert gather(task).result() == [5]

    asyncio.run(scenario())


def test_plain_clients_help_says_the_same_inside_a_loop(server: ScriptedServer) -> None:
    client = client_of(server)

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="await task"):
            client.ping()
        await client.channel.close()

    asyncio.run(scenario())


def test_a_sync_wait_for_a_loop_that_stands_still_says_so(server: ScriptedServer) -> None:
    loop = asyncio.new_event_loop()
    client = AsyncClient("memory", server.settings.url_broker, "q")

    async def make() -> AwaitableTask[Any]:
        return client.call("hold")

    task = loop.run_until_complete(make())
    with pytest.raises(RuntimeError, match="does not run now"):
        task.result(1)
    server_side = loop.run_in_executor(None, server.answer, task.message.message_id, 1)
    assert loop.run_until_complete(task.async_wait_result_task()) == 1
    loop.run_until_complete(server_side)
    loop.run_until_complete(client.close())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_a_call_that_its_loop_left_open_ends_with_an_error(server: ScriptedServer) -> None:
    client = AsyncClient("memory", server.settings.url_broker, "q")

    async def make() -> AwaitableTask[Any]:
        task = client.call("hold")
        with pytest.raises(ClientTimeOutError):
            await task.async_wait_result_task(0.01)
        return task

    task = asyncio.run(make())
    with pytest.raises(CallError, match="closed before"):
        task.result()
    assert not task.cancel()


def test_asyncio_run_may_be_repeated_with_one_client(server: ScriptedServer) -> None:
    client = AsyncClient("memory", server.settings.url_broker, "q")

    async def scenario() -> Any:
        return await client.call("add", 1)

    assert [asyncio.run(scenario()) for _ in range(5)] == [11] * 5
    assert len(client.channel._pumps) == 1  # those of ended loops are gone


def test_awaiting_a_call_whose_loop_stands_still_says_so(server: ScriptedServer) -> None:
    home = asyncio.new_event_loop()
    client = AsyncClient("memory", server.settings.url_broker, "q")

    async def make() -> AwaitableTask[Any]:
        return client.call("hold")

    async def wait(task: AwaitableTask[Any]) -> Any:
        return await task

    async def wait_for_all(task: AwaitableTask[Any]) -> Any:
        return await gather(task)

    task = home.run_until_complete(make())
    for waiting in (wait, wait_for_all):
        with pytest.raises(RuntimeError, match="does not run now"):
            asyncio.run(waiting(task))
    server_side = home.run_in_executor(None, server.answer, task.message.message_id, 11)
    assert home.run_until_complete(wait(task)) == 11
    home.run_until_complete(server_side)
    assert asyncio.run(wait(task)) == 11 and asyncio.run(wait_for_all(task)) == [11]
    home.run_until_complete(client.close())
    home.run_until_complete(home.shutdown_default_executor())
    home.close()


def test_cancelling_from_another_thread(server: ScriptedServer) -> None:
    with client_of(server) as client:
        task = client.call("hold")
        server.until(lambda: bool(server.calls))
        outcomes: list[str] = []

        def wait() -> None:
            try:
                task.result(PATIENCE)
            except CallError as exc:
                outcomes.append(type(exc).__name__)

        waiting = threading.Thread(target=wait)
        waiting.start()

        async def cancel() -> None:
            assert task.cancel()

        asyncio.run(cancel())
        waiting.join()
        assert outcomes == ["CallCancelledError"]
        server.until(lambda: server.cancelled == [task.message.message_id])


def test_a_cancelled_await_in_a_foreign_loop_cancels_the_call(server: ScriptedServer) -> None:
    with client_of(server) as client:
        task = client.call("hold")
        server.until(lambda: bool(server.calls))

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await task

        asyncio.run(give_up())
        server.until(lambda: server.cancelled == [task.message.message_id])


def test_many_threads_share_one_client(server: ScriptedServer) -> None:
    with client_of(server) as client:
        results: list[list[Any]] = [[] for _ in range(8)]

        def work(mine: list[Any]) -> None:
            mine.extend(client.call("add", number, 1).result(PATIENCE) for number in range(100))

        threads = [threading.Thread(target=work, args=(mine,)) for mine in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [[number + 1 for number in range(100)]] * 8


def test_tasks_that_nobody_waits_for_are_quiet(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(server) as client:
        for _ in range(10):
            client.call("boom", "unheard")
        server.until(lambda: len(server.calls) == 10)
        assert client.call("add", 1).result() == 11
    gc.collect()
    assert not caplog.records


def test_a_wait_can_be_interrupted_from_the_keyboard() -> None:
    code = """
import prpc, signal, threading, os, time
from client_kit import served
with served() as server, prpc.Client("memory", server.settings.url_broker, "q") as client:
    task = client.call("hold")
    server.until(lambda: bool(server.calls))
    caught = threading.Event()
    def once(*_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        caught.set()
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, once)
    def interrupt():
        while not task.call.watched:
            time.sleep(0.001)
        # Again where it came in the moment before the lock is waited for: Python looks at signals no more from there on.
        while not caught.wait(0.1):
            os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        task.result()
    except KeyboardInterrupt:
        print("interrupted")
    server.answer(task.message.message_id, "and goes on")
    print(task.result(10))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50, env=_env())
    assert done.stdout.split("\n")[:2] == ["interrupted", "and goes on"], done.stderr
    assert done.returncode == 0, signal.Signals(-done.returncode)


def _env() -> dict[str, str]:
    tests = Path(__file__).parent.parent
    return {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"}


def test_exceptions_that_a_coroutine_cannot_raise_arrive_as_remote_errors() -> None:
    with served() as server:

        async def scenario() -> None:
            async with AsyncClient("memory", server.settings.url_broker, "q") as client:
                task = client.call("hold")
                await asyncio.to_thread(server.fail, task.message.message_id, StopIteration("stop"))
                with pytest.raises(RemoteError, match="stop"):
                    await task
                with pytest.raises(RemoteError, match="stop"):
                    await gather(task)

        asyncio.run(scenario())
