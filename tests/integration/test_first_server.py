"""The server that the documentation of the interface begins with, as a user runs it: a script, the generator, a client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SERVER = """
import datetime
from prpc import AppServer                  # also prpc.app_server.AppServer
app = AppServer("redis", "redis://localhost:6379/0", "thread", 4, datetime.timedelta(seconds=100))

@app.decorator_reg_func("process")
def summ(a: int | float, b, z=0.5): return a + b + z

@app.decorator_reg_func()
def hello_world(): ...

if __name__ == "__main__":
    app.start()
"""

CLIENT = """
import asyncio
import datetime
from server_func import summ, hello_world

task = hello_world()
assert task.sync_wait_result_task(datetime.timedelta(seconds=20)) is None
assert task.is_done_task() and task.get_result() is None and task.message.is_done

async def main():
    assert await summ(1, 2) == 3.5
    assert await summ(1, 2, z=1).async_wait_result_task(datetime.timedelta(seconds=20)) == 4

asyncio.run(main())
"""


@pytest.mark.real_redis
def test_it_serves_what_it_registers(tmp_path: Path, redis_url: str, queue: str) -> None:
    environ = {
        **os.environ,
        "PRPC_TYPE_BROKER": "redis",
        "PRPC_URL_BROKER": redis_url,
        "PRPC_QUEUE_NAME": queue,
        "PYTHONPATH": str(ROOT),
    }
    # The URL alone is another one than in the text: port 6379 of the machine is not ours.
    (tmp_path / "server.py").write_text(SERVER.replace("redis://localhost:6379/0", redis_url))
    (tmp_path / "client.py").write_text(CLIENT)
    server = subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        for command in (["-m", "prpc", "ping", "--wait", "30"], ["-m", "prpc.create_server_func"], ["client.py"]):
            done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    finally:
        server.terminate()
        _, log = server.communicate(timeout=30)
    assert server.returncode == 0
    assert "summ() ok" in log and "hello_world() ok" in log
