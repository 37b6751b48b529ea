"""Which of the open streams have which message. No I/O; for one event loop.

By this book the gateway answers a sender when every stream has the message, and ends a stream that has missed one: nobody else
would tell its reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Reader", "Readers"]

#: Seconds that a sender waits for a stream that was asked for before.
OPENED_WITHIN = 1.0
#: Seconds that a sender waits for the streams to have its message.
ARRIVED_WITHIN = 1.0
#: Seconds that a client may take for one message before it counts as one that does not read.
STUCK_AFTER = 0.25
#: Seconds after which a stream that has not got a message will not get it.
MISSED_AFTER = 5.0
#: Seconds for which a stream must have been open before a message came: then the message was for it.
OPEN_FOR = 1.0
#: Seconds without anything to do, after which a stream counts as having got what there was.
IDLE_FOR = 2.0


class Reader:
    """One stream. `end` is called with a reason where it has missed a message."""

    def __init__(self, now: float, end: Callable[[str], None]) -> None:
        self.asked = now
        self.end = end
        #: Since when it is open; None before.
        self.since: float | None = None
        #: Since when it waits for messages; None while its client is given one.
        self.idle: float | None = None
        #: Since when its client has not taken the message that it is given.
        self.giving = now
        #: Time of the last message that it got (nanoseconds since 1970).
        self.last = 0

    def was_open(self, when: float) -> bool:
        """Whether it was open at this time by the loop's clock."""
        return self.since is not None and self.since <= when

    def is_stuck(self, now: float) -> bool:
        """Whether its client does not read."""
        return self.idle is None and now - self.giving >= STUCK_AFTER


class _Sight:
    """A message that the gateway has seen."""

    def __init__(self, now: float, missing: set[Reader]) -> None:
        self.when = now
        #: Streams that have not got it.
        self.missing = missing
        #: Those that its sender waits for, and whether there are none any more.
        self.awaited: set[Reader] = set()
        self.arrived = asyncio.Event()


class Readers:
    """The streams of one gateway. Times of messages are nanoseconds since 1970, others are those of the loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[Reader] = set()
        self._opening: dict[Reader, asyncio.Event] = {}
        self._sights: dict[int, _Sight] = {}

    def ask(self, end: Callable[[str], None]) -> Reader:
        """A stream was asked for."""
        reader = Reader(self._loop.time(), end)
        self._opening[reader] = asyncio.Event()
        return reader

    def opened(self, reader: Reader) -> None:
        """It gets every message from now on."""
        reader.since = reader.idle = self._loop.time()
        self._open.add(reader)
        self._opening.pop(reader).set()

    def takes(self, reader: Reader) -> None:
        """Its client is given a message."""
        reader.idle, reader.giving = None, self._loop.time()

    def took(self, reader: Reader, send_time: int) -> None:
        """Its client has taken the message of this time."""
        reader.idle, reader.last = self._loop.time(), send_time
        self._has(reader, self._see(send_time))

    def left(self, reader: Reader) -> None:
        """The stream has ended. Idempotent."""
        self._open.discard(reader)
        if reader in self._opening:
            self._opening.pop(reader).set()
        for sight in self._sights.values():
            self._has(reader, sight)

    def end_all(self, reason: str) -> None:
        """End every stream."""
        for reader in [*self._open, *self._opening]:
            reader.end(reason)

    async def settled(self) -> float:
        """Wait for the streams that were asked for, a little; returns the time from which on a message is for all of them."""
        for reader, opened in list(self._opening.items()):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(reader.asked + OPENED_WITHIN):
                    await opened.wait()
        return self._loop.time()

    async def have(self, send_time: int, began: float) -> None:
        """Wait, a little, until the streams that were open at `began` have this message.

        Those whose clients do not read are not waited for.
        """
        sight = self._see(send_time)
        sight.awaited = {reader for reader in sight.missing if reader.was_open(began)}
        end = (now := self._loop.time()) + ARRIVED_WITHIN
        while now < end:
            sight.awaited -= {reader for reader in sight.awaited if reader.is_stuck(now)}
            if not sight.awaited:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, now + STUCK_AFTER)):
                    await sight.arrived.wait()
                    return
            now = self._loop.time()

    def _see(self, send_time: int) -> _Sight:
        sight = self._sights.get(send_time)
        if sight is None:
            sight = self._sights[send_time] = _Sight(self._loop.time(), set(self._open))
            self._loop.call_later(MISSED_AFTER, self._check, send_time)
        return sight

    def _has(self, reader: Reader, sight: _Sight) -> None:
        sight.missing.discard(reader)
        if reader in sight.awaited:
            sight.awaited.remove(reader)
            if not sight.awaited:
                sight.arrived.set()

    def _check(self, send_time: int) -> None:
        sight = self._sights.pop(send_time)
        now = self._loop.time()
        for reader in list(sight.missing):
            is_over = reader.last > send_time or (reader.idle is not None and now - reader.idle >= IDLE_FOR)
            if is_over and reader.was_open(sight.when - OPEN_FOR):
                reader.end("the stream has missed a message")
