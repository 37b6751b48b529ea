"""The health port: answers `GET /live` and `GET /ready`, and nothing else.

For probes only, so it is strict: one request per connection, within narrow limits of size, time and number. What it reads is
looked at and never kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from prpc.exceptions import ConfigurationError

__all__ = ["HealthPort"]

log = logging.getLogger(__name__)

#: Most bytes of a request up to the empty line; a body is not read.
MOST_BYTES = 4096
#: Seconds for one connection, from its first byte to its end.
MOST_SECONDS = 3.0
#: Connections at once; one more is closed unread.
MOST_CONNECTIONS = 32

#: Path -> a check that tells why the answer is no (None: it is yes).
Checks = Mapping[str, Callable[[], str | None]]


class HealthPort:
    """A small HTTP server in the running event loop. `facts` stand in each answer."""

    def __init__(self, host: str, port: int, checks: Checks, facts: Mapping[str, str]) -> None:
        self._host, self._port = host, port
        self._checks, self._facts = checks, facts
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def open(self) -> None:
        """Listen. Raises ConfigurationError where the port or the address cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MOST_BYTES)
        except OSError as exc:
            place = f"{self._host}:{self._port}"
            text = f"PRPC_HEALTH_PORT: the health port cannot listen at {place}: {exc.strerror or exc}"
            raise ConfigurationError(text, variable="PRPC_HEALTH_PORT", value=str(self._port)) from exc

    async def close(self) -> None:
        """Stop listening and end the connections."""
        if self._server is None:
            return
        self._server.close()
        connections = dict(self._connections)
        for writer in connections.values():
            writer.transport.abort()
        await asyncio.gather(*connections)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) >= MOST_CONNECTIONS:
                return
            self._connections[task] = writer
            async with asyncio.timeout(MOST_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (TimeoutError, OSError) as exc:
            log.debug("a health probe was given up: %s", str(exc) or "too slow")
            writer.transport.abort()
        finally:
            self._connections.pop(task, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"why": "the request is too large"})
        except asyncio.IncompleteReadError:
            return _response(HTTPStatus.BAD_REQUEST, {"why": "the request ends too early"})
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
            return _response(HTTPStatus.BAD_REQUEST, {"why": "this is no HTTP/1.1 request"})
        if words[0] != b"GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"why": "only GET is answered"})
        check = self._checks.get(words[1].decode("latin-1"))
        if check is None:
            return _response(HTTPStatus.NOT_FOUND, {"why": "there is " + " and ".join(self._checks)})
        why = check()
        status = HTTPStatus.OK if why is None else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, {"ok": why is None, "why": why, **self._facts})


def _response(status: HTTPStatus, content: Mapping[str, object]) -> bytes:
    body = json.dumps(content).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET")
    return "\r\n".join([*lines, "", ""]).encode() + body
