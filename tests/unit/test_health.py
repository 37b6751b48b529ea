"""When a server counts as ready, and what its health port answers to whom."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from prpc.deadline import SystemClock
from prpc.exceptions import ConfigurationError
from prpc.server import health_http
from prpc.server.health import Health, Phase
from prpc.server.health_http import HealthPort


class HandClock(SystemClock):
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_ready_is_a_round_trip_within_the_window() -> None:
    clock = HandClock()
    health = Health(clock, 6)
    assert health.obstacle() == "the server is starting"
    health.phase = Phase.SERVING
    assert health.silence is None
    assert health.obstacle() == "no answer from the broker yet"
    health.answered()
    assert health.obstacle() is None
    clock.seconds += 6
    assert health.obstacle() is None
    clock.seconds += 0.5
    assert health.obstacle() == "no answer from the broker for 6.5 s"
    health.answered()
    assert health.obstacle() is None
    health.phase = Phase.DRAINING
    assert health.obstacle() == "the server is draining"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@asynccontextmanager
async def opened(why: Callable[[], str | None] = lambda: None) -> AsyncIterator[int]:
    number = free_port()
    port = HealthPort("127.0.0.1", number, {"/live": lambda: None, "/ready": why}, {"instance": "one"})
    await port.open()
    try:
        yield number
    finally:
        await port.close()


async def send(port: int, request: bytes, *, end: bool = False) -> tuple[str, dict[str, Any]]:
    """Status line and content of the answer; both empty where there was none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if end:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert not body or f"Content-Length: {len(body)}\r\n".encode() in head
    return head.decode().partition("\r\n")[0], json.loads(body or b"{}")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_live_and_ready() -> None:
    async def work() -> None:
        reasons: list[str | None] = [None, "no answer from the broker for 7.0 s"]
        async with opened(lambda: reasons.pop(0)) as port:
            request = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
            assert await send(port, request % b"live") == ("HTTP/1.1 200 OK", {"ok": True, "why": None, "instance": "one"})
            assert (await send(port, request % b"ready"))[0] == "HTTP/1.1 200 OK"
            status, content = await send(port, request % b"ready")
            assert status == "HTTP/1.1 503 Service Unavailable"
            assert content == {"ok": False, "why": "no answer from the broker for 7.0 s", "instance": "one"}

    run(work())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /ready/../live HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"GET /\xff HTTP/1.0\r\n\r\n", "404 Not Found"),
        (b"POST /live HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        (b"get /live HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /live\r\n\r\n", "400 Bad Request"),
        (b"GET  /live HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /live HTTP/2\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\r\n\r\n", "400 Bad Request"),
        (b"GET /live HTTP/1.1\r\nX: " + b"a" * health_http.MOST_BYTES + b"\r\n\r\n", "431 Request Header Fields Too Large"),
    ],
)
def test_everything_else_is_refused(request_: bytes, status: str) -> None:
    async def work() -> None:
        async with opened() as port:
            assert (await send(port, request_))[0] == f"HTTP/1.1 {status}"

    run(work())


def test_a_request_that_ends_too_early_is_refused() -> None:
    async def work() -> None:
        async with opened() as port:
            assert (await send(port, b"GET /live HTTP/1.1\r\n", end=True))[0] == "HTTP/1.1 400 Bad Request"

    run(work())


def test_a_slow_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_http, "MOST_SECONDS", 0.05)

    async def work() -> None:
        async with opened() as port:
            assert await send(port, b"GET /live") == ("", {})

    run(work())


def test_connections_beyond_the_limit_are_closed_and_the_end_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_http, "MOST_CONNECTIONS", 1)

    async def work() -> None:
        async with opened() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /live")
            assert await send(port, b"") == ("", {})
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()

    run(work())


def test_a_port_that_is_taken_is_named() -> None:
    async def work() -> None:
        async with opened() as port:
            second = HealthPort("127.0.0.1", port, {}, {})
            with pytest.raises(ConfigurationError, match=rf"PRPC_HEALTH_PORT: the health port cannot listen at 127.0.0.1:{port}"):
                await second.open()
            await second.close()

    run(work())
