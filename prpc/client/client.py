"""The pump of the client's side: call -> publish; mailbox -> the call's outcome. One broker, one queue, one loop.

It connects on the first call, sends without waiting, and lets any number of calls share one mailbox. No call costs a task
(with middleware or `require_server` it costs one) nor a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Mail, Mailbox, Outgoing, ServerRecord
from prpc.client.call import Call, wake_future
from prpc.client.portal import Crossing, Forkable, running_loop, survive_fork
from prpc.client.timers import TimerWheel
from prpc.codec import Codec
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, CallError, ClientTimeOutError, DecodeError, NoServerError
from prpc.protocol.facts import CallFacts, write_cancel
from prpc.protocol.pending import PendingCalls
from prpc.settings import Settings, safe_url

__all__ = ["CallPump"]

T = TypeVar("T")

logger = logging.getLogger("prpc.client")

#: Seconds between two tries to collect after a gap: the first and the longest.
COLLECT_DELAYS = (0.1, 2.0)


class CallPump(Forkable):
    """Sends calls and delivers their outcomes. Everything happens in its loop's thread; `post` and `cancel` are for any."""

    def __init__(self, settings: Settings, codec: Codec, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pending: PendingCalls[Call] = PendingCalls()
        #: True once it takes no more calls.
        self.closed = False
        self._settings = settings
        self._queue = settings.queue_name
        self._codec = codec
        self._crossing = Crossing(loop)
        self._timers: TimerWheel[UUID] = TimerWheel(loop, self._expire)
        self._broker: Broker | None = None
        self._mailbox: Mailbox | None = None
        #: Calls that wait for the connection.
        self._outbox: list[Call] = []
        #: Who waits for the connection without a call.
        self._arrivals: list[asyncio.Future[None]] = []
        self._runner: asyncio.Task[None] | None = None
        #: What was handed to the broker and is not confirmed; a flush waits for it.
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        self._last_sent: tuple[Awaitable[None] | None, list[Call]] = (None, [])
        self._cancelled: list[UUID] = []
        #: Tasks of calls that are on their way to the broker; a flush waits for them.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._repairs: set[asyncio.Task[Any]] = set()
        #: Closes the pump when its loop ends.
        self._guardian: AsyncGenerator[None, None] | None = None
        self._finishing = self._leaving = False
        survive_fork(self)

    @property
    def usable(self) -> bool:
        """Whether new calls may go through this pump."""
        return not (self.closed or self.inherited or self.loop.is_closed())

    @property
    def where(self) -> str:
        """Queue and broker, for errors; without the password."""
        return f"queue {self._queue!r} at {safe_url(self._settings.url_broker)}"

    # -- for any thread ------------------------------------------------------------------------------------------------

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        """Call `function(argument)` in the loop: now where it is the running one, else soon."""
        if running_loop() is self.loop:
            function(argument)
        else:
            self._crossing.post(function, argument)

    def submit(self, call: Call) -> None:
        """Send a call, from any thread, without waiting."""
        self.pending.add(call)
        try:
            self.post(self.send, call)
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

    def check_wait(self) -> None:
        """Raise RuntimeError where no outcome can come to this process."""
        if self.inherited:
            raise RuntimeError("this call was made before the process was forked; its outcome goes to the parent process")

    def check_sync_wait(self) -> None:
        """Raise RuntimeError where blocking this thread would wait for ever."""
        self.check_wait()
        if running_loop() is self.loop:
            raise RuntimeError(
                "a sync wait inside the running event loop that receives the result would never end: "
                "use `await task` or `await task.async_wait_result_task(timeout)`"
            )
        if not self.loop.is_running():
            raise RuntimeError("the event loop in which this call was made does not run now, so nobody can receive its result")

    def refresh(self, call: Call) -> None:
        """Ask the broker for the call's kept reply: plain code waits for the answer, in a running loop it comes later."""
        if running_loop() is not None:
            self.post(self._ask, call.message_id)
            return
        self.check_sync_wait()
        asyncio.run_coroutine_threadsafe(self.collect([call.message_id]), self.loop).result()

    def _ask(self, message_id: UUID) -> None:
        self._spawn(self.collect([message_id]), self._repairs)

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, call: Call) -> None:
        """Publish the call, or keep it until the connection is up. The call stands in `pending` already."""
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
            call.tick = self._timers.add(call.message_id, self.loop.time() + left)
        if self._mailbox is None:
            self._outbox.append(call)
            self._start()
        elif call.options.require_server:
            self._spawn(self._publish_if_served(call), self._tasks)
        else:
            self._publish(call)

    def _publish(self, call: Call) -> None:
        body = call.body
        if body is None or call.done or self._broker is None or self._mailbox is None:
            return
        call.body, call.sent = None, True
        options = call.options
        left = None if call.expires is None else max(0.0, call.expires - monotonic())
        facts = CallFacts(self._mailbox.address, left, call.schema, options.headers)
        try:
            sent = self._broker.publish(self._queue, Outgoing(call.message_id, body, facts.to_fields()))
        except Exception as exc:
            self._fail(call, exc)
            return
        last, batch = self._last_sent
        if sent is last:  # a broker that writes once a tick answers once a tick
            batch.append(call)
            return
        batch = [call]
        self._last_sent = (sent, batch)
        self._confirm(sent, partial(self._published, batch))

    def _confirm(self, sent: Awaitable[None], then: Callable[[asyncio.Future[Any]], None]) -> None:
        future = asyncio.ensure_future(sent)
        self._unconfirmed.add(future)
        future.add_done_callback(then)

    def _published(self, batch: list[Call], future: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(future)
        if self._last_sent[1] is batch:
            self._last_sent = (None, [])
        error = self._error_of(future)
        if error is None:
            return
        unseen = [call for call in batch if not call.watched]
        if unseen:
            logger.warning("%d calls could not be sent to %s: %s", len(unseen), self.where, error)
        for call in batch:
            self._fail(call, error)

    def _error_of(self, future: asyncio.Future[Any]) -> Exception | None:
        if future.cancelled():
            return self.closed_error()
        error = future.exception()
        return error if error is None or isinstance(error, Exception) else self.closed_error()

    async def _publish_if_served(self, call: Call) -> None:
        try:
            if not await self.servers():
                raise NoServerError(
                    f"no server on {self.where}: start one (python -m prpc run module:app), "
                    "or correct PRPC_QUEUE_NAME and PRPC_URL_BROKER",
                    queue=self._queue,
                )
        except Exception as exc:
            self._fail(call, exc)
        else:
            self._publish(call)

    async def servers(self) -> Sequence[ServerRecord]:
        """The servers that announce themselves on the queue; connects first where that is needed."""
        if self._broker is None:
            connected: asyncio.Future[None] = self.loop.create_future()
            self._arrivals.append(connected)
            self._start()
            await connected
        assert self._broker is not None
        return await self._broker.servers(self._queue)

    def _spawn(self, work: Coroutine[Any, Any, Any], held: set[asyncio.Task[Any]]) -> None:
        # An empty context: it outlives the call that started it.
        task = self.loop.create_task(work, context=Context())
        held.add(task)
        task.add_done_callback(held.discard)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def _fail(self, call: Call, error: Exception) -> None:
        if self.pending.take(call.message_id) is not None:
            self._end(call, error)

    def _end(self, call: Call, error: Exception) -> None:
        if call.expires is not None:
            self._timers.remove(call.message_id, call.tick)
        call.end(error)
        call.notify()

    def _expire(self, message_id: UUID) -> None:
        call = self.pending.take(message_id)
        if call is None:
            return
        name, timeout = call.message.func_name, call.timeout or 0.0
        text = f"no outcome of {name}() within its timeout of {timeout:g} s"
        self._end(call, ClientTimeOutError(text, message_id=str(message_id), timeout=timeout))

    def _withdraw(self, call: Call) -> None:
        if call.expires is not None:
            self._timers.remove(call.message_id, call.tick)
        call.notify()
        if call.sent and self._broker is not None:
            if not self._cancelled:
                self.loop.call_soon(self._broadcast_cancels)
            self._cancelled.append(call.message_id)

    def _broadcast_cancels(self) -> None:
        ids, self._cancelled = self._cancelled, []
        if self._broker is not None:
            self._confirm(self._broker.broadcast(self._queue, write_cancel(ids)), self._cancels_sent)

    def _cancels_sent(self, future: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.warning("a cancellation could not be sent to %s: %s", self.where, error)

    def _deliver(self, mailbox: Mailbox, bodies: Iterable[bytes]) -> None:
        delivered = []
        for body in bodies:
            try:
                reply = self._codec.read_reply(body)
            except DecodeError as exc:
                self._refuse(exc)
                continue
            # Also of a call that ended without it (a timeout): nobody else will come for the kept copy.
            delivered.append(reply.message_id)
            call = self.pending.take(reply.message_id)
            if call is not None:
                if call.expires is not None:
                    self._timers.remove(call.message_id, call.tick)
                call.end(reply)
                call.notify()
        if delivered:
            mailbox.forget(delivered)

    def _refuse(self, error: DecodeError) -> None:
        logger.warning("a reply on %s was refused: %s", self.where, error)
        call = None
        if error.message_id is not None:
            call = self.pending.take(UUID(error.message_id))
        if call is not None:
            self._end(call, error)

    # -- connection ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._runner is None:
            self._runner = self.loop.create_task(self._run(), context=Context(), name=f"prpc-client-{self._queue}")
        if self._guardian is None:
            self._guardian = self._guard()
            with suppress(StopIteration):  # run to its yield, so that the loop knows of it
                self._guardian.__anext__().__await__().__next__()

    async def _guard(self) -> AsyncGenerator[None, None]:
        # The end of asyncio.run cancels a task that has not begun without running any of it, but it closes open async
        # generators, too: what was sent shall still go out.
        try:
            yield
        finally:
            await self.close()

    async def _run(self) -> None:
        reason: Exception = self.closed_error()
        try:
            await self._connect()
            await self._receive()
        except asyncio.CancelledError:
            # close(), or the end of asyncio.run. The task ends as an ordinary one.
            self.closed = True
        except Exception as exc:
            reason = exc
        await self._finish(reason)
        self._runner = None
        if (self._outbox or self._arrivals) and not self.closed:  # came while we were leaving
            self._start()

    async def _finish(self, reason: Exception) -> None:
        self._finishing = True
        try:
            if self.closed:
                reason = await self._flush(reason)
            self._leaving = True
            await self._leave(reason)
        finally:
            self._finishing = self._leaving = False

    async def _connect(self) -> None:
        broker = create_broker(self._settings)
        try:
            # The adapter bounds itself; this is for what it forgot.
            async with asyncio.timeout(self._settings.connect_timeout * 1.2):
                await broker.connect()
                self._mailbox = await broker.open_mailbox(self._queue)
        except BaseException as exc:
            await self._close(broker)
            if isinstance(exc, TimeoutError):
                raise self._unreachable() from exc
            raise
        self._broker = broker
        arrivals, self._arrivals = self._arrivals, []
        for connected in arrivals:
            wake_future(connected)
        outbox, self._outbox = self._outbox, []
        for call in outbox:
            if call.options.require_server:
                self._spawn(self._publish_if_served(call), self._tasks)
            else:
                self._publish(call)

    async def _receive(self) -> None:
        mailbox = self._mailbox
        assert mailbox is not None
        while True:
            mail: Mail = await mailbox.receive()
            if mail.gap and len(self.pending):
                self._spawn(self._repair(mailbox), self._repairs)
            self._deliver(mailbox, mail.bodies)

    async def collect(self, message_ids: Iterable[UUID]) -> bool:
        """Look for kept replies of these calls; False where the broker could not be asked."""
        mailbox = self._mailbox
        if mailbox is None:
            return False
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                kept = await mailbox.collect(message_ids)
        except (BrokerUnavailableError, TimeoutError) as exc:
            logger.warning("results could not be collected from %s: %s", self.where, exc or "no answer")
            return False
        self._deliver(mailbox, kept.values())
        return True

    async def _repair(self, mailbox: Mailbox) -> None:
        """Wake-ups may have been missed: look for the kept replies of everything that is waited for."""
        delay, longest = COLLECT_DELAYS
        while mailbox is self._mailbox and not await self.collect(self.pending.waiting()):
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)

    async def close(self) -> None:
        """Send what is queued, leave, and end every call that has no outcome. Idempotent; in the pump's loop."""
        self.closed = True
        runner, guardian = self._runner, self._guardian
        if runner is not None:
            if not self._finishing:
                runner.cancel()
            await asyncio.wait([runner])
            self._runner = None
        if self._outbox or len(self.pending):  # the runner was cancelled before it began
            await self._finish(self.closed_error())
        self._guardian = None
        if guardian is not None and not guardian.ag_running:
            await guardian.aclose()

    async def _flush(self, reason: Exception) -> Exception:
        """Until the broker has everything that was sent, within bounds. Returns why calls without outcome end now."""
        await asyncio.sleep(0)  # at the end of asyncio.run every await is cancelled in this tick: their cancels go along
        try:
            async with asyncio.timeout(2 * self._settings.connect_timeout):
                if self._outbox:
                    await self._connect()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if self._cancelled:
                    self._broadcast_cancels()
                while self._unconfirmed:
                    await asyncio.wait(self._unconfirmed)
        except Exception as exc:
            logger.warning("calls to %s may be unsent: %s", self.where, exc or type(exc).__name__)
            return exc if isinstance(exc, BrokerUnavailableError) else reason
        return reason

    async def _leave(self, reason: Exception) -> None:
        """Close the connection and end the calls that nobody can answer any more with `reason`."""
        broker, mailbox = self._broker, self._mailbox
        self._broker = self._mailbox = None
        self._outbox.clear()
        arrivals, self._arrivals = self._arrivals, []
        for connected in arrivals:
            if not connected.done():
                connected.set_exception(reason)
        for task in (*self._tasks, *self._repairs):
            task.cancel()
        for call in self.pending.take_all():
            self._end(call, reason)
        self._timers.clear()
        for thing in (mailbox, broker):
            await self._close(thing)

    async def _close(self, thing: Broker | Mailbox | None) -> None:
        if thing is None:
            return
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await thing.close()
        except Exception as exc:
            logger.warning("%s did not close cleanly: %s", self.where, exc)

    def _unreachable(self) -> BrokerUnavailableError:
        url = safe_url(self._settings.url_broker)
        seconds = self._settings.connect_timeout
        return BrokerUnavailableError(f"the broker at {url} did not answer within {seconds:g} s", url=url)

    def closed_error(self) -> CallError:
        """What ends a call whose client was closed first."""
        return CallError(f"the client of {self.where} was closed before the call ended")
