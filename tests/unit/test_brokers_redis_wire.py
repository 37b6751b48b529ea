"""The connection's bytes and answers, on a transport that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from prpc.brokers.redis_wire import Wire, error_of, pack


def arrive(wire: Wire, data: bytes) -> None:
    """As the transport hands it over."""
    wire.get_buffer(-1)[: len(data)] = data
    wire.buffer_updated(len(data))


class StillTransport(asyncio.Transport):
    """Keeps what is written; closes when it is told, and says so at once."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.silent = silent
        self.closing = self.aborted = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing and not self.silent and self.protocol is not None:
            self.protocol.connection_lost(None)
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


def wire_on(transport: StillTransport, reader: asyncio.StreamReader | None = None) -> Wire:
    loop = asyncio.get_running_loop()
    reader = reader or asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    return Wire(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.mark.parametrize(
    ("text", "kind", "left"),
    [
        ("NOSCRIPT No matching script.", NoScriptError, "No matching script."),
        ("READONLY You can't write", ReadOnlyError, "You can't write"),
        ("CLUSTERDOWN it is", ClusterDownError, "it is"),
        ("MASTERDOWN it is", ClusterDownError, "it is"),
        ("LOADING data", BusyLoadingError, "data"),
        ("OOM command not allowed", OutOfMemoryError, "command not allowed"),
        ("NOPERM this user", NoPermissionError, "this user"),
        ("NOAUTH Authentication required.", AuthenticationError, "Authentication required."),
        ("WRONGPASS pair", AuthenticationError, "pair"),
        ("NOGROUP No such key", ResponseError, "NOGROUP No such key"),
        ("ERR whatever", ResponseError, "ERR whatever"),
        ("", ResponseError, ""),
    ],
)
def test_error_replies_become_the_drivers_classes(text: str, kind: type[RedisError], left: str) -> None:
    error = error_of(text)
    assert isinstance(error, kind)
    assert str(error) == left


def test_the_classes_are_those_that_the_driver_itself_makes() -> None:
    from redis._parsers.base import BaseParser

    for word in (
        "NOSCRIPT",
        "READONLY",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "LOADING",
        "OOM",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "TRYAGAIN",
    ):
        ours, theirs = error_of(f"{word} text"), BaseParser.parse_error(f"{word} text")
        assert (type(ours), str(ours), ours.status_code) == (type(theirs), str(theirs), theirs.status_code)


def test_answers_go_to_those_who_asked_in_order_whatever_the_pieces() -> None:
    async def work() -> None:
        transport = StillTransport()
        wire = wire_on(transport)
        first, dropped, third = (wire.ask(pack(("PING", n))) for n in (1, 2, 3))
        assert transport.written == [pack(("PING", n)) for n in (1, 2, 3)]
        dropped.cancel()
        got: list[Any] = []
        wire.receive = got.append
        for at in b"+one\r\n$3\r\ntwo\r\n-ERR three\r\n*2\r\n:4\r\n$-1\r\n":
            arrive(wire, bytes([at]))
        assert await first == b"one"
        with pytest.raises(ResponseError, match="ERR three"):
            await third
        assert got == [[4, None]]
        wire.write(b"PING\r\n")
        assert transport.written[-1] == b"PING\r\n"
        await wire.hang_up()
        assert transport.closing
        assert not transport.aborted

    run(work())


def test_a_lost_connection_fails_what_was_asked_and_takes_no_more() -> None:
    async def work() -> None:
        transport = StillTransport()
        wire = wire_on(transport)
        under_way, dropped = wire.ask(b"1"), wire.ask(b"2")
        dropped.cancel()
        wire.connection_lost(ConnectionAbortedError("cut"))
        with pytest.raises(ConnectionAbortedError):
            await under_way
        with pytest.raises(ConnectionAbortedError):
            await wire.ask(b"3")
        wire.write(b"4")
        arrive(wire, b"+late\r\n")
        assert transport.written == [b"1", b"2"]
        assert str(await wire.lost) == "cut"
        wire.connection_lost(None)
        await wire.hang_up()

    run(work())


def test_the_peers_end_is_a_loss() -> None:
    async def work() -> None:
        wire = wire_on(StillTransport())
        wire.eof_received()
        assert "closed by the server" in str(await wire.lost)
        await wire.hang_up()

    run(work())


@pytest.mark.parametrize("data", [b"+nobody asked\r\n", b"?no redis\r\n"])
def test_what_is_no_answer_gives_the_connection_up(data: bytes) -> None:
    async def work() -> None:
        wire = wire_on(StillTransport())
        arrive(wire, data)
        assert isinstance(await wire.lost, InvalidResponse)
        await wire.hang_up()

    run(work())


def test_nothing_is_handed_on_after_a_receiver_gave_up() -> None:
    async def work() -> None:
        wire = wire_on(StillTransport())
        got: list[Any] = []

        def receive(answer: Any) -> None:
            got.append(answer)
            raise ReadOnlyError("no master")

        wire.receive = receive
        arrive(wire, b"+one\r\n+two\r\n")
        assert got == [b"one"]
        assert isinstance(await wire.lost, ReadOnlyError)
        await wire.hang_up()

    run(work())


def test_room_is_told() -> None:
    async def work() -> None:
        wire = wire_on(StillTransport())
        wire.pause_writing()
        assert not wire.writable
        wire.resume_writing()
        told: list[bool] = []
        wire.resumed = lambda: told.append(wire.writable)
        wire.pause_writing()
        wire.resume_writing()
        assert told == [True]
        await wire.hang_up()

    run(work())


@pytest.mark.parametrize("how", ["end", "error", "closing"])
def test_a_connection_that_broke_before_it_was_taken_over_is_lost(how: str) -> None:
    async def work() -> None:
        transport, reader = StillTransport(), asyncio.StreamReader()
        transport.closing = how == "closing"
        if how == "end":
            reader.feed_eof()
        if how == "error":
            reader.set_exception(ConnectionAbortedError("cut"))
        wire = wire_on(transport, reader)
        assert isinstance(await wire.lost, ConnectionError)
        with pytest.raises(ConnectionError):
            await wire.ask(b"1")
        await wire.hang_up()

    run(work())


def test_a_peer_that_never_says_good_bye_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prpc.brokers.redis_wire.GOOD_BYE", 0.01)

    async def work() -> None:
        transport = StillTransport(silent=True)
        await wire_on(transport).hang_up()
        assert transport.aborted

    run(work())
