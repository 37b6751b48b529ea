"""One server process, stubs generated from it, and many calls and clients at once, over a real Redis on default settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

ROOT = Path(__file__).parent.parent.parent

SERVER = """
from prpc import AppServer

app = AppServer()

@app.function()
def double(x: int) -> int:
    return 2 * x

@app.function("async")
async def triple(x: int) -> int:
    return 3 * x

if __name__ == "__main__":
    app.start()
"""

CLIENT = """
import asyncio, sys
import prpc
from server_func import double, triple

count = int(sys.argv[1])

async def native():
    results = await prpc.gather(*(triple(i) for i in range(count)))
    assert results == [3 * i for i in range(count)]
    assert await double(1) == 2

tasks = [double(i) for i in range(count)]
assert [task.result(50) for task in tasks] == [2 * i for i in range(count)]
asyncio.run(native())
print("right")
"""


@pytest.fixture
def folder(tmp_path: Path, redis_url: str, queue: str) -> Iterator[tuple[Path, dict[str, str]]]:
    environ = {
        **os.environ,
        "PRPC_URL_BROKER": redis_url,
        "PRPC_QUEUE_NAME": queue,
        "PYTHONPATH": str(ROOT),
        "PRPC_LOG_LEVEL": "warning",
    }
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "client.py").write_text(CLIENT)
    server = subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, env=environ)
    try:
        for command in (["prpc", "ping", "--wait", "30"], ["prpc.create_server_func"]):
            subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, env=environ, check=True, stdout=subprocess.DEVNULL)
        yield tmp_path, environ
    finally:
        server.terminate()
        assert server.wait(30) == 0


def start(folder: tuple[Path, dict[str, str]], count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "client.py", str(count)]
    return subprocess.Popen(command, cwd=folder[0], env=folder[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client: subprocess.Popen[str]) -> None:
    out, err = client.communicate(timeout=100)
    assert (client.returncode, out, err) == (0, "right\n", "")


@pytest.mark.real_redis
@pytest.mark.timeout(120)
def test_five_thousand_calls_in_flight_from_each_face(folder: tuple[Path, dict[str, str]], redis_url: str, queue: str) -> None:
    finish(start(folder, 5000))
    with redis.Redis.from_url(redis_url, decode_responses=True) as bare:
        assert bare.xlen(f"prpc_{queue}") == 0
        assert list(bare.scan_iter(f"prpc_feedback_{queue}_*", count=1000)) == []


@pytest.mark.real_redis
@pytest.mark.timeout(120)
def test_twenty_client_processes_at_once(folder: tuple[Path, dict[str, str]]) -> None:
    for client in [start(folder, 50) for _ in range(20)]:
        finish(client)
