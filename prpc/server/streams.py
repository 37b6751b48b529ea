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
from functools import partial
from typing import Any
from uuid import UUID

from prpc.brokers.base import Broker, Mailbox
from prpc.codec import Codec
from prpc.exceptions import BadArgumentsError, BrokerUnavailableError, CallCancelledError, DecodeError
from prpc.protocol.facts import CallFacts
from prpc.prpcmessage import PRPCMessage
from prpc.server.binding import Binder
from prpc.server.intake import Intake
from prpc.server.logs import logger
from prpc.server.outcomes import is_cancelled
from prpc.server.seal import Seal
from prpc.settings import Settings
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Key, Reader, Writer
from prpc.workers import create_stream_pool
from prpc.workers.base import Execution, Job, Outcome, WorkerKind, WorkerPool

__all__ = ["Streaming", "Streams"]

#: Seconds between two mails of the server to itself, while streams are open.
BEAT = 1.0
#: Calls of which it is remembered how often they ran here.
MAX_RUNS = 10_000


class Streaming:
    """The streams of one call that runs."""

    def __init__(self, desk: Desk, message_id: UUID, function: str, beats: int) -> None:
        self._desk = desk
        self.message_id = message_id
        self.function = function
        #: Of what the function yields.
        self.writer: Writer | None = None
        #: Of what it is sent: by place or name of the argument.
        self.intakes: dict[str, Intake] = {}
        #: The beat at which the client was last heard of.
        self.heard = beats
        #: What to end where the client is gone; None once the function has ended.
        self.execution: Execution | None = None
        self.ended = False
        #: Whether the client reads another run of the call, whose outcome this one's must not forestall.
        self.superseded = False

    def finish(self, outcome: Outcome, *, given_back: bool = False) -> Outcome:
        """The function has ended: its items are sent before its outcome is, which says how many there are.

        `given_back`: it is run again elsewhere, from the first item, and nothing more may come from here.
        """
        self.ended, self.execution = True, None
        for name, intake in self.intakes.items():
            intake.end(RuntimeError(f"the call of {self.function}() has ended"))
            self._desk.leave((self.message_id, name))
        writer, failure = self.writer, outcome.failure
        if writer is None:
            return outcome
        if not given_back:
            writer.end()
        # What nobody reads any more is not kept.
        if writer.is_done or given_back or (failure is not None and is_cancelled(failure)):
            self._desk.writers.pop(writer.key, None)
        if failure is None:
            return replace(outcome, value=writer.count)  # whatever a middleware made of it
        return replace(outcome, failure=replace(failure, facts={**failure.facts, "items": writer.count}))


