"""The streams of one mailbox: sorts what comes to them, and puts the words about many of them into one mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from prpc.codec import Codec
from prpc.codec.items import call_of_items
from prpc.exceptions import DecodeError
from prpc.protocol.streams import LEFT, MAX_WORDS, Word, read_words, write_words
from prpc.streaming.ends import Key, Reader, Writer

__all__ = ["Desk", "Post"]

#: Sends mail, which may be lost: address, body, the call that it is about.
Post = Callable[[str, bytes, UUID], None]

_WORDS = b'{"prpc_mail": "words"'


class Desk:
    """An Office. Belongs to its loop's thread, except `encode`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        codec: Codec,
        *,
        address: Callable[[], str],
        post: Post,
        heard: Callable[[UUID], None],
        news: Callable[[Reader], None],
        left: Callable[[Key, bool], None],
    ) -> None:
        """`heard` is told of every call that the other side speaks of, `news` of every reader for which something came,
        `left` of every stream of this side whose reader wants no more, and whether because it reads another run of the call."""
        self._loop, self._codec = loop, codec
        self._address, self._post = address, post
        self._heard, self._news, self._left = heard, news, left
        self.readers: dict[Key, Reader] = {}
        self.writers: dict[Key, Writer] = {}
        #: Readers about which something is to be said in this tick, and those that are over with it; in the order of asking, as
        #: the simulator's seeds are to make the same run everywhere.
        self._due: dict[Key, None] = {}
        self._leaving: dict[Key, None] = {}
        self._handle: asyncio.Handle | None = None

    @property
    def address(self) -> str:
        """See Office."""
        return self._address()

    def encode(self, value: Any, root: str) -> bytes:
        """See Office."""
        return self._codec.write_item(value, root)

    def post(self, address: str, body: bytes, message_id: UUID) -> None:
        """See Office."""
        self._post(address, body, message_id)

    def soon(self, do: Callable[[], None]) -> None:
        """See Office."""
        self._loop.call_soon(do)

    def receive(self, body: bytes) -> None:
        """Mail came, of either kind. Raises DecodeError where it cannot be read."""
        if body.startswith(_WORDS):
            reader, words = read_words(body)
            for word in words:
                self._hear(word, reader)
            return
        try:
            items = self._codec.read_items(body)
        except DecodeError as exc:
            self._spoil(body, exc)
            raise
        found = self.readers.get((items.message_id, items.parameter))
        if found is not None:
            self._heard(items.message_id)
            if found.arrive(items, len(body)):
                self.speak(found.key)
            if found.away is not None:
                self._send_away(found.key, *found.away)
            self._news(found)

    def speak(self, key: Key) -> None:
        """Tell the writer of this stream, within this tick, how far its reader is."""
        self._due[key] = None
        if self._handle is None:
            self._handle = self._loop.call_soon(self._flush)

    def leave(self, key: Key) -> None:
        """The reader of this stream wants no more of it; the writer is told so within this tick."""
        reader = self.readers.get(key)
        if reader is not None:
            reader.left = True
            self._leaving[key] = None
            self.speak(key)

    def missed(self) -> None:
        """Mail may have been lost: ask for what is missing of every stream."""
        for key, reader in self.readers.items():
            reader.again = True
            self.speak(key)

    def say(self, keys: Iterable[Key]) -> None:
        """Words about these streams, now."""
        words: dict[str, list[Word]] = {}
        for key in keys:
            reader = self.readers.get(key)
            if reader is not None and reader.writer:
                words.setdefault(reader.writer, []).append(reader.word())
        for writer, said in words.items():
            for start in range(0, len(said), MAX_WORDS):
                part = said[start : start + MAX_WORDS]
                self._post(writer, write_words(self.address, part), part[0].message_id)

    def beat(self) -> None:
        """Once in a while: words about every stream, by which its writer knows that somebody is there."""
        for reader in self.readers.values():
            reader.beat()
        self.say(list(self.readers))

    def close(self) -> None:
        """Forget every stream."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for table in (self.readers, self.writers, self._due, self._leaving):
            table.clear()

    def _spoil(self, body: bytes, error: DecodeError) -> None:
        """Items came that cannot be read, and never will be: what is beyond them is not read either."""
        message_id = call_of_items(body)
        for key in [key for key in self.readers if key[0] == message_id]:
            reader = self.readers[key]
            reader.error = reader.error or error
            self._news(reader)

    def _send_away(self, key: Key, writer: str, run: int) -> None:
        """Tell a writer that it is not read."""
        self._post(writer, write_words(self.address, [Word(*key, run, LEFT, 0, 0)]), key[0])

    def _hear(self, word: Word, reader: str) -> None:
        self._heard(word.message_id)
        writer = self.writers.get((word.message_id, word.parameter))
        if writer is not None:
            elsewhere = word.have == LEFT and word.read != LEFT
            if elsewhere and word.run != writer.run:  # about a run that has ended here: this one may be what is read now
                return
            writer.hear(word, reader)
            if word.have == LEFT:
                self._left(writer.key, elsewhere)
            if writer.is_done:
                self.writers.pop(writer.key, None)

    def _flush(self) -> None:
        self._handle = None
        due, self._due = self._due, {}
        self.say(due)
        leaving, self._leaving = self._leaving, {}
        for key in leaving:
            self.readers.pop(key, None)
