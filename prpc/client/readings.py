"""Streams that this process reads, as the pump's side of them: mail comes in, words go out."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prpc.client.call import Call, CallOptions, Home
from prpc.client.portal import Crossing
from prpc.codec import Codec
from prpc.codec.signing import MAIL, Signatures
from prpc.exceptions import DecodeError
from prpc.protocol.repeats import Repeats
from prpc.protocol.streams import Inbox, Word, write_words
from prpc.prpcmessage import PRPCMessage

__all__ = ["BEAT", "Reading", "Readings", "StreamCall"]

logger = logging.getLogger("prpc.client")

#: Seconds between two words about a stream that is open: by them its server knows that somebody reads.
BEAT = 1.0

#: Sends mail: address, body, the call that it is about.
Post = Callable[[str, bytes, UUID], None]


class Reading:
    """One stream: what has come, and what its writer must be told."""

    def __init__(self, window: int) -> None:
        self.window = window
        #: The call that its reader holds; with middleware it is another than the one that is sent.
        self.call: weakref.ref[Call] | None = None
        self.inbox: Inbox[Any] = Inbox(window)
        #: Mailbox of the server that writes; empty while none has said so.
        self.writer = ""
        #: The attempts of the call that is sent, where it is one that is repeated.
        self.repeats: Repeats | None = None
        #: Whether items are known to be missing.
        self.again = False

    def word(self, message_id: UUID) -> Word:
        """What the writer is to know now."""
        inbox, again = self.inbox, self.again
        self.again = False
        inbox.told()
        return Word(message_id, "", inbox.run, inbox.have, inbox.limit, again)


class StreamCall(Call):
    """The call of a streaming function. Its outcome is the end of the stream: the number of items, or a failure."""

    __slots__ = ("reading",)

    def __init__(
        self, message: PRPCMessage, body: bytes | None, options: CallOptions, schema: str | None, home: Home, reading: Reading
    ) -> None:
        super().__init__(message, body, options, schema, home)
        self.reading = reading

    @property
    def window(self) -> int | None:
        """See Call."""
        return self.reading.window

    def ready(self) -> bool:
        """Whether there is an item, or there are no more."""
        return bool(len(self.reading.inbox)) or (self.done and self.missing == 0)

    @property
    def missing(self) -> int:
        """Items that were sent before the outcome and have not come yet; 0 also where that is not known."""
        reply = self.reply
        if reply is None:
            return 0
        total = reply.result if reply.failure is None else reply.failure.facts.get("items")
        return max(0, total - self.reading.inbox.have) if type(total) is int else 0


class Readings:
    """The streams of one pump. Belongs to its loop's thread, except what says otherwise."""

    def __init__(self, crossing: Crossing, codec: Codec, signatures: Signatures | None, post: Post) -> None:
        self._crossing, self._loop, self._codec, self._signatures = crossing, crossing.loop, codec, signatures
        self._post = post
        self._open: dict[UUID, Reading] = {}
        #: Streams about which something is to be said in this tick.
        self._due: set[UUID] = set()
        #: Streams that are over with this tick.
        self._leaving: list[UUID] = []
        self._flushing: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, call: Call, reading: Reading) -> None:
        """The call is about to be sent: mail about it is its stream's from now on."""
        self._open[call.message_id] = reading
        reading.repeats = call.repeats
        if self._timer is None:
            self._timer = self._loop.call_later(BEAT, self._beat)

    # -- for any thread ------------------------------------------------------------------------------------------------

    def speak(self, message_id: UUID) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):  # the loop is closed
            self._crossing.post(self._speak, message_id)

    def let_go(self, message_id: UUID) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):
            self._crossing.post(self._remove, message_id)

    def abandon(self, call: Call) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):
            self._crossing.post(self._abandon, call)

    # -- in the loop ---------------------------------------------------------------------------------------------------

    def _abandon(self, call: Call) -> None:
        call.home.cancel(call)
        self._remove(call.message_id)

    def _remove(self, message_id: UUID) -> None:
        """The stream is over: the reader has everything that it wants, and the writer is told so within this tick."""
        if message_id in self._open:
            self._leaving.append(message_id)
            self._speak(message_id)

    def receive(self, body: bytes) -> None:
        """Items came: wake who waits for them."""
        try:
            items = self._codec.read_items(body if self._signatures is None else self._signatures.open(MAIL, body))
        except DecodeError as exc:
            logger.warning("items of a stream were refused: %s", exc)
            return
        reading = self._open.get(items.message_id)
        call = None if reading is None or reading.call is None else reading.call()
        if reading is None or call is None or items.parameter:
            return
        if items.run < reading.inbox.run:  # of a server that lost the call to another
            return
        first_word = items.run > reading.inbox.run
        if reading.repeats is not None:
            reading.repeats.answered()
        reading.writer = items.writer
        if not reading.inbox.arrive(items.run, items.first, items.values):
            reading.again = True
        if first_word or reading.again:
            self._speak(items.message_id)
        call.notify()

    def missed(self) -> None:
        """Mail may have been lost: ask for what is missing of every stream."""
        for message_id, reading in self._open.items():
            reading.again = True
            self._speak(message_id)

    def _speak(self, message_id: UUID) -> None:
        """Tell the writer of this stream, within this tick, how far its reader is."""
        self._due.add(message_id)
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def close(self) -> None:
        """No more beats."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flushing is not None:
            self._flushing.cancel()
        self._open.clear()

    def _flush(self) -> None:
        self._flushing = None
        due, self._due = self._due, set()
        self._say(due)
        leaving, self._leaving = self._leaving, []
        for message_id in leaving:
            self._open.pop(message_id, None)

    def _say(self, message_ids: Iterable[UUID]) -> None:
        words: dict[str, list[Word]] = {}
        for message_id in message_ids:
            reading = self._open.get(message_id)
            if reading is not None and reading.writer:
                words.setdefault(reading.writer, []).append(reading.word(message_id))
        for writer, said in words.items():
            self._post(writer, write_words(said), said[0].message_id)

    def _beat(self) -> None:
        self._timer = None
        # A call that nobody holds any more is not read any more.
        for message_id in [key for key, reading in self._open.items() if reading.call is None or reading.call() is None]:
            del self._open[message_id]
        if self._open:
            self._timer = self._loop.call_later(BEAT, self._beat)
            self._say(list(self._open))
