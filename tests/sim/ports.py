"""Ports on which a simulated process listens, and the probes that come there: what `asyncio.start_server` does in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from prpc.server import health_http
from tests.sim.hosts import HOST, Host
from tests.sim.loop import SimLoop

__all__ = ["patch", "probe"]

_real = asyncio.start_server
Serve = Callable[[asyncio.StreamReader, Any], Coroutine[Any, Any, None]]


class _Transport:
    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def abort(self) -> None:
        self._writer.close()
        self._writer.reader.set_exception(ConnectionAbortedError())


class _Writer:
    """The server's end of one connection; it ends as the reader goes away."""

    def __init__(self, reader: asyncio.StreamReader, gone: bool) -> None:
        self.reader, self._gone = reader, gone
        self.transport = _Transport(self)
        self.sent = bytearray()
        self.closed = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        if self._gone:
            raise ConnectionResetError("the probe has gone")

    def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(bytes(self.sent))

    async def wait_closed(self) -> None:
        if self._gone:
            raise ConnectionResetError("the probe has gone")


class _Listening:
    def __init__(self, host: Host, port: int, serve: Serve, limit: int) -> None:
        self._host, self._port, self.serve, self.limit = host, port, serve, limit
        host.globals.setdefault("ports", {})[port] = self

    def close(self) -> None:
        del self._host.globals["ports"][self._port]

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)


async def _start_server(serve: Serve, host: str, port: int, *, limit: int) -> Any:
    if not isinstance(asyncio.get_running_loop(), SimLoop):
        return await _real(serve, host, port, limit=limit)
    here = HOST.get().process
    if port in here.globals.get("ports", {}) or port in here.globals["world"].taken_ports:
        raise OSError(98, "Address already in use")
    return _Listening(here, port, serve, limit)


def patch() -> list[tuple[Any, str, Any]]:
    """What has to be put where."""
    assert health_http.asyncio is asyncio
    return [(asyncio, "start_server", _start_server)]


async def probe(host: Host, port: int, *parts: bytes, pause: float = 0.0, ends: bool = True, gone: bool = False) -> bytes | None:
    """Connect to a port of a process, send this, and get the answer; None where nobody listens."""
    listening = host.globals.get("ports", {}).get(port)
    if listening is None or not host.alive:
        return None
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    reader = asyncio.StreamReader(limit=listening.limit, loop=loop)
    writer = _Writer(reader, gone)
    loop.spawn(host, listening.serve(reader, writer), "probe")
    for part in parts:
        if not writer.closed.done():
            loop.on(host, _feed, reader, part)
        await asyncio.sleep(pause)
    if ends:
        loop.on(host, reader.feed_eof)
    with suppress(TimeoutError):
        async with asyncio.timeout(10.0):
            answer: bytes = await asyncio.shield(writer.closed)
            return answer
    return None


def _feed(reader: asyncio.StreamReader, part: bytes) -> None:
    if reader.exception() is None:
        reader.feed_data(part)
