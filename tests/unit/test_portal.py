"""The background loop behind plain code: one per process, across fork, closed with a flush, restartable."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_kit import PATIENCE, FlakyBroker, memory_settings, served

from prpc.app_client import Client
from prpc.client.portal import Crossing, Portal, current_portal, stop_portal

TESTS = Path(__file__).parent.parent


def run_script(code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50, env=env)


def portal_threads() -> int:
    return sum(thread.name == "prpc-client" for thread in threading.enumerate())


def test_one_thread_serves_every_client_of_plain_code() -> None:
    with served() as server:
        clients = [Client("memory", server.settings.url_broker, "q") for _ in range(3)]
        assert [client.call("add", 1).result() for client in clients] == [11] * 3
        assert portal_threads() == 1
        for client in clients:
            client.close()


def test_it_can_be_stopped_and_starts_again() -> None:
    with served() as server:
        client = Client("memory", server.settings.url_broker, "q")
        task = client.call("add", 1)
        stop_portal()
        stop_portal()
        assert portal_threads() == 0
        server.until(lambda: len(server.calls) == 1)  # flushed
        assert task.is_done_task()
        assert client.call("add", 2).result() == 12
        assert portal_threads() == 1
        client.close()


def test_plain_code_cannot_wait_inside_the_background_loop() -> None:
    portal = current_portal()

    async def nothing() -> None: ...

    async def wrong() -> None:
        portal.run(nothing())

    with pytest.raises(RuntimeError, match="own loop"):
        portal.run(wrong())


def test_running_something_in_the_portal_hands_over_its_outcome() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        current_portal().run(fail())


def test_a_portal_may_be_stopped_from_its_own_thread() -> None:
    portal = Portal()
    stopped = threading.Event()

    def stop() -> None:
        portal.stop()
        stopped.set()

    portal.loop.call_soon_threadsafe(stop)
    assert stopped.wait(PATIENCE)
    portal._thread.join()


def test_crossing_keeps_the_order_and_wakes_the_loop_once() -> None:
    class CountingLoop:
        wakes = 0
        callback: Callable[[], None] | None = None

        def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
            self.wakes += 1
            self.callback = callback

    loop = CountingLoop()
    seen: list[int] = []
    crossing = Crossing(loop)  # type: ignore[arg-type]
    for number in range(5):
        crossing.post(seen.append, number)
    assert loop.wakes == 1
    assert loop.callback is not None
    loop.callback()
    assert seen == [0, 1, 2, 3, 4]
    crossing.post(seen.append, 5)
    assert loop.wakes == 2


def test_crossing_into_a_closed_loop_is_an_error_each_time() -> None:
    loop = asyncio.new_event_loop()
    crossing = Crossing(loop)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            crossing.post(print, None)


def test_calls_into_a_loop_that_closed_in_this_moment_end_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as server:
        client = Client("memory", server.settings.url_broker, "q")
        task = client.call("hold")
        pump = client.channel.pump()

        def refuse(function: object, argument: object) -> None:
            raise RuntimeError("closed")

        with monkeypatch.context() as patch:
            patch.setattr(pump, "post", refuse)
            with pytest.raises(Exception, match="closed before"):
                client.call("add", 1).result()
            assert task.cancel()
        with pytest.raises(Exception, match="cancelled"):
            task.result()
        client.close()


def test_the_end_of_the_program_sends_what_was_not_waited_for() -> None:
    done = run_script("""
import atexit, prpc
from client_kit import served
serving = served()
server = serving.__enter__()
def check():
    server.until(lambda: len(server.calls) == 100)
    serving.__exit__(None, None, None)
    print("all sent", flush=True)
atexit.register(check)  # runs after PRPC's own, which comes later
client = prpc.Client("memory", server.settings.url_broker, "q")
for number in range(100):
    client.call("add", number)
