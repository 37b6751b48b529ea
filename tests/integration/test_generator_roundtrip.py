"""The generator's command against a real server process on a real Redis: write, use, change the server, notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SERVER = '''
import asyncio
import dataclasses
import datetime
import enum

from prpc import AppServer

app = AppServer(max_number_worker=2)


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class Order:
    who: str
    lines: list[str] = dataclasses.field(default_factory=list)
    size: Size = Size.SMALL


@app.decorator_reg_func()
def place(order: Order, day: datetime.date = datetime.date(2024, 1, 2), *, note: str = {note!r}) -> Order:
    """Place an order."""
    return Order(f"{{order.who}} {{day:%d.%m.}} {{note}}", order.lines[::-1], order.size)


@app.decorator_reg_func("async")
async def double(number: int) -> int:
    return 2 * number


class Stock:
    def left(self, name: str, /) -> int:
        return len(name)


app.register_service(Stock(), prefix="stock.")

if __name__ == "__main__":
    app.start()
'''

CLIENT = """
import asyncio
import datetime
from server_func import Order, Size, double, place, stock_left

order = place(Order("me", ["tea", "cake"], Size.LARGE)).result(20)
assert order == Order("me 02.01. NOTE", ["cake", "tea"], Size.LARGE), order
assert place(Order("x"), datetime.date(2025, 2, 3), note="n").result(20).who == "x 03.02. n"
assert stock_left("tea").result(20) == 3

async def main() -> None:
    assert await double(4) == 8

asyncio.run(main())
print("done")
"""


@pytest.fixture
def environ(redis_url: str, queue: str) -> dict[str, str]:
    mine = {"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": redis_url, "PRPC_QUEUE_NAME": queue, "PYTHONPATH": str(ROOT)}
    return {**os.environ, **mine}


def run(*arguments: str, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=50)


@pytest.fixture
def serving(tmp_path: Path, environ: dict[str, str]) -> Callable[[str], object]:
    @contextmanager
    def serve(note: str) -> Iterator[None]:
        (tmp_path / "server.py").write_text(SERVER.format(note=note))
        with (tmp_path / "server.log").open("w") as log:
            process = subprocess.Popen([sys.executable, "server.py"], cwd=tmp_path, env=environ, stdout=log, stderr=log)
            try:
                ready = run("-m", "prpc", "ping", "--wait", "30", folder=tmp_path, environ=environ)
                assert ready.returncode == 0, ready.stderr + (tmp_path / "server.log").read_text()
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0

    return serve


@pytest.mark.real_redis
def test_write_use_change_notice(tmp_path: Path, environ: dict[str, str], serving: Callable[[str], Iterator[None]]) -> None:
    generator = ("-m", "prpc.create_server_func")
    with serving("NOTE"):  # type: ignore[attr-defined]
        assert run(*generator, "--check", folder=tmp_path, environ=environ).returncode == 1
        wrote = run(*generator, folder=tmp_path, environ=environ)
        assert wrote.returncode == 0 and wrote.stdout.startswith("wrote server_func.py: 4 functions, schema "), wrote
        assert run(*generator, "--check", folder=tmp_path, environ=environ).returncode == 0
        (tmp_path / "client.py").write_text(CLIENT)
        used = run("client.py", folder=tmp_path, environ=environ)
        assert (used.returncode, used.stdout) == (0, "done\n"), used.stderr
    with serving("other"):  # type: ignore[attr-defined]
        old = run(*generator, "--check", folder=tmp_path, environ=environ)
        assert old.returncode == 1 and 'note: str = "other")' in old.stdout
    gone = run(*generator, "--timeout", "2", folder=tmp_path, environ=environ)
    assert gone.returncode == 2 and "no server serves the queue" in gone.stderr and gone.stderr.count("\n") == 1
