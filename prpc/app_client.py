"""The client's face: `AwaitableTask`, `Client` and `AsyncClient`, and what generated stubs import.

Calls that name no client go to the queue that the environment names (PRPC_TYPE_BROKER, PRPC_URL_BROKER, PRPC_QUEUE_NAME),
over connections that are made on first use and closed, with a flush, when the program or its event loop ends.
"""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from prpc.brokers.base import ServerRecord
from prpc.client.bars import progress_bar
from prpc.client.channel import Channel, default_channel, set_default_channel
from prpc.client.many import AsCompleted, Gathered, as_completed, gather
from prpc.client.mapping import MAX_IN_FLIGHT, Mapped
from prpc.client.middleware import Middleware, OutgoingCall, Proceed
from prpc.client.options import CallOptions
from prpc.client.portal import current_portal
from prpc.client.remote import RemoteFunction, merge_options, merge_repeats, remote_function
from prpc.client.remote_stream import RemoteStream, merge_stream_options, remote_stream
from prpc.client.stream import Stream
from prpc.client.task import AwaitableTask
from prpc.exceptions import ClientTimeOutError
from prpc.settings import Settings

__all__ = [
    "AsCompleted",
    "AsyncClient",
    "AwaitableTask",
    "Client",
    "Gathered",
    "Mapped",
    "Middleware",
    "OutgoingCall",
    "Proceed",
    "RemoteFunction",
    "RemoteStream",
    "Stream",
    "as_completed",
    "gather",
    "get_function_server",
    "ping",
    "progress_bar",
    "remote_function",
    "remote_stream",
    "servers",
    "use_client",
]

#: Seconds that `ping` and `get_function_server` wait.
PING_TIMEOUT = 10.0
#: Seconds after which `ping` looks at the announcements, too: servers whose every slot is busy read nothing.
BUSY_AFTER = 1.0