""")
    assert done.stdout == "all sent\n", done.stderr
    assert done.stderr == ""


def in_child(work: Callable[[], Any]) -> None:
    """Fork; run `work` in the child; fail where it fails there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_its_own_connection_and_the_parents_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as server:
        client = Client("memory", server.settings.url_broker, "q")
        done, waiting = client.call("add", 1), client.call("hold")
        assert done.result() == 11
        parents = current_portal()
        brokers: list[FlakyBroker] = []

        def make(settings: object) -> FlakyBroker:
            brokers.append(FlakyBroker())
            return brokers[-1]

        def child() -> None:
            assert done.result() == 11
            with pytest.raises(RuntimeError, match="forked"):
                waiting.result()
            assert not waiting.cancel()
            monkeypatch.setattr("prpc.client.connection.create_broker", make)
            task = client.call("f")
            with pytest.raises(TimeoutError):
                task.result(0.05)
            assert [len(broker.published) for broker in brokers] == [1]
            assert current_portal() is not parents
            stop_portal()

        in_child(child)
        assert current_portal() is parents
        server.answer(waiting.message.message_id, "parent")
        assert waiting.result(PATIENCE) == "parent"
        assert client.call("add", 2).result() == 12
        client.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_inside_a_running_loop() -> None:
    with served() as server:
        client = Client("memory", server.settings.url_broker, "q")

        async def scenario() -> None:
            assert await client.call("add", 1) == 11
            await asyncio.to_thread(in_child, lambda: current_portal().loop.call_soon_threadsafe(print))
            assert await client.call("add", 2) == 12
            await client.channel.close()

        asyncio.run(scenario())


def _child_of_multiprocessing(path: str) -> None:
    file = Path(path)
    settings = memory_settings()
    brokers: list[FlakyBroker] = []

    def report(broker: FlakyBroker) -> None:
        file.write_text(str(len(broker.published)))

    class Recording(FlakyBroker):
        async def close(self) -> None:
            await super().close()
            report(self)

    import prpc.client.connection as module

    def make(settings: object) -> FlakyBroker:
        brokers.append(Recording())
        return brokers[-1]

    vars(module)["create_broker"] = make
    client = Client("memory", settings.url_broker, "q")
    for number in range(10):
        client.call("f", number)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_sends_what_was_not_waited_for(method: str, tmp_path: Path) -> None:
    start = multiprocessing.get_context("fork").Process if method == "fork" else multiprocessing.get_context("spawn").Process
    with served() as server:
        client = Client("memory", server.settings.url_broker, "q")
        assert client.call("add", 1).result() == 11
        file = tmp_path / "published"
        process = start(target=_child_of_multiprocessing, args=(str(file),))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert file.read_text() == "10"
        assert client.call("add", 2).result() == 12
        client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_waits_for_names_that_are_being_looked_up() -> None:
    # A slow resolver: it says when it is inside, and the fork is asked for then.
    code = """
import asyncio, os, socket, threading, time
from prpc.client.portal import current_portal
real, inside, forking = socket.getaddrinfo, threading.Event(), threading.Event()
def slow(*args):
    inside.set()
    forking.wait(30)
    found = real(*args)
    left.append(1)
    return found
left = []
socket.getaddrinfo = slow
loop = current_portal().loop
look_up = asyncio.run_coroutine_threadsafe(loop.getaddrinfo("localhost", 1), loop)
assert inside.wait(30)
os.register_at_fork(before=forking.set)  # runs before what was registered earlier
child = os.fork()
if child == 0:
    socket.getaddrinfo = real
    portal = current_portal()
    found = asyncio.run_coroutine_threadsafe(portal.loop.getaddrinfo("localhost", 1), portal.loop).result(30)
    os._exit(0 if left and found else 1)
assert left, "forked in the middle of a look-up"
assert os.waitpid(child, 0)[1] == 0
assert look_up.result(30)
"""
    done = run_script(code)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_before_any_client_has_a_background_loop_of_its_own() -> None:
    code = """
import asyncio, os, signal, sys, threading
from prpc.client.portal import current_portal
def look_up():
    loop = current_portal().loop
    return asyncio.run_coroutine_threadsafe(loop.getaddrinfo("localhost", 1), loop)
first = look_up()
child = os.fork()
if child == 0:
    signal.alarm(20)
    look_up().result()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run_script(code)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
