"""Wall clocks that can be set: a program's own, and that of Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from prpc.dev_broker import start_dev_broker
from tests.chaos.clocks import CLOCK_FILE, HOUR, SIGNAL, redis_with_a_clock, set_clock
from tests.chaos.world import ROOT

#: Says for each line of its input what it takes the time for: by `time`, by PRPC, and by the clock that measures.
TELLER = """
import sys, time
from prpc.deadline import SystemClock
for line in sys.stdin:
    print(time.time(), SystemClock().now().timestamp(), time.monotonic(), flush=True)
"""


def test_a_program_has_the_clock_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "teller.py").write_text(TELLER)
    file = tmp_path / "teller.clock"
    set_clock(file, HOUR)
    environ = {**os.environ, CLOCK_FILE: str(file), "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-m", "tests.chaos.shifted_program", "teller"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert offsets(program) == [HOUR, HOUR, 0]
            set_clock(file, -HOUR)
            program.send_signal(SIGNAL)
            end = time.monotonic() + 10
            while (told := offsets(program)) != [-HOUR, -HOUR, 0]:
                assert told == [HOUR, HOUR, 0] and time.monotonic() < end
        finally:
            program.send_signal(signal.SIGKILL)


def offsets(program: subprocess.Popen[str]) -> list[float]:
    """How many minutes' worth of seconds the clocks of a program are ahead."""
    assert program.stdin is not None and program.stdout is not None
    print("now", file=program.stdin, flush=True)
    told = (float(word) for word in program.stdout.readline().split())
    real = (time.time(), time.time(), time.monotonic())
    return [round((shown - right) / 60) * 60 for shown, right in zip(told, real, strict=True)]


@pytest.mark.real_redis
def test_redis_has_the_clock_of_its_file(tmp_path: Path) -> None:
    try:
        server = redis_with_a_clock(tmp_path)
    except LookupError as exc:
        pytest.skip(str(exc))
    with start_dev_broker(server=server) as broker, redis.Redis.from_url(broker.url) as client:
        for ahead in (0.0, HOUR, -HOUR):
            set_clock(tmp_path / "redis.clock", ahead)
            assert abs(client.time()[0] - time.time() - ahead) < 60
