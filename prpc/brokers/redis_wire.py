"""One connection to Redis as an asyncio protocol: an answer reaches its owner in the callback that reads it.

redis-py's connection opens and proves itself (TLS, AUTH, databases, unix sockets, Sentinel); then its transport is taken over.
Its own reading and writing costs a task and two to three turns of the loop for every answer; this costs none.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

__all__ = ["GOOD_BYE", "Wire", "error_of", "pack"]

#: Bytes of a command's words, on the average, from which on they are put together here.
LONG_WORDS = 1024
#: Bytes of one read.
READ_BYTES = 64 * 1024
#: Seconds that closing a connection may take.
GOOD_BYE = 1.0
#: First words of an error's text, and the driver's classes for them.
ERRORS: dict[str, type[RedisError]] = {
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}
#: How a Redis before 7 tells what went wrong inside a script.
_IN_SCRIPT = re.compile(r"^ERR Error running script .*: -([A-Z]+) (.*)$", re.DOTALL)
_NOTHING = object()


def pack(words: tuple[Any, ...], size: int | None = None) -> bytes:
    """A command as Redis reads it. `size`: bytes of its larger words; None: they are counted here."""
    if size is None:
        size = sum([len(word) for word in words if type(word) is bytes])
    return hiredis.pack_command(words) if size < LONG_WORDS * len(words) else _pack_long(words)


def _pack_long(words: tuple[Any, ...]) -> bytes:
    """As hiredis does it, in a fiftieth of its time for words of 100 kB. Raises TypeError for any other kind of word."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes | str | int | float):
            raise TypeError(f"{type(word).__name__} cannot be sent to Redis")
        text = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(text), text, b"\r\n")
    return b"".join(parts)


def error_of(text: str) -> RedisError:
    """An error reply as the exception that redis-py makes of it: known first words become the class and leave the text."""
    word, _, rest = text.partition(" ")
    inner = _IN_SCRIPT.search(text)
    if inner is not None and inner[1] in ERRORS:
        word, rest = inner.groups()
    known = ERRORS.get(word)
    return ResponseError(text) if known is None else known(rest, status_code=word)


class Wire(asyncio.BufferedProtocol):
    """An open connection. Answers go to those who `ask`ed, in order; what nobody asked for goes to `receive`.

    `receive` may raise: the connection is then given up for that reason.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over the transport of a connection on which nothing is under way."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer  # a collected StreamWriter closes its transport
        self._transport = writer.transport
        # One for all reads: the transport's own way makes a new one of 256 KiB for each, which costs more than the parsing.
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        parser = hiredis.Reader(protocolError=InvalidResponse, replyError=error_of, notEnoughData=_NOTHING)
        self._feed: Callable[[bytearray, int, int], None] = parser.feed  # type: ignore[assignment]  # its stub knows bytes only
        self._gets = parser.gets
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        #: Ends with the reason when the connection is lost or given up.
        self.lost: asyncio.Future[BaseException] = self._loop.create_future()
        #: Takes every answer that nobody asked for.
        self.receive: Callable[[Any], None] = _unasked
        #: Called when there is room again after a time without `writable`.
        self.resumed: Callable[[], None] = _nobody
        #: Counts what arrives, in pieces of any size.
        self.heard = 0
        #: Whether the transport has room: what is written meanwhile grows without bound.
        self.writable = True
        if reader.at_eof() or reader.exception() is not None or self._transport.is_closing():
            self._closed.set_result(None)  # nobody will tell us any more
            self.give_up(reader.exception() or ConnectionResetError("the connection was closed"))
        else:
            self._transport.set_protocol(self)

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        """Send one packed command; the future ends with its answer. Raises RedisError or OSError there."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(self.lost.result())
        else:
            self._asked.append(answer)
            self._transport.write(command)
        return answer

    def write(self, data: bytes) -> None:
        """Send commands whose answers go to `receive`; dropped where the connection is lost."""
        if not self.lost.done():
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    def give_up(self, reason: BaseException) -> None:
        """Count the connection as lost. `hang_up` closes it."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        while self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_exception(reason)

    async def hang_up(self) -> None:
        """Close the connection and wait until it is closed: one under TLS says good-bye first."""
        self.give_up(ConnectionResetError("the connection was closed"))
        self._transport.close()
        try:
            await asyncio.wait((self._closed,), timeout=GOOD_BYE)
        finally:
            if not self._closed.done():
                self._transport.abort()

    # for the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads. A view, as TLS writes to slices of it."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on every answer that is whole."""
        asked, gets = self._asked, self._gets
        if self.lost.done():
            return
        self.heard += 1
        try:
            self._feed(self._buffer, 0, nbytes)
            while not self.lost.done() and (answer := gets()) is not _NOTHING:
                if not asked:
                    self.receive(answer)
                elif not (waiting := asked.popleft()).done():
                    if isinstance(answer, RedisError):
                        waiting.set_exception(answer)
                    else:
                        waiting.set_result(answer)
        except Exception as exc:
            self.give_up(exc)

    def eof_received(self) -> None:
        """The peer closed: so does the transport."""
        self.give_up(ConnectionResetError("the connection was closed by the server"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        if not self._closed.done():
            self._closed.set_result(None)
        self.give_up(exc or ConnectionResetError("the connection was closed"))

    def pause_writing(self) -> None:
        """The transport holds enough."""
        self.writable = False

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.writable = True
        self.resumed()


def _unasked(answer: Any) -> None:
    raise InvalidResponse(f"an answer that nobody asked for: {answer!r:.100}")


def _nobody() -> None:
    """Nothing waits for room."""
