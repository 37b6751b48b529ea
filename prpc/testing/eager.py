"""Calls that run at once, where they are made: no broker, no server, no thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from prpc.app_client import Client
from prpc.app_server import AppServer
from prpc.brokers.base import ServerRecord
from prpc.client.call import Call, StreamHome
from prpc.client.channel import Channel
from prpc.client.connection import check_served
from prpc.client.feeds import is_stream
from prpc.client.options import CallOptions
from prpc.client.readings import Reading
from prpc.codec import ReadReply
from prpc.exceptions import ClientTimeOutError, PRPCError
from prpc.protocol.facts import CallFacts
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings
from prpc.testing.clock import ManualClock
from prpc.testing.default import default_client
from prpc.testing.eager_server import ADDRESS, EagerServer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

__all__ = ["Eager", "EagerClient", "eager", "eager_client"]


def eager(app: AppServer, *, use: bool = False, clock: ManualClock | None = None) -> Eager:
    """Run the app's functions at once in the thread that calls them, within a block.

        with eager(app) as client:
            assert client.call("summ", 1, 2).get_result() == 3.5

    Every task that the client gives is done already. Arguments, results and exceptions go through the codec both ways, so that
    what a real call refuses is refused here, with the same errors. `current_call()`, middleware and lifespan work.

    What does not hold: a deadline counts only where it is over before the call, no limit ends a function, process functions
    run in this process, nothing is signed, streams need `running(app)`, of a function's progress the last word is there, and
    what a broadcast function raises comes to the caller, who would hear nothing of it otherwise.

    A plain function runs in the calling thread. An async one, and middleware, run in a loop that the block keeps; where a loop
    runs in the calling thread already, in a new loop in a thread of its own while the caller waits: what belongs to the
    caller's loop cannot be awaited there. In a coroutine an app with a lifespan is refused (RuntimeError): use `running(app)`.

    `use`: calls that name no client, as those of stubs, are run so, too. `clock`: what `current_call()` tells the time by.
    """
    return Eager(app, use, clock)


class Eager:
    """What `eager` gives: a context manager."""

    def __init__(self, app: AppServer, use: bool, clock: ManualClock | None) -> None:
        self._app, self._use, self._clock = app, use, clock
        self._stack: ExitStack | None = None

    def __enter__(self) -> EagerClient:
        if self._stack is not None:
            raise RuntimeError("this block is entered already; call eager(app) again for another one")
        with ExitStack() as stack:
            server = stack.enter_context(EagerServer(self._app, self._clock))
            client = eager_client(server)
            if self._use:
                stack.enter_context(default_client(client))
            self._stack = stack.pop_all()
        return client

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(kind, error, trace)


class EagerClient(Client):
    """A `Client` whose calls are done when they are made. Its tasks may be awaited in coroutines, too."""

    def servers(self) -> Sequence[ServerRecord]:
        """The app as the one server that there is."""
        channel = self._channel
        assert isinstance(channel, _EagerChannel)
        return channel.records()


def eager_client(server: EagerServer) -> EagerClient:
    """A client of this server."""
    queue = server.settings.queue_name
    return EagerClient._over(
        _EagerChannel(Settings.from_env(type_broker="memory", url_broker="memory://", queue_name=queue), server)
    )


class _EagerChannel(Channel):
    """A channel without pumps: what is submitted is answered before it returns."""

    def __init__(self, settings: Settings, server: EagerServer) -> None:
        super().__init__(settings)
        self._server = server

    def submit(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None = None,
        reading: Reading | None = None,
    ) -> Call:
        """Run the call. Raises EncodeError where an argument cannot be written; every other failure is its outcome.

        An argument that is a stream is run through first, and sent as a list.
        """
        if reading is not None:
            raise NotImplementedError(f"{name}() streams its items, which takes two sides at once: use running(app)")
        args, kwargs = [_whole(value) for value in args], {key: _whole(value) for key, value in kwargs.items()}
        message = PRPCMessage(name, tuple(args), dict(kwargs), uuid4(), datetime.now(UTC))
        body = self._codec.write_call(message)
        call = Call(message, body, options, schema, _Nowhere())
        self._set_deadline(call)
        try:
            call.end(self._outcome(call, body))
        except PRPCError as exc:
            call.end(exc)
        said = self._server.progress.pop(str(call.message_id), None)
        if said is not None:
            call.note(said)
        return call

    def _outcome(self, call: Call, body: bytes) -> ReadReply:
        left = None if call.expires is None else call.expires - monotonic()
        if left is not None and left <= 0:
            raise _late(call)
        if call.options.require_server:
            check_served(self.settings, self.records(), call.message.func_name)
        call.sent = True
        facts = CallFacts(ADDRESS, left, call.schema, call.options.headers)
        return self._codec.read_reply(self._server.answer(body, facts.to_fields()))

    def records(self) -> Sequence[ServerRecord]:
        """What the server would announce."""
        return [ServerRecord(self._server.settings.instance_name, self._server.facts())]

    async def servers(self) -> Sequence[ServerRecord]:
        """See Channel."""
        return self.records()

    async def close(self) -> None:
        """See Channel: there is nothing to close."""

    def close_from_plain_code(self) -> None:
        """See Channel: there is nothing to close."""


def _whole(value: Any) -> Any:
    if not is_stream(value):
        return value
    if not isinstance(value, Iterable):
        raise TypeError(f"{type(value).__name__} is an async iterable: eager calls take plain ones; use running(app)")
    return list(value)


class _Nowhere:
    """Home of calls that are done when they are born: nobody ever waits for one."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._unused()

    def check_sync_wait(self) -> None:
        self._unused()

    def check_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._unused()

    def cancel(self, call: Call) -> bool:
        self._unused()

    def refresh(self, call: Call) -> None:
        self._unused()

    @property
    def streams(self) -> StreamHome:
        return self._unused()

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        function(argument)

    def _unused(self) -> NoReturn:
        raise RuntimeError("an eager call is done already")


def _late(call: Call) -> ClientTimeOutError:
    timeout = call.timeout or 0.0
    text = f"no outcome of {call.message.func_name}() within its timeout of {timeout:g} s: it was over before the call"
    return ClientTimeOutError(text, message_id=str(call.message_id), timeout=timeout, sent=False)
