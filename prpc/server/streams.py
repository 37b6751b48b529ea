"""Streams that this server writes: the items of its generators on their way to their readers.

A reader's words come to a mailbox of the server's own. Time, as far as readers must be heard of, is counted in echoes of the
server's own mail: while the broker is away, or this process stands still, nobody's silence counts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from prpc.brokers.base import Broker, Mailbox
from prpc.codec import Codec
from prpc.codec.items import Items, write_items
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, DecodeError
from prpc.protocol.facts import CallFacts
from prpc.protocol.streams import Outbox, Word, read_words
from prpc.server.logs import logger
from prpc.server.seal import Seal
from prpc.workers import create_stream_pool
from prpc.workers.base import Execution, Job, Outcome, WorkerKind, WorkerPool

__all__ = ["StreamWriter", "Streams"]

#: Seconds between two mails of the server to itself, while streams are open.
BEAT = 1.0


class StreamWriter:
    """One call's items: what its generator puts in, and what its reader has. An ItemSink."""

    def __init__(self, streams: Streams, message_id: UUID, function: str, run: int, address: str, window: int) -> None:
        self._streams = streams
        self._function = function
        self._items = Items(message_id, "", run, 1, streams.address, ())
        self.address = address
        self.outbox = Outbox(window)
        #: The beat at which the reader was last heard of.
        self.heard = streams.beats
        #: What to end where the reader is gone.
        self.execution: Execution | None = None
        #: Whether the generator has ended.
        self.ended = False
        self._wake: Callable[[], object] | None = None
        self._flushing: asyncio.Handle | None = None
        self._flush_soon()  # also of no items: the reader learns where its words go to

    @property
    def message_id(self) -> UUID:
        """Id of the call."""
        return self._items.message_id

    @property
    def count(self) -> int:
        """See ItemSink."""
        return self.outbox.count

    def encode(self, value: Any) -> bytes:
        """See ItemSink."""
        return self._streams.codec.write_item(value, f"an item of {self._function}()")

    def allows(self, count: int, pending: int = 0) -> bool:
        """See ItemSink."""
        return self.outbox.allows(count, pending)

    def put(self, text: bytes) -> None:
        """See ItemSink."""
        self.outbox.put(text)
        self._flush_soon()

    def on_room(self, wake: Callable[[], object]) -> None:
        """See ItemSink."""
        self._wake = wake

    def hear(self, word: Word) -> None:
        """The reader's word."""
        self.heard = self._streams.beats
        if word.run <= self._items.run:
            self.outbox.hear(word.have, word.limit, again=word.again)
            if word.again:
                self._flush_soon()
            if self._wake is not None:
                self._wake()

    def finish(self, outcome: Outcome) -> Outcome:
        """The generator has ended: its items are sent before its outcome is, which says how many there are."""
        self.ended = True
        self.flush(greet=False)
        if self.outbox.is_empty:
            self._streams.forget(self)
        if outcome.failure is None:
            return outcome
        return replace(outcome, failure=replace(outcome.failure, facts={**outcome.failure.facts, "items": self.count}))

    def reader_gone(self, seconds: float) -> None:
        """Nobody reads any more."""
        self._streams.forget(self)
        if self.execution is not None and not self.ended:
            logger.info("the reader of %s() was silent for %g s; the stream ends", self._function, seconds)
            text = f"the reader of {self._function}() was silent for {seconds:g} s"
            self.execution.cancel(CallCancelledError(text, message_id=str(self.message_id)))

    def flush(self, *, greet: bool = True) -> None:
        """Send what is there; with `greet` at least one mail."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        while True:
            first, texts = self.outbox.take()
            if not texts and not greet:
                return
            greet = False
            self._streams.post(self, write_items(replace(self._items, first=first), texts))

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)


class Streams:
    """The streams of one server. Bound to its loop."""

    def __init__(self, broker: Broker, queue: str, codec: Codec, seal: Seal, *, patience: float) -> None:
        """`patience`: seconds of silence after which a reader counts as gone."""
        self._broker, self._queue, self.codec, self._seal = broker, queue, codec, seal
        self._patience = patience
        # Nobody else's mail passes for an echo.
        self._echo = b'{"prpc_mail": "echo", "nonce": "%b"}' % secrets.token_hex(16).encode()
        self._mailbox: Mailbox | None = None
        self._pools: dict[WorkerKind, WorkerPool] = {}
        self._writers: dict[UUID, StreamWriter] = {}
        #: Echoes heard so far.
        self.beats = 0
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    @property
    def address(self) -> str:
        """Where readers' words come to."""
        assert self._mailbox is not None, "streams are opened first"
        return self._mailbox.address

    async def open(self, slots: Mapping[WorkerKind, int]) -> None:
        """Be ready to hear readers and to run so many generators of each kind. Raises BrokerUnavailableError."""
        self._mailbox = await self._broker.open_mailbox(self._queue)
        for kind, number in slots.items():
            pool = self._pools[kind] = create_stream_pool(kind, number)
            await pool.start()

    async def run(self) -> None:
        """Hear readers until cancelled."""
        assert self._mailbox is not None
        while True:
            mail = await self._mailbox.receive()
            for body in mail.bodies:
                self._receive(body)

    def open_writer(self, message_id: UUID, function: str, run: int, address: str, window: int) -> StreamWriter:
        """Begin to write to the caller's mailbox `address`, which takes `window` items before its first word."""
        writer = self._writers[message_id] = StreamWriter(self, message_id, function, run, address, window)
        if self._timer is None:
            self._beat_later()
        return writer

    def begin(
        self, job: Job, message_id: UUID, run: int, facts: CallFacts, kind: WorkerKind
    ) -> tuple[StreamWriter, Job, WorkerPool]:
        """What writes the call's items, the job that puts them in, and the pool that runs it."""
        assert facts.reply_to is not None and facts.window is not None, "its caller reads a stream"
        writer = self.open_writer(message_id, job.name, run, facts.reply_to, facts.window)
        return writer, replace(job, sink=writer), self._pools[kind]

    def post(self, writer: StreamWriter, body: bytes) -> None:
        """Send mail to a reader. What is lost is sent again when the reader misses it."""
        future = asyncio.ensure_future(
            self._broker.post(self._queue, writer.address, self._seal.mail(body), message_id=writer.message_id)
        )
        future.add_done_callback(_look)

    def forget(self, writer: StreamWriter) -> None:
        """The reader has everything, or is gone."""
        if self._writers.get(writer.message_id) is writer:
            del self._writers[writer.message_id]
        if not self._writers and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Wait until every reader has everything, `seconds` at most."""
        if self._writers:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=seconds)

    async def close(self) -> None:
        """End what still runs, and leave. Idempotent."""
        for pool in self._pools.values():
            await pool.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._mailbox is not None:
            await self._mailbox.close()

    def _receive(self, body: bytes) -> None:
        try:
            opened = self._seal.open_mail(body)
            if opened == self._echo:
                self._beat()
                return
            words = read_words(opened)
        except DecodeError as exc:
            logger.warning("mail about streams was refused: %s", exc)
            return
        for word in words:
            writer = self._writers.get(word.message_id)
            if writer is not None:
                writer.hear(word)
                if writer.ended and writer.outbox.is_empty:
                    self.forget(writer)

    def _beat_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._send_echo)

    def _send_echo(self) -> None:
        self._timer = None
        if self._writers:
            self._beat_later()
            future = asyncio.ensure_future(
                self._broker.post(self._queue, self.address, self._seal.mail(self._echo), message_id=next(iter(self._writers)))
            )
            future.add_done_callback(_look)

    def _beat(self) -> None:
        self.beats += 1
        for writer in list(self._writers.values()):
            silent = (self.beats - writer.heard) * BEAT
            if silent > self._patience:
                writer.reader_gone(silent)
            elif writer.outbox.beat():
                writer.flush(greet=False)


def _look(future: asyncio.Future[None]) -> None:
    """A mail that could not be sent is as good as lost."""
    with suppress(asyncio.CancelledError):
        error = future.exception()
        if error is not None and not isinstance(error, BrokerUnavailableError):
            logger.error("mail could not be sent", exc_info=error)
