"""The room: gives each message its time and hands it to everyone who reads. No I/O and no clock; for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypedDict

__all__ = ["MOST_UNREAD", "Letter", "Message", "MissedMessages", "Reader", "Room"]

#: Messages that wait for one reader; one that is further behind is sent away.
MOST_UNREAD = 100_000

#: A message before it has its time: author, text, and when it was sent (nanoseconds since 1970).
Letter = tuple[str, str, int]


class Message(TypedDict):
    """A message as every reader gets it."""

    author: str
    text: str
    #: Nanoseconds since 1970; strictly ascending.
    send_time: int


class MissedMessages(Exception):
    """The reader did not get, or may not have got, a message: reading anew is better than reading on."""


class Room:
    """One worker's room. All rooms that hear the same deliveries in the same order give the same times."""

    def __init__(self) -> None:
        self._last = 0
        self._readers: set[Reader] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """Time of the last message, in nanoseconds since 1970; 0 where there was none."""
        return self._last

    def deliver(self, floor: int, letters: Sequence[Letter]) -> list[int]:
        """Hand messages to everyone who reads; returns their times.

        `floor`: the time of the last message that the sender's room knew of. By it a room that has not heard everything
        (it began later) comes to the same times as the others.
        """
        self._last = max(self._last, floor)
        times = []
        for author, text, sent in letters:
            self._last = max(self._last + 1, sent)
            times.append(self._last)
            message = Message(author=author, text=text, send_time=self._last)
            for reader in list(self._readers):
                reader.put(message)
        return times

    def enter(self) -> Reader:
        """Read everything that is delivered from now on, until the reader is closed."""
        reader = Reader(self._readers)
        if self._closed:
            reader.end()
        return reader

    def send_away(self, reason: str) -> None:
        """End all readers with MissedMessages; new ones may enter."""
        for reader in list(self._readers):
            reader.end(MissedMessages(reason))

    def close(self) -> None:
        """End all readers once they have read what there is; new ones read nothing. Idempotent."""
        self._closed = True
        for reader in list(self._readers):
            reader.end()


class Reader:
    """What one reader has not read yet: `async for message in reader`. Leaving a `with` block closes it."""

    def __init__(self, readers: set[Reader]) -> None:
        self._readers = readers
        self._unread: deque[Message] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._error: MissedMessages | None = None
        readers.add(self)

    def put(self, message: Message) -> None:
        """One more to read."""
        if len(self._unread) >= MOST_UNREAD:
            self.end(MissedMessages(f"{MOST_UNREAD} messages are unread"))
            return
        self._unread.append(message)
        self._news.set()

    def end(self, error: MissedMessages | None = None) -> None:
        """No more come. With an error, what is unread is dropped and the error raised instead."""
        if error is not None:
            self._unread.clear()
        self._ended, self._error = True, error
        self._readers.discard(self)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._unread.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._readers.discard(self)
