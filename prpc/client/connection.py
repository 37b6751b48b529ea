"""One open connection of a pump: a broker, this process's mailbox, and what was handed over and is not confirmed yet."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Mailbox, Outgoing, ServerRecord
from prpc.client.call import Call
from prpc.codec.signing import CONTROL, MAIL, Signatures
from prpc.exceptions import BrokerUnavailableError, FunctionNotFoundError, NoServerError
from prpc.names import BUILT_IN_NAMES
from prpc.protocol.facts import CallFacts, write_cancel
from prpc.protocol.repeats import Repeats
from prpc.settings import Settings, safe_url

__all__ = ["Connection", "check_served", "place"]

logger = logging.getLogger("prpc.client")


def place(settings: Settings) -> str:
    """Queue and broker, for errors and logs; without the password."""
    return f"queue {settings.queue_name!r} at {safe_url(settings.url_broker)}"


#: Told the calls that could not be sent, and why.
Failed = Callable[[Call, Exception], None]
#: Told what became of one attempt of a call that is repeated: None where the broker has it.
Attempted = Callable[[Call, Repeats, int, Exception | None], None]


def _no_server(settings: Settings, *, stopping: bool = False) -> NoServerError:
    """The error for a queue that nobody serves; `stopping`: those who do are on their way out."""
    there = " takes calls: those that are there stop" if stopping else ""
    return NoServerError(
        f"no server on {place(settings)}{there}: start one (python -m prpc run module:app), "
        "or correct PRPC_QUEUE_NAME and PRPC_URL_BROKER",
        queue=settings.queue_name,
    )


def check_served(settings: Settings, servers: Sequence[ServerRecord], function: str) -> None:
    """Raise NoServerError where nobody takes calls, FunctionNotFoundError where none of those who do has the function.

    `servers`: what announces itself on the queue. Built-in functions are announced by nobody and known to all.
    """
    taking = [server for server in servers if not server.info.get("draining")]
    if not taking:
        raise _no_server(settings, stopping=bool(servers))
    known: set[str] = set()
    for server in taking:
        functions = server.info.get("functions")
        if not isinstance(functions, Mapping) or function in functions or function in BUILT_IN_NAMES:
            return
        known.update(map(str, functions))
    nearest = difflib.get_close_matches(function, known, n=3)
    hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    text = f"none of the {len(taking)} servers on {place(settings)} has a function {function!r}{hint}"
    raise FunctionNotFoundError(text, function=function, nearest=nearest)


class Connection:
    """Made by `open`. Its methods belong to the loop's thread."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        mailbox: Mailbox,
        failed: Failed,
        attempted: Attempted,
        signatures: Signatures | None,
    ) -> None:
        """`signatures`: None where nothing is signed."""
        self._signatures = signatures
        self.broker = broker
        self.mailbox = mailbox
        self._settings = settings
        self._queue = settings.queue_name
        self._failed = failed
        self._attempted = attempted
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        #: What the broker answered last, and the calls that this answer is about.
        self._last: tuple[Awaitable[None] | None, list[Call]] = (None, [])
        self._cancelled: list[UUID] = []

    @classmethod
    async def open(
        cls, settings: Settings, failed: Failed, attempted: Attempted, signatures: Signatures | None = None
    ) -> Connection:
        """Connect and open the mailbox. Raises BrokerUnavailableError within the connect timeout."""
        broker = create_broker(settings)
        try:
            # The adapter bounds itself; this is for what it forgot.
            async with asyncio.timeout(settings.connect_timeout * 1.2):
                await broker.connect()
                mailbox = await broker.open_mailbox(settings.queue_name)
        except BaseException as exc:
            await _close(broker, settings)
            if isinstance(exc, TimeoutError):
                url, seconds = safe_url(settings.url_broker), settings.connect_timeout
                raise BrokerUnavailableError(f"the broker at {url} did not answer within {seconds:g} s", url=url) from exc
            raise
        return cls(settings, broker, mailbox, failed, attempted, signatures)

    def publish(self, call: Call) -> None:
        """Hand a call over, unless it has its outcome already; where that fails, the error is its outcome."""
        body = call.body
        if body is None or call.done:
            return
        call.sent = True
        repeats = call.repeats
        if repeats is not None:
            self._publish_attempt(call, body, repeats)
            return
        call.body = None
        try:
            sent = self._hand_over(call, body, 1, partial(self._failed, call))
        except Exception as exc:
            self._failed(call, exc)
            return
        last, batch = self._last
        if sent is last:  # a broker that writes once a tick may answer once a tick
            batch.append(call)
            return
        batch = [call]
        self._last = (sent, batch)
        self._confirm(sent, partial(self._published, batch))

    def _publish_attempt(self, call: Call, body: bytes, repeats: Repeats) -> None:
        attempt = repeats.attempts
        try:
            sent = self._hand_over(call, body, attempt, None)
        except Exception as exc:
            self._attempted(call, repeats, attempt, exc)
            return

        def answered(future: asyncio.Future[None]) -> None:
            self._unconfirmed.discard(future)
            error = None if future.cancelled() else future.exception()
            if error is None or isinstance(error, Exception):
                self._attempted(call, repeats, attempt, error)

        self._confirm(sent, answered)

    def _hand_over(self, call: Call, body: bytes, attempt: int, refused: Callable[[Exception], object] | None) -> Awaitable[None]:
        left = None if call.expires is None else max(0.0, call.expires - monotonic())
        feeds = () if call.feeds is None else call.feeds.names
        facts = CallFacts(self.mailbox.address, left, call.schema, call.options.headers, attempt, call.window, feeds).to_fields()
        if self._signatures is not None:
            facts = self._signatures.sign_call(body, facts, self.broker.now())
        outgoing = Outgoing(call.message_id, body, facts, self.mailbox.address, attempt > 1, refused)
        return self.broker.publish(self._queue, outgoing)

    def post(self, address: str, body: bytes, message_id: UUID) -> None:
        """Send mail to a server; what is lost is not missed for long."""
        signed = body if self._signatures is None else self._signatures.sign(MAIL, body)
        self._confirm(self.broker.post(self._queue, address, signed, message_id=message_id), self._posted)

    def cancel(self, message_id: UUID) -> None:
        """Tell the servers that nobody wants this call any more; all of one tick in one message."""
        if not self._cancelled:
            asyncio.get_running_loop().call_soon(self._broadcast)
        self._cancelled.append(message_id)

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes] | None:
        """The kept replies of those of the calls that have one; None where the broker could not be asked."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                return await self.mailbox.collect(message_ids)
        except (BrokerUnavailableError, TimeoutError) as exc:
            logger.warning("results could not be collected from %s: %s", place(self._settings), str(exc) or "no answer")
            return None

    async def flush(self) -> None:
        """Wait until the broker has everything that was handed to it."""
        self._broadcast()
        while self._unconfirmed:
            await asyncio.wait(self._unconfirmed)

    async def close(self) -> None:
        """Leave, within bounds and without raising."""
        await _close(self.mailbox, self._settings)
        await _close(self.broker, self._settings)

    def _confirm(self, sent: Awaitable[None], then: Callable[[asyncio.Future[Any]], None]) -> None:
        future = asyncio.ensure_future(sent)
        self._unconfirmed.add(future)
        future.add_done_callback(then)

    def _published(self, batch: list[Call], future: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(future)
        if self._last[1] is batch:
            self._last = (None, [])
        if future.cancelled():  # as everything is at the end of asyncio.run
            return
        error = future.exception()
        if not isinstance(error, Exception):
            return
        for call in batch:
            self._failed(call, error)

    def _broadcast(self) -> None:
        ids, self._cancelled = self._cancelled, []
        if ids:
            body = write_cancel(ids)
            signed = body if self._signatures is None else self._signatures.sign(CONTROL, body)
            self._confirm(self.broker.broadcast(self._queue, signed), self._broadcast_ended)

    def _posted(self, future: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.debug("mail could not be sent to %s: %s", place(self._settings), error)

    def _broadcast_ended(self, future: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.warning("a cancellation could not be sent to %s: %s", place(self._settings), error)


async def _close(thing: Broker | Mailbox, settings: Settings) -> None:
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await thing.close()
    except Exception as exc:
        logger.warning("%s did not close cleanly: %s", place(settings), str(exc) or type(exc).__name__)
