"""AwaitableTask: a call that was sent, for plain code and for coroutines alike."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, cast

from prpc.client.call import Call
from prpc.client.channel import Channel, default_channel
from prpc.client.options import CallOptions, seconds_of
from prpc.exceptions import ClientTimeOutError, DecodeError
from prpc.progress import Progress
from prpc.prpcmessage import PRPCMessage

__all__ = ["AwaitableTask", "HasChannel"]

R_co = TypeVar("R_co", covariant=True)

_NO_OPTIONS = CallOptions()


class HasChannel(Protocol):
    """A client: `Client` or `AsyncClient`."""

    @property
    def channel(self) -> Channel: ...


class AwaitableTask(Generic[R_co]):
    """One call. It is sent when the object is made, and needs not be waited for.

    Made in a coroutine it belongs to the running loop, made in plain code to PRPC's background loop; either way its result
    may be waited for in any thread and in any loop, several times and by several waiters. `str` of the exceptions that the
    waiting methods raise is the remote text; each waiter gets an exception object of its own.

    Raises EncodeError where an argument cannot be written. Whatever happens later is the call's outcome.
    """

    __slots__ = ("__weakref__", "_convert", "_converted", "_value", "call")

    def __init__(
        self,
        func_name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        options: CallOptions | None = None,
        client: HasChannel | None = None,
        schema: str | None = None,
        convert: Callable[[Any], R_co] | None = None,
    ) -> None:
        """Send the call of `func_name`.

        `options`: deadline, headers and the like. `client`: where to send it (default: as the environment says).
        `schema`: hash of the signature that the caller was made from. `convert`: turns the plain result into the caller's
        type, in the thread that asks for the result; raises ValueError where it does not fit.
        """
        channel = default_channel() if client is None else client.channel
        #: For PRPC's own use.
        self.call: Call = channel.submit(func_name, args, {} if kwargs is None else kwargs, options or _NO_OPTIONS, schema)
        self._convert = convert
        self._converted = convert is None
        self._value: R_co | None = None

    # -- waiting -------------------------------------------------------------------------------------------------------

    def sync_wait_result_task(self, timeout: timedelta | float | None = None) -> R_co:
        """Block until the outcome is there: return the result or raise the call's failure. For plain code.

        `timeout` in seconds bounds this waiting, not the call: after the ClientTimeOutError one may wait again.
        Raises RuntimeError inside the loop that receives the result, where it would never end.
        """
        call = self.call
        if not call.done:
            seconds = seconds_of(timeout)
            if not call.wait(seconds):
                raise self._not_yet(seconds)
        return self._result()

    async def async_wait_result_task(self, timeout: timedelta | float | None = None) -> R_co:  # noqa: ASYNC109 - the public face
        """The same for coroutines. Cancelling it cancels the call, unless others wait for it too; its timeout does not."""
        call = self.call
        if not call.done:
            seconds = seconds_of(timeout)
            if not await call.wait_async(seconds):
                raise self._not_yet(seconds)
        return self._result()

    def __await__(self) -> Generator[Any, None, R_co]:
        """`await task` is `await task.async_wait_result_task()`."""
        if not self.call.done:
            yield from self.call.waiting(None)
        return self._result()

    def result(self, timeout: timedelta | float | None = None) -> R_co:
        """Short for `sync_wait_result_task`."""
        return self.sync_wait_result_task(timeout)

    def get_result(self) -> R_co:
        """The outcome that is there, without waiting. Raises ClientTimeOutError where there is none yet."""
        if not self.call.done:
            raise self._not_yet(0.0)
        return self._result()

    def is_done_task(self, update_status: bool = False) -> bool:
        """Whether the outcome is there, whichever it is.

        Outcomes are told to us as they come. With `update_status` the broker is asked all the same: plain code waits for
        its answer (one round trip); inside a running loop the question is sent and its answer seen later.
        """
        if update_status and not self.call.done:
            self.call.home.refresh(self.call)
        return self.call.done

    def cancel(self) -> bool:
        """Cancel the call; False where its outcome was there already.

        Every waiter gets CallCancelledError at once. The servers are told: a call that has not started is dropped, one that
        runs is stopped as its kind of worker allows.
        """
        return not self.call.done and self.call.home.cancel(self.call)

    # -- progress ------------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """How far the function said last that it is (`current_call().progress`); None where it said nothing yet."""
        track = self.call.track
        return None if track is None else track.last

    def on_progress(self, callback: Callable[[Progress], object]) -> Callable[[], None]:
        """Call `callback(progress)` with what the function says of its progress, in the order in which it comes.

        It begins with the last one, where there is one, and ends before the outcome. The callback runs in the thread of the
        loop that receives the result, for plain code in PRPC's background thread: it must not block. What it raises is
        logged. Returns a function that ends it.
        """
        return self.call.on_progress(callback)

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def message(self) -> PRPCMessage:
        """The call as it was sent, and its outcome once that is there (the result as it came, before any conversion)."""
        call = self.call
        if not call.done:
            return call.message
        reply = call.reply
        if reply is None:
            return call.message.done(call.ended, exception_info=str(call.error))
        info = None if reply.failure is None else reply.failure.message
        return call.message.done(reply.date_done_message, None if reply.failure else reply.result, info)

    @property
    def time_execution(self) -> timedelta | None:
        """Time from the making of the call to its outcome, queueing included; None while there is no outcome.

        The end is the server's clock where a server answered; never below zero.
        """
        message = self.message
        end = message.date_done_message
        return None if end is None else max(end - message.date_create_message, timedelta())

    def __repr__(self) -> str:
        call = self.call
        state = "pending" if not call.done else "failed" if self.failed else "done"
        return f"<AwaitableTask {call.message.func_name} {call.message_id} {state}>"

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether the call ended without its result; False also while it is open."""
        if not self.call.done:
            return False
        reply = self.call.reply
        return reply is None or reply.failure is not None

    def _result(self) -> R_co:
        if self._converted:
            return cast("R_co", self.call.value() if self._convert is None else self._value)
        plain = self.call.value()
        assert self._convert is not None
        name = self.call.message.func_name
        try:
            self._value = self._convert(plain)
        except ValueError as exc:
            raise DecodeError(
                f"the result of {name}() does not fit the type that its stub promises: {exc}. "
                "server_func.py may be older than the server: generate it again (python -m prpc.create_server_func)",
                reason="form",
                message_id=str(self.call.message_id),
            ) from exc
        self._converted = True
        return self._value

    def _not_yet(self, seconds: float | None) -> ClientTimeOutError:
        waited = 0.0 if seconds is None else max(seconds, 0.0)
        name = self.call.message.func_name
        return ClientTimeOutError(
            f"no outcome of {name}() within {waited:g} s; it may still come, and waiting again works",
            message_id=str(self.call.message_id),
            timeout=waited,
        )
