"""Stream: the items of a streaming function, for plain code and for coroutines alike."""

from __future__ import annotations

import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from prpc.client.channel import default_channel
from prpc.client.options import CallOptions, seconds_of
from prpc.client.readings import StreamCall
from prpc.client.task import HasChannel
from prpc.exceptions import CallError, ClientTimeOutError, DecodeError, WorkerLostError
from prpc.prpcmessage import PRPCMessage

__all__ = ["Stream"]

T_co = TypeVar("T_co", covariant=True)

_NO_OPTIONS = CallOptions()
_NOTHING: Any = object()
#: Seconds that the next one of the last items may take after the call has ended: they were sent before its outcome.
_LAST_ITEMS = 10.0


class Stream(Generic[T_co]):
    """The items that a streaming function yields: `for item in stream`, or `async for item in stream`.

    The call is sent when the object is made; items come ahead of the reading, as many as the window allows
    (PRPC_STREAM_WINDOW), and then the function waits. Leaving a `with` block (or an `async with` block), `close()` or `cancel()`
    ends the function, and so does dropping the last reference. After the last item the loop ends, or the function's own exception
    is raised. A stream is read by one reader at a time and once.
    """

    def __init__(
        self,
        func_name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        options: CallOptions | None = None,
        client: HasChannel | None = None,
        schema: str | None = None,
        convert: Callable[[Any], T_co] | None = None,
    ) -> None:
        """Call the streaming function `func_name`. Parameters as for AwaitableTask; `convert` turns each plain item into T.

        Raises EncodeError where an argument cannot be written. Whatever happens later is raised to the reader.
        """
        channel = default_channel() if client is None else client.channel
        self._options = options or _NO_OPTIONS
        #: For PRPC's own use.
        self.call: StreamCall = channel.submit_stream(func_name, args, {} if kwargs is None else kwargs, self._options, schema)
        self._reading = self.call.reading
        self._convert = convert
        self._closed = False
        #: Until when (monotonic seconds) the next of the items is waited for that were sent before the call ended, and how many
        #: had come then.
        self._late: tuple[float, int] | None = None
        self._over = weakref.finalize(self, _abandon, self.call)
        self._over.atexit = False

    # -- reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        return self._sync_next(self._options.item_timeout, StopIteration)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        return await self._async_next(self._options.item_timeout, StopAsyncIteration)

    def next(self, timeout: timedelta | float | None = None) -> T_co:
        """The next item. Raises StopIteration at the end, ClientTimeOutError after `timeout` seconds, after which one may ask
        again, and whatever ended the stream before its end."""
        return self._sync_next(seconds_of(timeout), StopIteration)

    async def async_next(self, timeout: timedelta | float | None = None) -> T_co:  # noqa: ASYNC109 - the public face
        """The same for coroutines; raises StopAsyncIteration at the end."""
        return await self._async_next(seconds_of(timeout), StopAsyncIteration)

    def _sync_next(self, seconds: float | None, end: type[Exception]) -> T_co:
        began = None
        while not (self._closed or self.call.ready()):
            began = began or time.monotonic()
            self.call.wait(self._patience(began, seconds))
        return self._take(end)

    async def _async_next(self, seconds: float | None, end: type[Exception]) -> T_co:
        began = None
        while not (self._closed or self.call.ready()):
            began = began or time.monotonic()
            await self.call.wait_async(self._patience(began, seconds))
        return self._take(end)

    def _patience(self, began: float, seconds: float | None) -> float | None:
        """Seconds to wait for news of the next item, for which its reader has waited since `began`."""
        call, now = self.call, time.monotonic()
        until = None if seconds is None else began + seconds
        if until is not None and now >= until:
            text = f"no item of {call.message.func_name}() within {seconds:g} s; it may still come, and asking again works"
            raise ClientTimeOutError(text, message_id=str(call.message_id), timeout=seconds)
        if call.done:
            if self._late is None:
                self._reading.again = True
                call.home.streams.speak(call.message_id)
            if self._late is None or self._late[1] != self.received:
                self._late = self._until_lost(now, began), self.received
            elif now >= self._late[0]:
                raise self._lost()
            until = self._late[0] if until is None else min(until, self._late[0])
        return None if until is None else until - now

    def _until_lost(self, now: float, began: float) -> float:
        """Moment up to which the next of the last items may come: the call's deadline, but for who reads slowly, after it."""
        expires = self.call.expires
        late = now + _LAST_ITEMS
        return late if expires is None or expires <= began else min(late, expires)

    def _lost(self) -> CallError:
        """End the stream: the last items do not come."""
        call, name, missing = self.call, self.call.message.func_name, self.call.missing
        self._end()
        if call.expires is not None and self._late is not None and self._late[0] == call.expires:
            text = f"the last {missing} items of {name}() did not come within its timeout of {call.timeout or 0.0:g} s"
            return ClientTimeOutError(text, message_id=str(call.message_id), timeout=call.timeout)
        return WorkerLostError(f"the server of {name}() was lost with the last {missing} items of the stream", function=name)

    def _take(self, end: type[Exception]) -> T_co:
        call, inbox = self.call, self._reading.inbox
        if self._closed:
            raise end
        try:
            item = inbox.take()
        except IndexError:  # also where another thread has just ended it
            item = _NOTHING
        if item is _NOTHING:
            if not self._closed:
                self._end()
                call.value()
            raise end
        if inbox.wants_more and not call.done:
            call.home.streams.speak(call.message_id)
        if self._convert is None:
            return cast("T_co", item)
        try:
            return self._convert(item)
        except ValueError as exc:
            raise DecodeError(
                f"an item of {call.message.func_name}() does not fit the type that its stub promises: {exc}. "
                "server_func.py may be older than the server: generate it again (python -m prpc.create_server_func)",
                reason="form",
                message_id=str(call.message_id),
            ) from exc

    # -- ending --------------------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """End the stream; its reader gets CallCancelledError. False where its end was there already."""
        cancelled = not self.call.done and self.call.home.cancel(self.call)
        if cancelled:
            self._drop()
        return cancelled

    def close(self) -> None:
        """End the stream, and read no more of it: a loop over it ends quietly. Idempotent, and does not wait."""
        if not self._closed:
            self._closed = True  # before anybody who reads wakes up
            self.cancel()
            self.call.told = True
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _end(self) -> None:
        self._closed = True
        self._over.detach()
        self._drop()

    def _drop(self) -> None:
        """Nothing that is here or still comes is read."""
        self._reading.left = True  # first, so that no word counts what is dropped as read and makes room for more
        self._reading.inbox.clear()
        self._reading.total = None
        self.call.home.streams.let_go(self.call.message_id)

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def message(self) -> PRPCMessage:
        """The call as it was sent."""
        return self.call.message

    @property
    def received(self) -> int:
        """Items that have come so far, read or not."""
        return self._reading.inbox.have

    def __repr__(self) -> str:
        call = self.call
        state = "closed" if self._closed else "ended" if call.done else "open"
        return f"<Stream {call.message.func_name} {call.message_id} {state}, {self.received} items>"


def _abandon(call: StreamCall) -> None:
    """Nobody reads any more. May run in the garbage collector, so that nothing is done here and now."""
    call.home.streams.abandon(call)
