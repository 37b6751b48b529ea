"""What generated stubs are made of: a function's signature here, its body on a server."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from prpc.client.mapping import MAX_IN_FLIGHT, Mapped
from prpc.client.options import CallOptions, seconds_of
from prpc.client.task import AwaitableTask, HasChannel

__all__ = ["RemoteFunction", "remote_function"]

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function of a server. Calling it sends the call and returns the AwaitableTask; its signature is the server's."""

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], name: str, schema: str, idempotent: bool) -> None:
        functools.update_wrapper(self, function)
        self.__signature__ = inspect.signature(function)
        #: Registered name of the function.
        self.name = name
        #: Hash of the signature that this stub was generated from.
        self.schema = schema
        #: Whether running it twice is as good as once, as its server said.
        self.idempotent = idempotent
        self._options = CallOptions(idempotent=idempotent)
        self._client: HasChannel | None = None
        self._result = _ResultType(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AwaitableTask[R]:
        """Send the call. Only the arguments given here travel: for the others the server's own defaults apply."""
        return AwaitableTask(
            self.name, args, kwargs, options=self._options, client=self._client, schema=self.schema or None, convert=self._result
        )

    def options(
        self,
        *,
        timeout: timedelta | float | None = None,
        retries: int | None = None,
        attempt_timeout: timedelta | float | None = None,
        backoff: timedelta | float | None = None,
        headers: Mapping[str, str] | None = None,
        require_server: bool | None = None,
        client: HasChannel | None = None,
    ) -> RemoteFunction[P, R]:
        """The same function with options for its calls; what is not given stays as it was.

        `timeout`: seconds until the call's deadline, after which its outcome is ClientTimeOutError and a server does not
        start it any more. `headers`: texts that the function finds in `current_call().headers`. `require_server`: refuse
        with NoServerError where nobody serves the queue. `client`: where to send it.

        For idempotent functions: `retries` more attempts under the same message id, the next one when one had no answer for
        `attempt_timeout` seconds and after a pause: `backoff` seconds, doubled each time. ValueError for other functions.
        """
        if (retries or attempt_timeout is not None or backoff is not None) and not self.idempotent:
            raise ValueError(
                f"calls of {self.name}() are not repeated: the server did not register it with idempotent=True, "
                "so running it twice may do harm"
            )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        options = merge_options(self._options, timeout, headers, require_server)
        other._options = merge_repeats(options, self.idempotent, retries, attempt_timeout, backoff)
        if client is not None:
            other._client = client
        return other

    @overload
    def map(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        max_in_flight: int = MAX_IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: Literal[False] = False,
        timeout: timedelta | float | None = None,
        progress: bool = False,
    ) -> Mapped[R]: ...

    @overload
    def map(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        max_in_flight: int = MAX_IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: bool,
        timeout: timedelta | float | None = None,
        progress: bool = False,
    ) -> Mapped[R | BaseException]: ...

    def map(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        max_in_flight: int = MAX_IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: timedelta | float | None = None,
        progress: bool = False,
    ) -> Mapped[Any]:
        """One call for each item, like the built-in `map`; of iterables of any length, sent as they are read.

        Read it with `for` or `async for`, or all as a list with `.result()` or `await`. `max_in_flight`: calls that are sent
        and whose results were not handed out yet, at most. `ordered`: results in the order of the items, else as they come.
        The first failure is raised and ends it; with `return_exceptions` failures stand among the results. `timeout` in
        seconds bounds the whole reading (ClientTimeOutError). `progress` shows a bar.
        """
        return Mapped(
            self,
            iterables,
            name=self.name,
            max_in_flight=max_in_flight,
            ordered=ordered,
            return_exceptions=return_exceptions,
            timeout=timeout,
            progress=progress,
        )

    def __reduce__(self) -> str:
        # By its name in its module, as functions are pickled: a process pool's workers find it in server_func.
        return self.__name__

    def __repr__(self) -> str:
        return f"<RemoteFunction {self.name}{self.__signature__}>"


class _ResultType(Generic[R]):
    """The conversion of a result to the function's return annotation, looked up when the first result is there."""

    def __init__(self, function: Callable[..., R]) -> None:
        self._function = function
        self._converter: Callable[[Any], Any] | None = None
        self._known = False

    def __call__(self, value: Any) -> R:
        if not self._known:
            from prpc.conversion import converter_for, resolve_hints

            hints = resolve_hints(self._function)
            self._converter = converter_for(hints["return"]) if "return" in hints else None
            self._known = True
        result: R = value if self._converter is None else self._converter(value)
        return result


def merge_options(
    base: CallOptions, timeout: timedelta | float | None, headers: Mapping[str, str] | None, require_server: bool | None
) -> CallOptions:
    """`base` with what is given."""
    return replace(
        base,
        timeout=base.timeout if timeout is None else seconds_of(timeout),
        headers=base.headers if headers is None else dict(headers),
        require_server=base.require_server if require_server is None else require_server,
    )


def merge_repeats(
    base: CallOptions,
    idempotent: bool,
    retries: int | None,
    attempt_timeout: timedelta | float | None,
    backoff: timedelta | float | None,
) -> CallOptions:
    """`base` with what is given about repeats."""
    return replace(
        base,
        idempotent=idempotent,
        retries=base.retries if retries is None else retries,
        attempt_timeout=base.attempt_timeout if attempt_timeout is None else _finite(attempt_timeout),
        backoff=base.backoff if backoff is None else _finite(backoff),
    )


def _finite(time: timedelta | float) -> float:
    seconds = seconds_of(time)
    return math.inf if seconds is None else seconds  # which CallOptions refuses


def remote_function(name: str, *, schema: str = "", idempotent: bool = False) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
    """Decorator of generated stubs: calls of the decorated function go to the server's function `name`.

    `schema` is the hash of the signature that the stub was generated from, `idempotent` what the server said of it.
    """

    def decorate(function: Callable[P, R]) -> RemoteFunction[P, R]:
        return RemoteFunction(function, name, schema, idempotent)

    return decorate
