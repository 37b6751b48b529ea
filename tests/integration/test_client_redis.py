"""The client over a real Redis, against a real server process: volume, many processes, fork, lost connections, memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from client_kit import PATIENCE

from prpc.app_client import AsyncClient, Client, gather
from prpc.dev_broker import DevBroker
from prpc.exceptions import BrokerUnavailableError, FunctionNotFoundError, NoServerError

pytestmark = pytest.mark.real_redis

ROOT = Path(__file__).parents[2]

SERVER = """
import asyncio
import sys

from prpc import AppServer, current_call

app = AppServer("redis", sys.argv[1], "thread", 32, name_queue=sys.argv[2])


@app.decorator_reg_func()
def add(a, b=1):
    return a + b


@app.decorator_reg_func("async")
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@app.decorator_reg_func()
def left():
    return [current_call().remaining(), dict(current_call().headers)]


@app.decorator_reg_func()
def fail(text: str):
    raise ValueError(text)


app.start()
"""


@contextmanager
def server_process(url: str, queue: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, ready when this is entered, stopped cleanly when it is left."""
    script = tmp_path / f"server_{queue}.py"
    script.write_text(SERVER, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PRPC_LOG_LEVEL": "info"}
    command = [sys.executable, str(script), url, queue]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        seen: list[str] = []
        for line in process.stderr:
            seen.append(line)
            if "serving" in line:
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(seen))
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            drain.join()
            assert process.wait(PATIENCE) == 0


@pytest.fixture
def serving(redis_url: str, queue: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with server_process(redis_url, queue, tmp_path) as process:
        yield process


def run_client(code: str, url: str, queue: str, cwd: Path) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PRPC_TYPE_BROKER": "redis",
        "PRPC_URL_BROKER": url,
        "PRPC_QUEUE_NAME": queue,
    }
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert err == ""
    return out


@pytest.mark.usefixtures("serving")
def test_a_program_that_says_nothing_of_closing_leaves_no_warning(redis_url: str, queue: str, tmp_path: Path) -> None:
    code = """
import asyncio, prpc
async def main():
    task = prpc.AwaitableTask("add", (1,))
    print(await task)
    prpc.AwaitableTask("add", (2,))
for _ in range(3):
    asyncio.run(main())
print(prpc.AwaitableTask("add", (3,)).result(), prpc.ping())
prpc.AwaitableTask("add", (4,))
"""
    assert ended(run_client(code, redis_url, queue, tmp_path)) == "2\n2\n2\n4 pong\n"


@pytest.mark.usefixtures("serving")
def test_a_forked_child_and_its_parent_both_call(redis_url: str, queue: str, tmp_path: Path) -> None:
    code = """
import os, sys, warnings, prpc
warnings.filterwarnings("ignore", category=DeprecationWarning)
assert prpc.AwaitableTask("add", (1,)).result() == 2
child = os.fork()
if child == 0:
    assert prpc.gather(*(prpc.AwaitableTask("add", (n,)) for n in range(100))).result(20) == list(range(1, 101))
    sys.exit(7)
assert prpc.gather(*(prpc.AwaitableTask("add", (n,)) for n in range(100))).result(20) == list(range(1, 101))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert prpc.AwaitableTask("add", (1,)).result() == 2
"""
    assert ended(run_client(code, redis_url, queue, tmp_path)) == "7\n"


@pytest.mark.usefixtures("serving")
def test_options_and_failures_go_the_whole_way(redis_url: str, queue: str) -> None:
    with Client("redis", redis_url, queue) as client:
        left, headers = client.options(timeout=30, headers={"who": "me"}).call("left").result(PATIENCE)
        assert 0 < left <= 30
        assert headers == {"who": "me"}
        with pytest.raises(ValueError, match="why"):
            client.call("fail", "why").result(PATIENCE)
        with pytest.raises(FunctionNotFoundError, match="add"):
            client.call("ad").result(PATIENCE)
        assert [record.instance for record in client.servers()]
        assert {function["func_name"] for function in client.get_function_server()} >= {"ping", "add", "sleep"}


@pytest.mark.usefixtures("serving")
def test_a_cancelled_call_is_stopped_on_the_server(redis_url: str, queue: str) -> None:
    async def scenario() -> None:
        async with AsyncClient("redis", redis_url, queue) as client:
            task = client.call("sleep", 1000.0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await task
            assert await client.call("add", 1) == 2

    asyncio.run(scenario())


def test_results_that_were_delivered_leave_redis(
    redis_url: str, queue: str, serving: subprocess.Popen[str], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    connection: Any = redis.Redis.from_url(redis_url)
    with Client("redis", redis_url, queue) as client:
        gather(*(client.call("add", number) for number in range(1000))).result(PATIENCE)
        eventually(lambda: not list(connection.scan_iter(match=f"prpc_feedback_{queue}_*", count=1000)))
        eventually(lambda: connection.xlen(f"prpc_{queue}") == 0)
    connection.close()


@pytest.mark.usefixtures("serving")
def test_calls_survive_cut_connections(redis_url: str, queue: str) -> None:
    connection: Any = redis.Redis.from_url(redis_url)
    with Client("redis", redis_url, queue, connect_timeout=20) as client:
        tasks = [client.call("sleep", 0.5) for _ in range(20)]
        assert client.call("add", 1).result(PATIENCE) == 2
        for kind in ("normal", "pubsub"):
            connection.client_kill_filter(_type=kind, skipme=True)
        assert gather(*tasks).result(PATIENCE) == ["slept"] * 20
        assert client.call("add", 1).result(PATIENCE) == 2
    connection.close()


def test_no_server_and_no_redis_are_said_clearly(redis_url: str, queue: str) -> None:
    with Client("redis", redis_url, queue) as client, pytest.raises(NoServerError, match=queue):
        client.ping()
    with Client("redis", "redis://:secret@localhost:1/0", queue, connect_timeout=2) as client:
        with pytest.raises(BrokerUnavailableError, match="localhost:1") as caught:
            client.ping()
        assert "secret" not in str(caught.value)


def test_a_restarted_redis_serves_the_same_client(private_redis: Callable[..., DevBroker], queue: str, tmp_path: Path) -> None:
    first = private_redis()
    with server_process(first.url, queue, tmp_path), Client("redis", first.url, queue, connect_timeout=20) as client:
        assert client.call("add", 1).result(PATIENCE) == 2
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        first.close()
        private_redis(port=port)
        assert client.call("add", 2).result(PATIENCE) == 3


def test_an_idle_client_uses_no_time(redis_url: str, queue: str, serving: subprocess.Popen[str], tmp_path: Path) -> None:
    code = """
import prpc, psutil, time
assert prpc.AwaitableTask("add", (1,)).result() == 2
me = psutil.Process()
before = sum(me.cpu_times()[:2])
time.sleep(2)
print(sum(me.cpu_times()[:2]) - before < 0.1)
"""
    assert ended(run_client(code, redis_url, queue, tmp_path)) == "True\n"
    assert psutil.pid_exists(serving.pid)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that another program does and tells nobody."""

    def wait(happened: Callable[[], bool]) -> None:
        waiting = threading.Event()
        for _ in range(200):
            if happened():
                return
            waiting.wait(0.05)
        pytest.fail("it did not happen")

    return wait
