"""What the workers' conformance tests share."""

import asyncio
import contextlib
import contextvars
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from prpc.call_context import CurrentCall, bind_current_call
from prpc.deadline import Deadline, SystemClock
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import Job, WorkerKind

#: Seconds after which a test gives up waiting for an event.
PATIENCE = 30


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(50):
            await coroutine

    asyncio.run(bounded())


def worker_processes():
    """Processes below this one, without the brokers that the test session started and what multiprocessing keeps for ever."""
    return [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return "python" in child.name() and not any("resource_tracker" in word for word in child.cmdline())
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return False


async def soon(future):
    """What the future gives; it must come, however long the machine takes."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.shield(future)


def make_job(function, *args: Any, timeout: float | None = None, message_id: str = "m-1", **kwargs: Any) -> Job:
    name = function.__name__
    clock = SystemClock()
    facts = {"message_id": message_id, "function": name, "headers": {"who": "me"}, "timeout": 60.0, "attempt": 2}
    context = contextvars.copy_context()
    call = CurrentCall(message_id, name, {"who": "me"}, Deadline.after(clock, 60.0), 2, clock)
    context.run(bind_current_call, call)
    return Job(message_id, name, function, args, kwargs, timeout, context, facts)


@contextlib.asynccontextmanager
async def started(kind: str, slots: int = 2, *, functions=(), **settings: Any) -> AsyncIterator[Any]:
    pool = create_pool(WorkerKind(kind), slots, Settings(type_broker="memory", **settings), functions=functions)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


class Guest:
    """Somebody who connected to the meeting point."""

    def __init__(self, name: str, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name, self.pid = name, pid
        self._reader, self._writer = reader, writer

    def let_go(self, word: str = "go") -> None:
        self._writer.write(word.encode())

    async def end(self) -> None:
        """Wait until its connection breaks: it has ended."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                await self._reader.read()


class Meeting:
    """A meeting point: functions connect and wait for a word, so the test knows who runs and who has ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self._folder.name) / "s")
        self._guests: asyncio.Queue[Guest] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Meeting":
        self._server = await asyncio.start_unix_server(self._on_guest, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        self._folder.cleanup()

    async def _on_guest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        name, _, pid = (await reader.readline()).decode().strip().partition(" ")
        self._guests.put_nowait(Guest(name, int(pid), reader, writer))

    async def guest(self) -> Guest:
        async with asyncio.timeout(PATIENCE):
            return await self._guests.get()

    async def guests(self, count: int) -> dict[str, Guest]:
        found = [await self.guest() for _ in range(count)]
        return {guest.name: guest for guest in found}
