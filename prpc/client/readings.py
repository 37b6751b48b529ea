"""Streams of this process's calls, as the pump's side of them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from prpc.client.call import Call, Home, copy_of
from prpc.client.connection import Connection
from prpc.client.feeds import Failed, Feeding
from prpc.client.options import CallOptions
from prpc.client.portal import Crossing
from prpc.codec import Codec, ReadReply
from prpc.exceptions import CallCancelledError
from prpc.failure import type_name_of
from prpc.protocol.repeats import Repeats
from prpc.prpcmessage import PRPCMessage
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Key, Reader

__all__ = ["BEAT", "Reading", "Readings", "StreamCall"]

#: Seconds between two words about a stream that is open: by them its server knows that somebody is there.
BEAT = 1.0

_CANCELLED = type_name_of(CallCancelledError)


class Reading(Reader):
    """The items that one call yields."""

    def __init__(self, message_id: UUID, window: int) -> None:
        super().__init__((message_id, ""), window)
        #: The call that its reader holds; with middleware it is another than the one that is sent.
        self.call: weakref.ref[Call] | None = None
        #: The call that is sent.
        self.sent: weakref.ref[Call] | None = None
        #: The attempts of the call that is sent, where it is one that is repeated.
        self.repeats: Repeats | None = None

    def conclude(self, reply: ReadReply) -> None:
        """The server's answer to the call says how many items there are."""
        failure = reply.failure
        total = reply.result if failure is None else failure.facts.get("items")
        # A server that gave its reader up keeps nothing for it: that is the end, whatever was on its way.
        given_up = failure is not None and failure.type_name == _CANCELLED
        self.total = total if type(total) is int and not given_up else None


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
        reading = self.reading
        return bool(len(reading.inbox)) or reading.error is not None or (self.done and self.missing == 0)

    def value(self) -> Any:
        """See Call."""
        if self.reading.error is not None:
            raise copy_of(self.reading.error)
        return super().value()

    @property
    def missing(self) -> int:
        """Items that were sent before the outcome and have not come yet; 0 also where that is not known."""
        total = self.reading.total
        return 0 if total is None else max(0, total - self.reading.inbox.have)


class Readings:
    """The streams of one pump. Belongs to its loop's thread, except what says otherwise."""

    def __init__(self, crossing: Crossing, codec: Codec, connection: Callable[[], Connection | None]) -> None:
        """`connection`: the open one, for what is sent."""
        self._crossing, self._connection = crossing, connection
        self._desk = Desk(
            crossing.loop, codec, address=self._address, post=self._post, heard=self._heard, news=self._news, left=self._left
        )
        self._timer: asyncio.TimerHandle | None = None

    # -- for any thread ------------------------------------------------------------------------------------------------

    def speak(self, message_id: UUID) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):  # the loop is closed
            self._crossing.post(self._desk.speak, (message_id, ""))

    def let_go(self, message_id: UUID) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):
            self._crossing.post(self._let_go, message_id)

    def abandon(self, call: Call) -> None:
        """See StreamHome."""
        with suppress(RuntimeError):
            self._crossing.post(self._abandon, call)

    # -- in the loop ---------------------------------------------------------------------------------------------------

    def add(self, call: StreamCall) -> None:
        """The call is about to be sent: mail about it is its stream's from now on."""
        self._desk.readers[call.reading.key] = call.reading
        call.reading.sent, call.reading.repeats = weakref.ref(call), call.repeats
        self._wind()

    def feed(self, call: Call, failed: Failed) -> None:
        """The call is about to be sent: be ready to send its arguments that are streams."""
        if isinstance(call.feeds, Feeding):
            call.feeds.start(call, self._desk, self._crossing.loop, failed)
            self._wind()

    def receive(self, body: bytes) -> None:
        """Mail came. Raises DecodeError where it cannot be read."""
        self._desk.receive(body)

    def missed(self) -> None:
        """Mail may have been lost."""
        self._desk.missed()

    def say_goodbye(self, connection: Connection) -> None:
        """This side closes: servers need not wait until it has been silent for long, and what is not sent now never comes."""
        unheard = [key for key, reader in self._desk.readers.items() if not reader.writer]  # no server has said yet who it is
        for message_id, _ in (*self._desk.writers, *unheard):
            connection.cancel(message_id)
        for reader in self._desk.readers.values():
            reader.left = True
        self._desk.say(list(self._desk.readers))

    def close(self) -> None:
        """The connection is gone: nothing comes any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._desk.close()

    def _address(self) -> str:
        connection = self._connection()
        return "" if connection is None else connection.mailbox.address

    def _post(self, address: str, body: bytes, message_id: UUID) -> None:
        connection = self._connection()
        if connection is not None:
            connection.post(address, body, message_id)

    def _let_go(self, message_id: UUID) -> None:
        reading = self._desk.readers.get((message_id, ""))
        if isinstance(reading, Reading):
            sent = None if reading.sent is None else reading.sent()
            if sent is not None and not sent.done:  # a middleware did not wait for it
                sent.home.cancel(sent)
            if reading.call is not None and (call := reading.call()) is not None:
                call.notify()  # another thread may wait for the last items
        self._desk.leave((message_id, ""))

    def _abandon(self, call: Call) -> None:
        call.home.cancel(call)
        self._desk.leave((call.message_id, ""))

    def _heard(self, message_id: UUID) -> None:
        """A server that is heard of needs no answer."""

    def _left(self, key: Key, reads_elsewhere: bool) -> None:
        """A function reads no more of an argument: its call ends sooner or later, and with it what sends it."""

    def _news(self, reader: Reader) -> None:
        if isinstance(reader, Reading):
            if reader.repeats is not None:
                reader.repeats.answered()
            call = None if reader.call is None else reader.call()
            if call is not None:
                call.notify()

    def _wind(self) -> None:
        if self._timer is None:
            self._timer = self._crossing.loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        self._timer = None
        readers = self._desk.readers
        # A call that nobody holds any more is not read any more.
        for key, reader in list(readers.items()):
            if isinstance(reader, Reading) and (reader.call is None or reader.call() is None):
                del readers[key]
        for writer in list(self._desk.writers.values()):
            writer.beat(greet=True)  # its reader learns that somebody is there
        if readers or self._desk.writers:
            self._wind()
            self._desk.beat()
