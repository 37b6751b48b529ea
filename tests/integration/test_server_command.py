"""A server as its users start it: a script with `app.start()`, `python -m prpc run`, signals, and `python -m prpc ping`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from prpc.__main__ import load_app, main
from prpc.app_client import Client
from prpc.app_server import AppServer
from prpc.exceptions import (
    BrokerUnavailableError,
    ClientTimeOutError,
    ConfigurationError,
    NoServerError,
    ServerShutdownError,
    WorkerLostError,
)

ROOT = Path(__file__).parent.parent.parent

SERVER = """
import asyncio, os, signal, threading, time
from prpc import AppServer

app = AppServer()

@app.decorator_reg_func("process")
def summ(a: int | float, b, z=0.5): return a + b + z

@app.decorator_reg_func()
def hello_world(): ...

@app.function()
def nap(seconds: float):
    print("napping", flush=True)
    time.sleep(seconds)
    return "rested"

@app.function("async")
async def block_the_loop():
    print("blocking", flush=True)
    time.sleep(60)

@app.function("async")
async def loop_module() -> str: return type(asyncio.get_running_loop()).__module__

@app.function("process")
def kill_the_worker(): os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    app.start()
"""

#: What a server can run in; see PRPC_EVENT_LOOP.
LOOPS = ("asyncio", "uvloop")

pytestmark = pytest.mark.real_redis


class Process:
    """A command whose output is read line by line."""

    def __init__(self, *command: str, cwd: Path, environ: dict[str, str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ}
        self.child = subprocess.Popen(
            command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.seen: list[str] = []

    @property
    def output(self) -> str:
        return "".join(self.seen)

    def until(self, pattern: str) -> str:
        """Read until a line matches."""
        stream: IO[str] | None = self.child.stdout
        assert stream is not None
        for line in stream:
            self.seen.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} was not printed:\n{self.output}")

    def end(self, number: int | None = None) -> int:
        """Send a signal, wait for the end and return the exit code."""
        if number is not None:
            self.child.send_signal(number)
        rest, _ = self.child.communicate(timeout=30)
        self.seen.append(rest)
        return self.child.returncode


Start = Callable[..., Process]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SERVER)
    return tmp_path


@pytest.fixture
def start(folder: Path, redis_url: str, queue: str) -> Iterator[Start]:
    processes: list[Process] = []

    def make(*arguments: str, **environ: str) -> Process:
        variables = {"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": redis_url, "PRPC_QUEUE_NAME": queue, **environ}
        processes.append(Process(sys.executable, *arguments, cwd=folder, environ=variables))
        return processes[-1]

    yield make
    for process in processes:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate()


@pytest.fixture
def client(redis_url: str, queue: str) -> Iterator[Client]:
    with Client("redis", redis_url, queue) as made:
        yield made


@pytest.mark.parametrize("loop", LOOPS)
def test_a_script_serves_drains_on_sigterm_and_exits_with_0(start: Start, client: Client, loop: str) -> None:
    server = start("shop.py", PRPC_EVENT_LOOP=loop)
    assert "serving 6 functions" in server.until("serving")
    assert client.call("summ", 1, 2).result(20) == 3.5
    assert client.call("hello_world").result(20) is None
    assert client.call("loop_module").result(20).partition(".")[0] == loop
    nap = client.call("nap", 0.5)
    server.until("napping")
    server.child.send_signal(signal.SIGTERM)
    server.until("stopping: 1 calls run")
    assert nap.result(20) == "rested"
    assert server.end() == 0
    assert f"{nap.message.message_id} nap() ok" in server.output
    assert "Traceback" not in server.output


@pytest.mark.parametrize("loop", LOOPS)
def test_after_the_grace_time_the_rest_is_answered_and_the_exit_code_says_so(start: Start, client: Client, loop: str) -> None:
    server = start("shop.py", PRPC_SHUTDOWN_GRACE_SEC="0.1", PRPC_EVENT_LOOP=loop)
    nap = client.call("nap", 60)
    server.until("napping")
    assert server.end(signal.SIGINT) == 3
    assert "Traceback" not in server.output
    with pytest.raises(ServerShutdownError):
        nap.result(20)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_that_is_killed_is_named_and_replaced(start: Start, client: Client, loop: str) -> None:
    server = start("shop.py", PRPC_EVENT_LOOP=loop)
    with pytest.raises(WorkerLostError):
        client.call("kill_the_worker").result(20)
    assert client.call("summ", 1, 2).result(20) == 3.5
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.output


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("function", ["nap", "block_the_loop"])
def test_a_second_signal_ends_at_once(start: Start, client: Client, function: str, loop: str) -> None:
    server = start("shop.py", PRPC_EVENT_LOOP=loop)
    call = client.call(function, *([60] if function == "nap" else []))
    server.until("napping|blocking")
    while server.child.poll() is None:  # two signals in one moment are one
        server.child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.child.wait(0.05)
    assert server.end() == 128 + signal.SIGTERM
    call.cancel()


def test_logs_as_json(start: Start, client: Client) -> None:
    server = start("-m", "prpc", "run", "shop:app", PRPC_LOG_FORMAT="json")
    server.until("serving")
    client.call("hello_world").result(20)
    line = json.loads(server.until("hello_world"))
    assert (line["function"], line["outcome"]) == ("hello_world", "ok")
    assert server.end(signal.SIGTERM) == 0


def test_run_and_ping(start: Start, client: Client) -> None:
    ping = start("-m", "prpc", "ping", "--wait", "20")
    server = start("-m", "prpc", "run", "shop")
    assert ping.end() == 0
    assert ping.output == "pong\n"
    assert client.call("summ", 1, 2).result(20) == 3.5
    assert server.end(signal.SIGTERM) == 0


def test_ping_without_a_server(start: Start) -> None:
    ping = start("-m", "prpc", "ping", "--timeout", "1")
    assert ping.end() == 1
    assert ping.output.startswith("prpc: ") and ping.output.count("\n") == 1


@pytest.mark.parametrize("command", [["shop.py"], ["-m", "prpc", "run", "shop:app"], ["-m", "prpc", "ping"]])
def test_an_unreachable_broker_is_one_line_and_exit_code_1(start: Start, command: list[str]) -> None:
    process = start(*command, PRPC_URL_BROKER="redis://:geheim@127.0.0.1:1/0", PRPC_CONNECT_TIMEOUT_SEC="1")
    assert process.end() == 1
    assert process.output.startswith("prpc: ") and process.output.count("\n") == 1
    assert "127.0.0.1:1" in process.output and "geheim" not in process.output


def test_a_wrong_environment_value_is_one_line(start: Start) -> None:
    process = start("-m", "prpc", "run", "shop:app", PRPC_MAX_NUMBER_WORKER="many")
    assert process.end() == 1
    assert process.output == "prpc: PRPC_MAX_NUMBER_WORKER='many' cannot be used: allowed is a whole number from 1 up\n"


def test_reload_serves_what_was_saved(start: Start, client: Client, folder: Path) -> None:
    server = start("-m", "prpc", "run", "shop:app", "--reload")
    server.until("serving")
    (folder / "shop.py").write_text("this is no Python")
    server.until("SyntaxError")
    (folder / "shop.py").write_text(SERVER.replace("return a + b + z", "return 'new'"))
    server.until("serving")
    assert client.call("summ", 1, 2).result(20) == "new"
    assert server.end(signal.SIGTERM) == 0
    server.child.wait()
    with pytest.raises(ClientTimeOutError):
        client.call("summ", 1, 2).result(0.2)


class TestTargets:
    @pytest.fixture(autouse=True)
    def here(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        for name in ("shop", "needy", "shops", "shops.inner"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    def test_found(self, folder: Path) -> None:
        (folder / "shops").mkdir()
        (folder / "shops" / "__init__.py").touch()
        (folder / "shops" / "inner.py").write_text("from prpc import AppServer\nclass Holder:\n    app = AppServer('memory')\n")
        assert isinstance(load_app("shop"), AppServer)
        assert isinstance(load_app("shop:app"), AppServer)
        assert isinstance(load_app("shops.inner:Holder.app"), AppServer)

    @pytest.mark.parametrize(
        ("target", "text"),
        [
            ("", "'' cannot be used: allowed is module:app"),
            ("shop.py", "or on Python's path; shop:app names the file"),
            ("./shop:app", "'./shop:app' cannot be used"),
            ("nowhere:app", "there is no module 'nowhere' in"),
            ("shop:server", "module 'shop' has no 'server'; its AppServers are: app"),
            ("shop:app.nothing", "module 'shop' has no 'app.nothing'"),
            ("shop:summ", "'shop:summ' is a function, not an AppServer"),
        ],
    )
    def test_mistakes_are_named(self, target: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", target]) == 1
        assert text in capsys.readouterr().err

    def test_a_module_that_misses_another_shows_where(self, folder: Path) -> None:
        (folder / "needy.py").write_text("import does_not_exist")
        with pytest.raises(ModuleNotFoundError, match="does_not_exist"):
            load_app("needy")

    def test_what_a_module_raises_passes_through(self, folder: Path) -> None:
        (folder / "needy.py").write_text("1 / 0")
        with pytest.raises(ZeroDivisionError):
            load_app("needy")

    def test_the_current_folder_is_searched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[Any] = []
        monkeypatch.setattr(sys, "path", sys.path[1:])
        monkeypatch.setattr(AppServer, "start", lambda app: started.append(app))
        assert main(["run", "shop:app"]) == 0
        assert len(started) == 1

    @pytest.mark.parametrize("arguments", [[], ["ping", "--timeout", "soon"], ["ping", "--timeout", "-1"], ["walk"]])
    def test_wrong_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: python -m prpc" in capsys.readouterr().err

    def test_ping_waits_for_a_server_to_appear(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        answers: list[Any] = [BrokerUnavailableError("not yet"), NoServerError("nobody"), "pong"]

        def ping(timeout: float) -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return f"{answer} {timeout:g}"

        monkeypatch.setattr("prpc.app_client.ping", ping)
        monkeypatch.setattr("prpc.__main__._LOOK_AGAIN_AFTER", 0.001)
        assert main(["ping", "--timeout", "3", "--wait", "60"]) == 0
        assert capsys.readouterr().out == "pong 3\n"
        answers.append(NoServerError("nobody serves the queue"))
        assert main(["ping"]) == 1
        assert capsys.readouterr().err == "prpc: nobody serves the queue\n"

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert "run" in text and "ping" in text and "prpc.create_server_func" in text

    def test_reload_without_watchfiles(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setitem(sys.modules, "watchfiles", None)
        assert main(["run", "shop:app", "--reload"]) == 1
        assert "pip install 'prpc[reload]'" in capsys.readouterr().err


def test_configuration_error_is_what_load_app_raises() -> None:
    with pytest.raises(ConfigurationError):
        load_app("1:2")
