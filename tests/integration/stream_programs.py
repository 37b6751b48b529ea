"""Programs of the tests of streams under faults: servers and clients as processes, which say on their output what happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: Seconds after which a test is given up that waits for what never comes.
PATIENCE = 60.0

SERVER = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from prpc import AppServer

app = AppServer()

def say(*words):
    print(*words, flush=True)

@app.function()
def count(token: str, number: int) -> Iterator[int]:
    say("begin", token)
    try:
        for value in range(number):
            yield value
    finally:
        say("end", token)

@app.function("async")
async def acount(token: str, number: int) -> AsyncIterator[int]:
    say("begin", token)
    try:
        for value in range(number):
            yield value
    finally:
        await asyncio.sleep(0)
        say("end", token)

@app.function(idempotent=True)
def again(token: str, number: int) -> Iterator[int]:
    yield from count(token, number)

@app.function("async", idempotent=True)
async def aagain(token: str, number: int) -> AsyncIterator[int]:
    async for value in acount(token, number):
        yield value

@app.function()
def total(token: str, numbers: Iterator[int]) -> list[int]:
    say("begin", token)
    try:
        found = list(numbers)
        return [len(found), sum(found)]
    finally:
        say("end", token)

@app.function("async")
async def atotal(token: str, numbers: AsyncIterator[int]) -> list[int]:
    say("begin", token)
    try:
        found = [number async for number in numbers]
        return [len(found), sum(found)]
    finally:
        say("end", token)

@app.function()
def add(one: int, other: int) -> int:
    return one + other

async def ready():
    await app.ready
    say("ready")

async def main():
    import signal
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(ready())
    loop.add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(app.stop()))
    await app.serve()
    await waiting

if __name__ == "__main__":
    asyncio.run(main())
"""

CLIENT = """
import sys, threading
from prpc import Client

kind, token = sys.argv[1:]

def endless():
    yield from range(100)
    threading.Event().wait()

with Client() as client:
    if kind.endswith("total"):
        task = client.call(kind, token, endless())
        print("begun", flush=True)
        task.sync_wait_result_task(None)
    else:
        stream = client.stream(kind, token, 10**9)
        print("read", next(stream), flush=True)
        threading.Event().wait()
"""


class Program:
    """One process, and the lines that it said."""

    def __init__(self, source: str, *words: str, environment: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.strip())
                self._changed.notify_all()

    def until(self, said: str | Callable[[list[str]], bool]) -> None:
        """Wait for a line."""
        happened = said if callable(said) else lambda lines: said in lines
        with self._changed:
            assert self._changed.wait_for(lambda: happened(self.lines), PATIENCE), (said, self.lines)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Place:
    """One queue at one broker, its settings, and the programs that were started there."""

    def __init__(self, type_broker: str, url: str, queue: str, **settings: object) -> None:
        self.environment = {
            "PRPC_TYPE_BROKER": type_broker,
            "PRPC_URL_BROKER": url,
            "PRPC_QUEUE_NAME": queue,
            "PRPC_STREAM_READER_TIMEOUT_SEC": "2",
            "PRPC_STREAM_WINDOW": "16",
            "PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": "0.5",
            "PRPC_REDIS_RECOVER_INTERVAL_SEC": "3",
            **{name: str(value) for name, value in settings.items()},
        }
        self.programs: list[Program] = []

    def server(self, **settings: object) -> Program:
        """A server that is ready."""
        environment = {**self.environment, **{name: str(value) for name, value in settings.items()}}
        program = Program(SERVER, environment=environment)
        self.programs.append(program)
        program.until("ready")
        return program

    def client(self, *words: str) -> Program:
        program = Program(CLIENT, *words, environment=self.environment)
        self.programs.append(program)
        return program

    def close(self) -> None:
        for program in self.programs:
            program.close()
