"""Calls of idempotent functions outlive what happens to servers and to Redis: real processes, a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from prpc.app_client import Client, RemoteFunction, remote_function
from prpc.dev_broker import DevBroker

pytestmark = [pytest.mark.real_redis, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0

SERVER = """
import os, sys, time
from pathlib import Path
from prpc import AppServer

app = AppServer("redis", sys.argv[1], name_queue="q", redis_heartbeat=0.2, redis_recover=1.0)
first = Path(sys.argv[2])

@app.function("thread", idempotent=True)
def work(x: int) -> int:
    if not first.exists():
        first.touch()
        print("working", flush=True)
        time.sleep(1000)
    return x + 1

app.start()
"""


@remote_function("work", idempotent=True)
def work(x: int) -> int:
    raise NotImplementedError


class Servers:
    """Server processes of one test."""

    def __init__(self, url: str, folder: Path) -> None:
        self.file, self.words = folder / "server_of_repeats.py", (url, str(folder / "first"))
        self.file.write_text(SERVER)
        self.started: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, str(self.file), *self.words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.started.append(server)
        return server

    def close(self) -> None:
        for server in self.started:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()


@pytest.fixture
def broker(private_redis: Callable[..., DevBroker]) -> DevBroker:
    return private_redis()


@pytest.fixture
def servers(broker: DevBroker, tmp_path: Path) -> Iterator[Servers]:
    made = Servers(broker.url, tmp_path)
    yield made
    made.close()


def patient(client: Client) -> RemoteFunction[[int], int]:
    return work.options(client=client, timeout=PATIENCE, retries=50, attempt_timeout=0.5, backoff=0.1)


def kill_at_work(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None and server.stdout.readline() == "working\n"
    server.send_signal(signal.SIGKILL)
    server.wait()


def test_a_server_that_was_killed_and_started_again_answers_the_repeat(broker: DevBroker, servers: Servers) -> None:
    with Client("redis", broker.url, "q") as client:
        task = patient(client)(1)
        kill_at_work(servers.start())
        servers.start()
        assert task.result(PATIENCE) == 2


def test_a_call_that_redis_forgot_is_sent_again(broker: DevBroker, servers: Servers) -> None:
    with Client("redis", broker.url, "q") as client, redis.Redis.from_url(broker.url) as admin:
        task = patient(client)(1)
        kill_at_work(servers.start())
        admin.flushall()
        servers.start()
        assert task.result(PATIENCE) == 2


def test_a_call_outlives_a_restart_of_redis_without_memory(
    broker: DevBroker, private_redis: Callable[..., DevBroker], servers: Servers
) -> None:
    with Client("redis", broker.url, "q", connect_timeout=1.0) as client:
        assert client.servers() == []
        broker.close()
        task = patient(client)(1)
        private_redis(port=broker.port)
        kill_at_work(servers.start())
        servers.start()
        assert task.result(PATIENCE) == 2
