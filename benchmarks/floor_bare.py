"""Floors e2 and e3: the same exchange as e1 over a protocol of one's own, one write per tick of the loop.

Nothing but hiredis and the loop is between a call and Redis: e2 runs on asyncio's own loop, e3 on uvloop's. What the
commands are, and what is left out, stands in floors.py.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgspec

__all__ = ["client", "serve"]

_STREAM, _GROUP, _BATCH = "floor", "g", 500
_MORE = object()

_write = msgspec.msgpack.Encoder().encode
_read_results = msgspec.msgpack.Decoder(list[tuple[int, Any]]).decode


class _Call(msgspec.Struct, array_like=True):
    number: int
    args: tuple[Any, Any]
    to: str


_read_call = msgspec.msgpack.Decoder(_Call).decode


class _Connection(asyncio.Protocol):
    """Commands of one tick go out in one write; what Redis pushes goes to `pushed`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[Callable[[Any], None] | None] = deque()
        self._buffer: list[bytes] = []
        self._transport: Any = None
        self.pushed: Callable[[Any], None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not _MORE:
            if type(answer) is hiredis.PushNotification:
                if self.pushed is not None:
                    self.pushed(answer)
            elif isinstance(answer, Exception):
                raise answer
            elif (then := self._waiting.popleft()) is not None:
                then(answer)

    def send(self, *words: Any, then: Callable[[Any], None] | None = None, answered: bool = True) -> None:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(hiredis.pack_command(words))
        if answered:
            self._waiting.append(then)

    async def ask(self, *words: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.send(*words, then=answer.set_result)
        return await answer

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        self._transport.write(b"".join(buffer))


async def _connect(url: str) -> _Connection:
    place = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, place.hostname or "", place.port or 6379)
    await connection.ask("HELLO", "3")
    return connection


class _Server:
    """Runs each call in a task, as a server of coroutines must."""

    def __init__(self, reading: _Connection, writing: _Connection) -> None:
        self._reading, self._writing, self._loop = reading, writing, asyncio.get_running_loop()
        self._results: defaultdict[str, list[tuple[int, Any]]] = defaultdict(list)
        self._done: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        await self._reading.ask("XGROUP", "CREATE", _STREAM, _GROUP, "$", "MKSTREAM")
        read = ("XREADGROUP", "GROUP", _GROUP, "c", "COUNT", _BATCH, "BLOCK", 2000, "STREAMS", _STREAM, ">")
        while True:
            for entries in (await self._reading.ask(*read) or {}).values():
                for entry, fields in entries:
                    task = self._loop.create_task(self._run(_read_call(fields[1]), entry))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _run(self, call: _Call, entry: bytes) -> None:
        if not self._done:
            self._loop.call_soon(self._flush)
        self._results[call.to].append((call.number, call.args[0] + call.args[1]))
        self._done.append(entry)

    def _flush(self) -> None:
        send = self._writing.send
        for to, results in self._results.items():
            for result in results:
                send("SET", f"floor:{to}:{result[0]}", _write(result), "EX", 600)
            send("PUBLISH", to, _write(results))
        send("XACK", _STREAM, _GROUP, *self._done)
        send("XDEL", _STREAM, *self._done)
        self._results.clear()
        self._done = []


class _Client:
    def __init__(self, connection: _Connection) -> None:
        self._connection, self.channel = connection, f"floor:{uuid.uuid4().hex}"
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        connection.pushed = self._pushed

    async def add(self, a: Any, b: Any) -> Any:
        self._number += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        self._connection.send("XADD", _STREAM, "*", "d", _write(_Call(self._number, (a, b), self.channel)))
        return await future

    def _pushed(self, push: Any) -> None:
        if push[0] == b"message":
            for number, result in _read_results(push[2]):
                self._waiting.pop(number).set_result(result)


async def serve(url: str) -> None:
    """Until it is cancelled."""
    await _Server(await _connect(url), await _connect(url)).serve()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Callable[[Any, Any], Awaitable[Any]]]:
    """What adds two numbers, or texts, on a server."""
    connection = await _connect(url)
    calls = _Client(connection)
    connection.send("SUBSCRIBE", calls.channel, answered=False)
    await connection.ask("PING")
    yield calls.add
