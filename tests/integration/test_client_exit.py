"""A program that ends right after its calls loses none of them, over a real Redis: whatever the way it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

ROOT = Path(__file__).parent.parent.parent

PLAIN = "prpc.AwaitableTask('f', (1,))"
ENDINGS = {
    "a script": (PLAIN, 1),
    "a script that many calls": (f"for _ in range(300): {PLAIN}", 300),
    "asyncio.run": (f"async def main(): {PLAIN}\nasyncio.run(main())", 1),
    "asyncio.run twice": (f"async def main(): {PLAIN}\nasyncio.run(main()); asyncio.run(main())", 2),
    "an exception": (f"{PLAIN}\nraise SystemExit(0)", 1),
    "a thread that goes on": (f"import threading\nthreading.Thread(target=lambda: {PLAIN}).start()", 1),
    "a thread that goes on after calls": (f"{PLAIN}\nimport threading\nthreading.Timer(0.2, lambda: {PLAIN}).start()", 2),
    "a forked child": (f"{PLAIN}\nif os.fork() == 0:\n    {PLAIN}\nelse:\n    os.wait()", 2),
}


@pytest.mark.real_redis
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_no_call_is_lost(ending: str, host: str, redis_url: str, queue: str) -> None:
    if ending == "a thread that goes on" and (3, 12) <= sys.version_info < (3, 12, 2):
        pytest.skip("this Python refuses new threads once the main one has ended (python/cpython#113964)")
    code, count = ENDINGS[ending]
    environ = {
        **os.environ,
        "PRPC_URL_BROKER": redis_url.replace("127.0.0.1", host),
        "PRPC_QUEUE_NAME": queue,
        "PYTHONPATH": str(ROOT),
    }
    # 3.12 and later warn of any fork beside threads.
    command = [
        sys.executable,
        "-W",
        "ignore:This process:DeprecationWarning",
        "-c",
        "import asyncio, os, prpc, prpc.app_client\n" + code,
    ]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with redis.Redis.from_url(redis_url) as bare:
        assert bare.xlen(f"prpc_{queue}") == count


def test_calls_that_could_not_be_sent_are_named_at_the_end() -> None:
    environ = {**os.environ, "PRPC_URL_BROKER": "redis://127.0.0.1:1/0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import prpc\n" + PLAIN]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    assert "nothing listens there" in done.stderr and "Traceback" not in done.stderr