class Streams:
    """The streams of one server. Bound to its loop."""

    def __init__(self, broker: Broker, settings: Settings, codec: Codec, seal: Seal) -> None:
        self._broker, self._queue, self._seal = broker, settings.queue_name, seal
        self._patience, self._window = settings.stream_reader_timeout, settings.stream_window
        # Nobody else's mail passes for an echo.
        self._echo = b'{"prpc_mail": "echo", "nonce": "%b"}' % secrets.token_hex(16).encode()
        self._mailbox: Mailbox | None = None
        self._pools: dict[WorkerKind, WorkerPool] = {}
        loop = asyncio.get_running_loop()
        self._desk = Desk(
            loop, codec, address=self._address, post=self._post, heard=self._heard, news=self._news, left=self._left
        )
        self._open: dict[UUID, Streaming] = {}
        #: Call -> number of its last run, those that ran last at the end.
        self._runs: dict[UUID, int] = {}
        #: Echoes heard so far.
        self._beats = 0
        #: When the last one was (loop time).
        self._beaten = -BEAT
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

    def begin(self, message: PRPCMessage, facts: CallFacts, binder: Binder) -> Streaming:
        """The streams of one call. Its arguments that are streams become Intakes, in place.

        Raises BadArgumentsError where there is no such argument, or the function (`binder`) reads no stream there.
        """
        streaming = Streaming(self._desk, message.message_id, message.func_name, self._beats)
        if facts.feeds:
            message.func_args, message.func_kwargs = self._take_in(streaming, message, facts, binder)
        self._open[message.message_id] = streaming
        if self._timer is None:
            self._beat_later()
        return streaming

    def write(self, streaming: Streaming, job: Job, attempt: int, facts: CallFacts, kind: WorkerKind) -> tuple[Job, WorkerPool]:
        """For a streaming function: the job that puts its items in, and the pool that runs it."""
        run = self._number(streaming.message_id, attempt)
        assert facts.reply_to is not None and facts.window is not None, "its caller reads a stream"
        key = (streaming.message_id, "")
        writer = streaming.writer = Writer(self._desk, key, run, facts.reply_to, facts.window, f"an item of {job.name}()")
        self._desk.writers[key] = writer
        writer.flush(greet=True)  # the reader learns that it runs, and where its words go to
        return replace(job, sink=writer), self._pools[kind]

    def _number(self, message_id: UUID, attempt: int) -> int:
        """Of a run: it has that of its attempt, or a higher one where the call has run here with that, which is told apart."""
        number = max(attempt, self._runs.pop(message_id, 0) + 1)
        self._runs[message_id] = number
        if len(self._runs) > MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        return number

    def _take_in(
        self, streaming: Streaming, message: PRPCMessage, facts: CallFacts, binder: Binder
    ) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = list(message.func_args), dict(message.func_kwargs)
        places = {name: _place(name, len(args)) for name in facts.feeds}
        for name, place in places.items():
            if place is None and name not in kwargs:
                text = f"{message.func_name}() was sent a stream for an argument {name!r} that is not there"
                raise BadArgumentsError(text, function=message.func_name)
            binder.check_stream(name if place is None else place)
        for name, place in places.items():
            key = (message.message_id, name)
            reader = Reader(key, self._window, facts.reply_to or "")
            intake = Intake(reader, message.func_name, partial(self._desk.speak, key))
            self._desk.readers[key], streaming.intakes[name] = reader, intake
            if place is None:
                kwargs[name] = intake
            else:
                args[place] = intake
            self._desk.speak(key)  # the caller learns where its items go to
        return args, kwargs

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
        else:
            self._desk.receive(body)
        if not self._desk.writers and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _heard(self, message_id: UUID) -> None:
        streaming = self._open.get(message_id)
        if streaming is not None:
            streaming.heard = self._beats

    def _news(self, reader: Reader) -> None:
        message_id, name = reader.key
        streaming = self._open.get(message_id)
        if streaming is not None and name in streaming.intakes:
            streaming.intakes[name].news()

    def _left(self, key: Key, reads_elsewhere: bool) -> None:
        streaming = self._open.get(key[0])
        if streaming is not None and key[1] == "":
            streaming.superseded = reads_elsewhere
            self._give_up(streaming, "has left")

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
        now = asyncio.get_running_loop().time()
        if now < self._beaten + BEAT / 2:  # echoes that the broker held back come all at once: no time passed between them
            return
        self._beaten = now
        self._beats += 1
        for streaming in list(self._open.values()):
            silent = (self._beats - streaming.heard) * BEAT
            writer = streaming.writer
            if streaming.ended and (writer is None or writer.key not in self._desk.writers):
                del self._open[streaming.message_id]
            elif silent > self._patience:
                self._give_up(streaming, f"was silent for {silent:g} s")
            elif writer is not None:
                writer.beat(greet=silent >= 2 * BEAT)  # it may not know yet where to speak to
        self._desk.beat()

    def _give_up(self, streaming: Streaming, why: str) -> None:
        """Nobody is there any more."""
        del self._open[streaming.message_id]
        if streaming.writer is not None:
            self._desk.writers.pop(streaming.writer.key, None)
        if streaming.execution is not None:
            text = f"the client of {streaming.function}() {why}"
            logger.info("%s; the call is ended", text)
            streaming.execution.cancel(CallCancelledError(text, message_id=str(streaming.message_id)))


def _place(name: str, count: int) -> int | None:
    """The place of an argument that is named by its number, of `count` by place; None where it is none."""
    place = int(name) if name.isascii() and name.isdigit() else count
    return place if place < count else None


def _look(future: asyncio.Future[None]) -> None:
    """A mail that could not be sent is as good as lost."""
    with suppress(asyncio.CancelledError):
        error = future.exception()
        if error is not None and not isinstance(error, BrokerUnavailableError):
            logger.error("mail could not be sent", exc_info=error)
