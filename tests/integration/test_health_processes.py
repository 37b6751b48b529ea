"""Health, presence and who runs what, of real servers on a real Redis that is frozen, flushed, restarted or half-dead."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from swallowing_proxy import SwallowingProxy
from test_server_command import SERVER, Process

from prpc.app_client import Client
from prpc.dev_broker import DevBroker
from prpc.exceptions import NoServerError

pytestmark = pytest.mark.real_redis

Start = Callable[..., Process]
#: A window so long that no announcement is repeated within a test.
NEVER_AGAIN = "600"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "shop.py").write_text(SERVER)
    processes: list[Process] = []

    def make(url: str, *arguments: str, **environ: str) -> Process:
        variables = {"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": url, "PRPC_QUEUE_NAME": "q", **environ}
        processes.append(Process(sys.executable, *(arguments or ("shop.py",)), cwd=tmp_path, environ=variables))
        return processes[-1]

    yield make
    for process in processes:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])


def ask(port: str, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def until(port: str, path: str, code: int) -> str | None:
    """Ask until that is the answer; returns why it is."""
    while True:
        answered, content = ask(port, path)
        assert content["instance"] == "pod-1" and content["ok"] is (answered == 200)
        if answered == code:
            why: str | None = content["why"]
            return why


def told(start: Start, url: str, *arguments: str, **environ: str) -> tuple[int, str]:
    command = start(url, "-m", "prpc", *arguments, **environ)
    return command.end(), command.output


def test_a_frozen_broker_is_seen_and_so_is_its_return(private_redis: Callable[..., DevBroker], start: Start) -> None:
    broker, port = private_redis(), free_port()
    window = {"PRPC_HEALTH_WINDOW_SEC": "2", "PRPC_BROKER_SILENCE_SEC": "1", "PRPC_CONNECT_TIMEOUT_SEC": "1"}
    server = start(broker.url, PRPC_HEALTH_PORT=port, PRPC_INSTANCE_NAME="pod-1", **window)
    server.until("serving")
    assert until(port, "ready", 200) is None
    assert told(start, broker.url, "health", PRPC_INSTANCE_NAME="pod-1") == (0, "ready\n")
    broker.process.send_signal(signal.SIGSTOP)
    why = until(port, "ready", 503)
    assert why is not None and why.startswith("no answer from the broker for ")
    assert ask(port, "live") == (200, {"ok": True, "why": None, "queue": "q", "instance": "pod-1"})
    code, text = told(start, broker.url, "health", "--timeout", "1")
    assert code == 1 and "Traceback" not in text
    broker.process.send_signal(signal.SIGCONT)
    assert until(port, "ready", 200) is None
    with Client("redis", broker.url, "q") as client:
        assert client.call("summ", 1, 2).result(20) == 3.5
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.output
    assert told(start, broker.url, "health", PRPC_INSTANCE_NAME="pod-1")[0] == 1


def test_a_draining_server_is_alive_and_not_ready(private_redis: Callable[..., DevBroker], start: Start) -> None:
    broker, port = private_redis(), free_port()
    server = start(broker.url, PRPC_HEALTH_PORT=port, PRPC_INSTANCE_NAME="pod-1")
    server.until("serving")
    with Client("redis", broker.url, "q") as client:
        nap = client.call("nap", 60)
        server.until("napping")
        server.child.send_signal(signal.SIGTERM)
        assert until(port, "ready", 503) == "the server is draining"
        assert until(port, "live", 200) is None
        while not client.servers()[0].info["draining"]:  # said at once, and yet not in the same moment
            pass
        with pytest.raises(NoServerError, match="those that are there stop"):
            client.ping()
        assert told(start, broker.url, "health", "--instance", "pod-1")[1] == "prpc: not ready: server pod-1 is draining\n"
        (row,) = json.loads(told(start, broker.url, "servers", "--json")[1])
        assert (row["instance"], row["draining"], row["running"], row["capacity"]) == ("pod-1", True, 1, 4)
        nap.cancel()
        assert server.end() == 0
        assert list(client.servers()) == []


def test_who_runs_what(private_redis: Callable[..., DevBroker], start: Start) -> None:
    broker = private_redis()
    server = start(broker.url, PRPC_INSTANCE_NAME="pod-1", PRPC_HEALTH_WINDOW_SEC="2", PRPC_TIMEOUT_WORKER_SEC="600")
    server.until("serving")
    with Client("redis", broker.url, "q") as client:
        nap = client.call("nap", 60)
        server.until("napping")
        while not (rows := json.loads(told(start, broker.url, "running", "--json")[1])):
            pass
        (row,) = rows
        assert row["id"] == str(nap.message.message_id)
        assert (row["function"], row["attempt"], row["instance"]) == ("nap", 1, "pod-1")
        assert row["worker"].startswith("prpc-thread-") and row["since"] < row["deadline"]
        nap.cancel()
        while client.servers()[0].info["abandoned"] != 1:  # the caller is gone, the thread naps on
            pass
        assert client.servers()[0].info["calls"] == []
    assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("fault", ["flush", "restart"])
def test_a_redis_that_forgot_everything_is_told_at_once(
    private_redis: Callable[..., DevBroker], start: Start, fault: str
) -> None:
    """Long before the next announcement is due."""
    broker = private_redis()
    server = start(broker.url, PRPC_INSTANCE_NAME="pod-1", PRPC_HEALTH_WINDOW_SEC=NEVER_AGAIN)
    server.until("serving")
    with Client("redis", broker.url, "q") as client:
        assert client.ping() == "pong"
        if fault == "flush":
            with redis.Redis.from_url(broker.url) as admin:
                admin.flushall()
        else:
            broker.close()
            private_redis(port=broker.port)
        assert told(start, broker.url, "ping", "--wait", "30") == (0, "pong\n")
        assert server.end(signal.SIGTERM) == 0


def test_connections_that_swallow_are_replaced(private_redis: Callable[..., DevBroker], start: Start) -> None:
    """Neither side hears that anything is wrong: calls, outcomes and wake-ups just vanish on the old connections."""
    broker = private_redis()
    quick = {"PRPC_BROKER_SILENCE_SEC": "0.5", "PRPC_HEALTH_WINDOW_SEC": "2", "PRPC_CONNECT_TIMEOUT_SEC": "2"}
    port = urlsplit(broker.url).port
    assert port is not None
    with SwallowingProxy(port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        server = start(url, **quick)
        server.until("serving")
        with Client("redis", url, "q", broker_silence=2.0) as client:
            nap = client.call("nap", 0.3)
            server.until("napping")
            assert proxy.swallow() >= 5
            assert nap.result(50) == "rested"
            assert client.call("summ", 1, 2).result(50) == 3.5
        assert server.end(signal.SIGTERM) == 0
        assert "no answer for 0.5 s" in server.output and "Traceback" not in server.output


def test_a_health_port_that_is_taken_is_one_line(redis_url: str, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start(redis_url, PRPC_HEALTH_PORT=str(taken.getsockname()[1]))
        assert server.end() == 1
    assert server.output.startswith("prpc: PRPC_HEALTH_PORT: the health port cannot listen at 127.0.0.1:")
    assert server.output.count("\n") == 1


def test_an_end_by_force_has_its_own_exit_code_also_from_run(private_redis: Callable[..., DevBroker], start: Start) -> None:
    """A broker that does not take the outcomes counts as well."""
    broker = private_redis()
    server = start(broker.url, "-m", "prpc", "run", "shop", PRPC_BROKER_SILENCE_SEC="0.5", PRPC_CONNECT_TIMEOUT_SEC="0.5")
    server.until("serving")
    with Client("redis", broker.url, "q") as client:
        nap = client.call("nap", 0.5)
        server.until("napping")
        broker.process.send_signal(signal.SIGSTOP)
        try:
            assert server.end(signal.SIGTERM) == 3
        finally:
            broker.process.send_signal(signal.SIGCONT)
        nap.cancel()
    assert "outcomes could not be handed over" in server.output


def test_commands_without_a_broker_are_one_line(start: Start) -> None:
    for command in ("health", "servers", "running"):
        code, text = told(start, "redis://:geheim@127.0.0.1:1/0", command, "--timeout", "1")
        assert code == 1
        assert text.startswith("prpc: ") and text.count("\n") == 1 and "geheim" not in text
