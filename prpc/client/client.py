"""The pump of the client's side: call -> publish; mailbox -> the call's outcome. One broker, one queue, one loop.

It connects on the first call, sends without waiting, and lets any number of calls share one mailbox. No call costs a task
(with middleware or `require_server` it costs one) nor a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from prpc.brokers.awaiting import background
from prpc.brokers.base import ServerRecord
from prpc.client.call import Call, wake_future
from prpc.client.connection import Connection, check_served, place
from prpc.client.loop_end import LoopEnd
from prpc.client.mail import MailDesk, MailHandler, hear_progress
from prpc.client.portal import Crossing, LoopBound, running_loop, survive_fork
from prpc.client.readings import Readings, StreamCall
from prpc.client.repair import Repair
from prpc.client.repeating import Repeating, timed_out
from prpc.client.unseen import Unseen
from prpc.codec import Codec, ReadReply
from prpc.codec.signing import REPLY, signatures_of
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, CallError, DecodeError
from prpc.protocol.mail import ITEMS, MAIL_START, PROGRESS, WORDS
from prpc.protocol.pending import PendingCalls
from prpc.protocol.repeats import Repeats
from prpc.settings import Settings
from prpc.timers import TimerWheel

__all__ = ["CallPump"]

logger = logging.getLogger("prpc.client")


class CallPump(LoopBound):
    """Sends calls and delivers their outcomes. Everything happens in its loop's thread, except what says otherwise."""

    def __init__(self, settings: Settings, codec: Codec, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.pending: PendingCalls[Call] = PendingCalls()
        #: True once it takes no more calls.
        self.closed = False
        self._settings = settings
        self._codec = codec
        self._signatures = signatures_of(settings.secret_key, settings.queue_name)
        self._crossing = Crossing(loop)
        #: By the numbers of the ids, as `pending`.
        self._timers: TimerWheel[int] = TimerWheel(loop, self._due)
        self._repeating = Repeating(loop, self._timers, self._send_again, self._fail)
        self._unseen = Unseen(loop, place(settings))
        self._connection: Connection | None = None
        self.streams = Readings(self._crossing, codec, lambda: self._connection)
        handlers: dict[str, MailHandler] = {
            PROGRESS: partial(hear_progress, self.pending),
            ITEMS: self.streams.receive,
            WORDS: self.streams.receive,
        }
        self._mail = MailDesk(place(settings), self._signatures, handlers)
        unreadable = self._fail if self._signatures is None else None
        self._repair = Repair(self.pending, lambda: self._connection, partial(self._deliver, kept=True), unreadable)
        #: Calls that wait for the connection.
        self._outbox: list[Call] = []
        #: Who waits for the connection without a call.
        self._arrivals: list[asyncio.Future[None]] = []
        self._runner: asyncio.Task[None] | None = None
        self._loop_end = LoopEnd(self.close)
        self._farewell: asyncio.Task[None] | None = None
        #: Tasks of calls that are on their way to the broker; a flush waits for them.
        self._sending: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Lock()
        #: Saying goodbye: first what was sent still goes out, then nothing does.
        self._finishing = self._leaving = False
        survive_fork(self)

    @property
    def usable(self) -> bool:
        """Whether new calls may go through this pump."""
        return not (self.closed or self.inherited or self.loop.is_closed())

    def closed_error(self) -> CallError:
        """What ends a call whose client was closed first."""
        return CallError(f"the client of {place(self._settings)} was closed before the call ended")

    # -- for any thread ------------------------------------------------------------------------------------------------

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        """Call `function(argument)` in the loop: now where it is the running one, else soon. RuntimeError: it is closed."""
        if running_loop() is self.loop:
            function(argument)
        else:
            self._crossing.post(function, argument)

    def submit(self, call: Call) -> None:
        """Send a call without waiting."""
        self.pending.add(call)
        try:
            self.post(self._send, call)
        except RuntimeError:  # the loop was closed in this moment
            self._fail(call, self.closed_error())

    def cancel(self, call: Call) -> bool:
        """Decide the call as cancelled and tell the servers; False where it was decided before."""
        if self.inherited or self.pending.take(call.message_id) is None:
            return False
        call.end(CallCancelledError(f"the call of {call.message.func_name}() was cancelled", message_id=str(call.message_id)))
        try:
            self.post(self._withdraw, call)
        except RuntimeError:  # the loop is closed: nobody is left to tell but threads that wait
            call.notify()
        return True

    def refresh(self, call: Call) -> None:
        """Ask the broker for the call's kept reply: plain code waits for the answer, in a running loop it comes later."""
        if running_loop() is not None:
            self.post(self._repair.ask, call.message_id)
            return
        self.check_sync_wait()
        asyncio.run_coroutine_threadsafe(self._repair.collect([call.message_id]), self.loop).result()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, call: Call) -> None:
        if call.done:  # cancelled on its way here
            return
        if self.closed and (self._leaving or (self._runner is None and not self._finishing)):
            self._fail(call, self.closed_error())
            return
        if call.expires is not None:
            left = call.expires - monotonic()
            if left <= 0:
                self._expire(call.message_id)
                return
            call.tick = self._timers.add(call.message_id.int, self.loop.time() + left)
        if isinstance(call, StreamCall):
            self.streams.add(call)
        if call.feeds is not None:
            self.streams.feed(call, self._feed_failed)
        self._dispatch(call)

    def _send_again(self, call: Call) -> None:
        if self.closed:
            self._fail(call, self.closed_error())
            return
        if isinstance(call, StreamCall):  # its connection may be another one than before
            self.streams.add(call)
        self._dispatch(call)

    def _dispatch(self, call: Call) -> None:
        if call.repeats is not None:
            call.repeats.begin()
        if self._connection is None:
            self._outbox.append(call)
            self._start()
        else:
            self._publish(self._connection, call)

    def _publish(self, connection: Connection, call: Call) -> None:
        if call.options.require_server and not call.sent:
            self._spawn(self._publish_if_served(connection, call), self._sending)
        else:
            connection.publish(call)

    async def _publish_if_served(self, connection: Connection, call: Call) -> None:
        try:
            servers = await connection.broker.servers(self._settings.queue_name)
            check_served(self._settings, servers, call.message.func_name)
        except Exception as exc:
            if call.repeats is None:
                self._fail(call, exc)
            else:
                self._attempted(call, call.repeats, call.repeats.attempts, exc)
        else:
            connection.publish(call)

    async def servers(self) -> Sequence[ServerRecord]:
        """The servers that announce themselves on the queue; connects first where that is needed."""
        while self._connection is None:
            connected: asyncio.Future[None] = self.loop.create_future()
            self._arrivals.append(connected)
            self._start()
            await connected
        return await self._connection.broker.servers(self._settings.queue_name)

    def _spawn(self, work: Coroutine[Any, Any, Any], held: set[asyncio.Task[Any]]) -> None:
        task = background(work)
        held.add(task)
        task.add_done_callback(held.discard)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def _attempted(self, call: Call, repeats: Repeats, attempt: int, error: Exception | None) -> None:
        if not self.closed:
            self._repeating.attempted(call, repeats, attempt, error)
        elif error is not None:
            self._fail(call, error)

    def _fail(self, call: Call, error: Exception) -> None:
        if self.pending.take(call.message_id) is not None:
            if not call.watched and not self.closed:
                self._unseen.add(call, error)
            self._end(call, error)

    def _feed_failed(self, call: Call, error: BaseException) -> None:
        """What a caller's own iterable raises is the call's outcome."""
        self._fail(call, error if isinstance(error, Exception) else RuntimeError(f"the stream ended with {error!r}"))
        self._withdraw(call)

    def _end(self, call: Call, outcome: ReadReply | Exception) -> None:
        if call.tick or call.feeds is not None:
            self._release(call)
        if isinstance(call, StreamCall) and isinstance(outcome, ReadReply):
            call.reading.conclude(outcome)
        call.end(outcome)
        call.notify()

    def _due(self, number: int) -> None:
        message_id = UUID(int=number)
        call = self.pending.get(message_id)
        if call is not None and not self._repeating.due(call):
            self._expire(message_id)

    def _expire(self, message_id: UUID) -> None:
        call = self.pending.take(message_id)
        if call is not None:
            self._end(call, timed_out(call))

    def _release(self, call: Call) -> None:
        if call.feeds is not None:
            call.feeds.stop()
        if call.tick:
            self._disarm(call)

    def _disarm(self, call: Call) -> None:
        self._timers.remove(call.message_id.int, call.tick)
        if call.repeats is not None:
            self._repeating.let_go(call)

    def _withdraw(self, call: Call) -> None:
        self._release(call)
        call.notify()
        if call.sent and self._connection is not None:
            self._connection.cancel(call.message_id)

    def _deliver(self, connection: Connection, bodies: Iterable[bytes], *, kept: bool = False) -> None:
        delivered = []
        for body in bodies:
            if body.startswith(MAIL_START) and not kept:
                self._mail.receive(body)
                continue
            try:
                reply = self._codec.read_reply(body if self._signatures is None else self._signatures.open(REPLY, body))
            except DecodeError as exc:
                self._refuse(exc)
                continue
            # Also of a call that ended without it (a timeout): nobody else will come for the kept copy.
            delivered.append(reply.message_id)
            call = self.pending.take(reply.message_id)
            if call is not None:
                self._end(call, reply)
        if delivered:
            connection.mailbox.forget(delivered)

    def _refuse(self, error: DecodeError) -> None:
        logger.warning("a reply on %s was refused: %s", place(self._settings), error)
        if error.message_id is None:  # it may be what is kept in the place of an outcome: the key says whose
            self._repair.doubt()
            return
        with suppress(ValueError):  # whatever stands there, it is no id of ours
            call = self.pending.take(UUID(error.message_id))
            if call is not None:
                self._end(call, error)

    # -- coming and going ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._runner is None:
            self._runner = background(self._run(), "prpc-client")
        self._loop_end.watch()

    async def _run(self) -> None:
        reason: Exception = self.closed_error()
        try:
            connection = await self._connect()
            while True:
                mail = await connection.mailbox.receive()
                if mail.gap and len(self.pending):
                    self.streams.missed()
                    self._repair.after_gap(connection)
                self._deliver(connection, mail.bodies)
        except asyncio.CancelledError:  # by close(); the task ends as an ordinary one
            self.closed = True
        except Exception as exc:
            reason = exc
        await self._finish(reason)
        self._runner = None
        if (self._outbox or self._arrivals) and not self.closed:  # came while we were leaving
            self._start()

    async def _connect(self) -> Connection:
        connection = self._connection = await Connection.open(self._settings, self._fail, self._attempted, self._signatures)
        arrivals, self._arrivals = self._arrivals, []
        for connected in arrivals:
            wake_future(connected)
        outbox, self._outbox = self._outbox, []
        for call in outbox:
            self._publish(connection, call)
        return connection

    async def close(self) -> None:
        """Send what is queued, leave, and end every call that has no outcome. Idempotent."""
        self.closed = True
        async with self._closing:
            runner = self._runner
            if runner is not None:
                if not self._finishing:
                    runner.cancel()
                await asyncio.wait([runner])
                self._runner = None
            if self._outbox or len(self.pending):  # the runner was cancelled before it began
                await self._finish(self.closed_error())
        self._unseen.tell()
        await self._loop_end.leave()

    def close_soon(self) -> None:
        """`close` without waiting, in the loop's thread: it goes on as the loop does, and ends before `asyncio.run` ends."""
        self.closed = True
        if (self._runner is not None or len(self.pending)) and self._farewell is None:
            self._farewell = background(self.close(), "prpc-client-close")

    async def _finish(self, reason: Exception) -> None:
        self._finishing = True
        try:
            if self.closed:
                reason = await self._flush(reason)
            self._leaving = True
            await self._leave(reason)
        finally:
            self._finishing = self._leaving = False

    async def _flush(self, reason: Exception) -> Exception:
        """Until the broker has everything that was sent, within bounds. Returns why calls without outcome end now."""
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout):
                if self._outbox:
                    await self._connect()
                await asyncio.gather(*self._sending, return_exceptions=True)
                if self._connection is not None:
                    self.streams.say_goodbye(self._connection)
                    await self._connection.flush()
        except Exception as exc:
            logger.warning("calls to %s may be unsent: %s", place(self._settings), str(exc) or type(exc).__name__)
            return exc if isinstance(exc, BrokerUnavailableError) else reason
        return reason

    async def _leave(self, reason: Exception) -> None:
        """End the calls that nobody can answer any more with `reason`, and close the connection."""
        connection, self._connection = self._connection, None
        self._timers.clear()
        self.streams.close()
        waiting = self.pending.calls()
        kept = {call for call in waiting if not self.closed and self._repeating.outlives(call, reason)}
        self._outbox.clear()
        arrivals, self._arrivals = self._arrivals, []
        for connected in arrivals:
            if not connected.done():
                connected.set_exception(reason)
        self._repair.stop()
        for task in self._sending:
            task.cancel()
        for call in waiting:
            if call not in kept:
                self._fail(call, reason)
        if connection is not None:
            await connection.close()