class _ClientBase:
    """What both clients share: a channel to one queue, and options for its calls."""

    def __init__(
        self,
        type_broker: str | None = None,
        broker_url: str | None = None,
        name_queue: str | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        **settings: Any,
    ) -> None:
        """A client of one queue; nothing is connected before the first call.

        What is not given comes from the environment, then the default. `settings`: any field of `prpc.settings.Settings`.
        `middleware`: the first is the outermost. Raises ConfigurationError where a value cannot be used.
        """
        given = Settings.from_env(type_broker=type_broker, url_broker=broker_url, queue_name=name_queue, **settings)
        self._channel = Channel(given, middleware)
        self._options = CallOptions()

    @classmethod
    def _over(cls, channel: Channel) -> Self:
        client = object.__new__(cls)
        client._channel, client._options = channel, CallOptions()
        return client

    @property
    def channel(self) -> Channel:
        """For PRPC's own use: what sends the calls."""
        return self._channel

    @property
    def queue(self) -> str:
        """Name of the queue that the calls go to."""
        return self._channel.settings.queue_name

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> AwaitableTask[Any]:
        """Send a call by the function's name, without a stub. Raises EncodeError where an argument cannot be written."""
        return AwaitableTask(name, args, kwargs, options=self._options, client=self)

    def stream(self, name: str, /, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Call a streaming function by its name, without a stub. Raises EncodeError where an argument cannot be written."""
        return Stream(name, args, kwargs, options=self._options, client=self)

    def map(
        self,
        name: str,
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        max_in_flight: int = MAX_IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: timedelta | float | None = None,
        progress: bool = False,
    ) -> Mapped[Any]:
        """One call of this function for each item, without a stub; all the rest as `RemoteFunction.map`."""
        return Mapped(
            partial(self.call, name),
            iterables,
            name=name,
            max_in_flight=max_in_flight,
            ordered=ordered,
            return_exceptions=return_exceptions,
            timeout=timeout,
            progress=progress,
        )

    def options(
        self,
        *,
        timeout: timedelta | float | None = None,
        item_timeout: timedelta | float | None = None,
        idempotent: bool | None = None,
        retries: int | None = None,
        attempt_timeout: timedelta | float | None = None,
        backoff: timedelta | float | None = None,
        headers: Mapping[str, str] | None = None,
        require_server: bool | None = None,
    ) -> Self:
        """The same client, over the same connection, with options for its calls; what is not given stays as it was.

        `item_timeout`: seconds that the reader of a stream waits for one item. No stub says here whether a function is
        idempotent: `idempotent=True` says so, and so does giving `retries`.
        """
        other = copy.copy(self)
        options = merge_stream_options(self._options, timeout, item_timeout, headers, require_server)
        if idempotent is None:
            idempotent = options.idempotent or bool(retries)
        other._options = merge_repeats(options, idempotent, retries, attempt_timeout, backoff)
        return other

    def _ping(self, timeout: timedelta | float | None) -> tuple[AwaitableTask[str], float]:
        """The call, and when it was made (monotonic seconds)."""
        return self._built_in("ping", timeout), time.monotonic()

    def _built_in(self, name: str, timeout: timedelta | float | None) -> AwaitableTask[Any]:
        options = merge_options(CallOptions(), timeout, None, True)
        return AwaitableTask(name, options=options, client=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} queue={self.queue!r}>"


class Client(_ClientBase):
    """A client for plain code; `with` closes it. Its calls may be awaited in coroutines, too."""

    def ping(self, timeout: timedelta | float | None = PING_TIMEOUT) -> str:
        """ "pong": a server of the queue answered or, where all are busy, announced itself meanwhile.

        Raises NoServerError at once where there is none, BrokerUnavailableError where the broker does not answer.
        """
        task, began = self._ping(timeout)
        while True:
            try:
                return task.sync_wait_result_task(BUSY_AFTER)
            except ClientTimeOutError:
                if task.is_done_task():
                    return task.get_result()
            if _announced(self.servers(), began):
                task.cancel()
                return "pong"

    def get_function_server(self, timeout: timedelta | float | None = PING_TIMEOUT) -> list[dict[str, Any]]:
        """The server's functions as plain data, as the generator of stubs reads them. Raises like `ping`."""
        functions: list[dict[str, Any]] = self._built_in("get_function_server", timeout).sync_wait_result_task()
        return functions

    def servers(self) -> Sequence[ServerRecord]:
        """The servers that announce themselves on the queue now. Raises BrokerUnavailableError."""
        return current_portal().run(self._channel.servers())

    def close(self) -> None:
        """Send what is queued and close the connections; calls without an outcome end with a CallError. Idempotent.

        In a coroutine it returns before the running loop's own connection is closed, which needs that loop; `AsyncClient`
        waits for it.
        """
        self._channel.close_from_plain_code()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncClient(_ClientBase):
    """A client for coroutines; `async with` closes it."""

    async def ping(self, timeout: timedelta | float | None = PING_TIMEOUT) -> str:  # noqa: ASYNC109 - the public face
        """As `Client.ping`."""
        task, began = self._ping(timeout)
        while True:
            try:
                return await task.async_wait_result_task(BUSY_AFTER)
            except ClientTimeOutError:
                if task.is_done_task():
                    return task.get_result()
            if _announced(await self.servers(), began):
                task.cancel()
                return "pong"

    async def get_function_server(self, timeout: timedelta | float | None = PING_TIMEOUT) -> list[dict[str, Any]]:  # noqa: ASYNC109 - the public face
        """The server's functions as plain data, as the generator of stubs reads them. Raises like `ping`."""
        functions: list[dict[str, Any]] = await self._built_in("get_function_server", timeout)
        return functions

    async def servers(self) -> Sequence[ServerRecord]:
        """The servers that announce themselves on the queue now. Raises BrokerUnavailableError."""
        return await self._channel.servers()

    async def close(self) -> None:
        """Send what is queued and close the connections; calls without an outcome end with a CallError. Idempotent."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def _announced(servers: Sequence[ServerRecord], since: float) -> bool:
    """Whether a server that takes calls said so after this moment (monotonic seconds)."""
    passed = time.monotonic() - since
    return any(not server.info.get("draining") and server.age < passed for server in servers)


def use_client(client: Client | AsyncClient | None) -> None:
    """Send the calls that name no client through this one; None: as the environment says, read anew on the next call."""
    set_default_channel(None if client is None else client.channel)


def _default() -> Client:
    return Client._over(default_channel())


def ping(timeout: timedelta | float | None = PING_TIMEOUT) -> str:
    """`Client.ping` with the default client, for plain code."""
    return _default().ping(timeout)


def get_function_server(timeout: timedelta | float | None = PING_TIMEOUT) -> list[dict[str, Any]]:
    """`Client.get_function_server` with the default client, for plain code."""
    return _default().get_function_server(timeout)


def servers() -> Sequence[ServerRecord]:
    """`Client.servers` with the default client, for plain code."""
    return _default().servers()
