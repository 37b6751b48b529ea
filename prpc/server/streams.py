"""The streams of a server: what its generators write, and what its functions read.

Clients' mail comes to a mailbox of the server's own. Time, as far as a client must be heard of, is counted in echoes of the
server's mail to itself: while the broker is away, or this process stands still, nobody's silence counts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from prpc.brokers.base import Broker, Mailbox
from prpc.codec import Codec
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, DecodeError
from prpc.protocol.facts import CallFacts
from prpc.server.logs import logger
from prpc.server.seal import Seal
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Reader, Writer
from prpc.workers import create_stream_pool
from prpc.workers.base import Execution, Job, Outcome, WorkerKind, WorkerPool

__all__ = ["Streaming", "Streams"]

#: Seconds between two mails of the server to itself, while streams are open.
BEAT = 1.0


class Streaming:
    """The streams of one call that runs."""

    def __init__(self, message_id: UUID, function: str, beats: int, writer: Writer | None) -> None:
        self.message_id = message_id
        self.function = function
        #: Of what the function yields.
        self.writer = writer
        #: The beat at which the client was last heard of.
        self.heard = beats
        #: What to end where the client is gone; None once the function has ended.
        self.execution: Execution | None = None

    def finish(self, outcome: Outcome) -> Outcome:
        """The function has ended: its items are sent before its outcome is, which says how many there are."""
        self.execution = None
        if self.writer is None:
            return outcome
        self.writer.end()
        if outcome.failure is None:
            return outcome
        facts = {**outcome.failure.facts, "items": self.writer.count}
        return replace(outcome, failure=replace(outcome.failure, facts=facts))


class Streams:
    """The streams of one server. Bound to its loop."""

    def __init__(self, broker: Broker, queue: str, codec: Codec, seal: Seal, *, patience: float) -> None:
        """`patience`: seconds of silence after which a client counts as gone."""
        self._broker, self._queue, self._seal = broker, queue, seal
        self._patience = patience
        # Nobody else's mail passes for an echo.
        self._echo = b'{"prpc_mail": "echo", "nonce": "%b"}' % secrets.token_hex(16).encode()
        self._mailbox: Mailbox | None = None
        self._pools: dict[WorkerKind, WorkerPool] = {}
        loop = asyncio.get_running_loop()
        self._desk = Desk(loop, codec, address=self._address, post=self._post, heard=self._heard, news=self._news)
        self._open: dict[UUID, Streaming] = {}
        #: Echoes heard so far.
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    async def open(self, slots: Mapping[WorkerKind, int]) -> None:
        """Be ready to hear clients and to run so many generators of each kind. Raises BrokerUnavailableError."""
        self._mailbox = await self._broker.open_mailbox(self._queue)
        for kind, number in slots.items():
            pool = self._pools[kind] = create_stream_pool(kind, number)
            await pool.start()

    async def run(self) -> None:
        """Hear clients until cancelled."""
        assert self._mailbox is not None
        while True:
            mail = await self._mailbox.receive()
            if mail.gap:
                self._desk.missed()
            for body in mail.bodies:
                try:
                    self._receive(self._seal.open_mail(body))
                except DecodeError as exc:
                    logger.warning("mail about streams was refused: %s", exc)

    def begin(
        self, job: Job, message_id: UUID, run: int, facts: CallFacts, kind: WorkerKind
    ) -> tuple[Streaming, Job, WorkerPool]:
        """The streams of a call of a streaming function, the job that puts its items in, and the pool that runs it."""
        assert facts.reply_to is not None and facts.window is not None, "its caller reads a stream"
        writer = Writer(self._desk, (message_id, ""), run, facts.reply_to, facts.window, f"an item of {job.name}()")
        self._desk.writers[writer.key] = writer
        writer.flush(greet=True)  # the reader learns that it runs, and where its words go to
        streaming = self._open[message_id] = Streaming(message_id, job.name, self._beats, writer)
        if self._timer is None:
            self._beat_later()
        return streaming, replace(job, sink=writer), self._pools[kind]

    async def drain(self, seconds: float) -> None:
        """Wait until every reader has everything, `seconds` at most."""
        if self._desk.writers:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=seconds)

    async def close(self) -> None:
        """End what still runs, and leave. Idempotent."""
        for pool in self._pools.values():
            await pool.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._desk.close()
        if self._mailbox is not None:
            await self._mailbox.close()

    def _address(self) -> str:
        assert self._mailbox is not None, "streams are opened first"
        return self._mailbox.address

    def _receive(self, body: bytes) -> None:
        if body == self._echo:
            self._beat()
            return
        self._desk.receive(body)
        if not self._desk.writers and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _heard(self, message_id: UUID) -> None:
        streaming = self._open.get(message_id)
        if streaming is not None:
            streaming.heard = self._beats

    def _news(self, reader: Reader) -> None:
        """Items came for a function."""

    def _post(self, address: str, body: bytes, message_id: UUID) -> None:
        sent = self._broker.post(self._queue, address, self._seal.mail(body), message_id=message_id)
        asyncio.ensure_future(sent).add_done_callback(_look)

    # Time.

    def _beat_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._send_echo)

    def _send_echo(self) -> None:
        self._timer = None
        if self._open:
            self._beat_later()
            self._post(self._address(), self._echo, next(iter(self._open)))

    def _beat(self) -> None:
        self._beats += 1
        for streaming in list(self._open.values()):
            silent = (self._beats - streaming.heard) * BEAT
            writer = streaming.writer
            if streaming.execution is None and (writer is None or writer.is_done):
                del self._open[streaming.message_id]
            elif silent > self._patience:
                self._gone(streaming, silent)
            elif writer is not None:
                writer.beat()

    def _gone(self, streaming: Streaming, silent: float) -> None:
        del self._open[streaming.message_id]
        if streaming.writer is not None:
            self._desk.writers.pop(streaming.writer.key, None)
        if streaming.execution is not None:
            logger.info("the client of %s() was silent for %g s; the stream ends", streaming.function, silent)
            text = f"the client of {streaming.function}() was silent for {silent:g} s"
            streaming.execution.cancel(CallCancelledError(text, message_id=str(streaming.message_id)))


def _look(future: asyncio.Future[None]) -> None:
    """A mail that could not be sent is as good as lost."""
    with suppress(asyncio.CancelledError):
        error = future.exception()
        if error is not None and not isinstance(error, BrokerUnavailableError):
            logger.error("mail could not be sent", exc_info=error)
