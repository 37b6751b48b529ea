"""What generated stubs of streaming functions are made of: a signature here, a generator on a server."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, get_args

from prpc.client.options import CallOptions, seconds_of
from prpc.client.remote import merge_options
from prpc.client.stream import Stream
from prpc.client.task import HasChannel

__all__ = ["RemoteStream", "remote_stream"]

P = ParamSpec("P")
T = TypeVar("T")


class RemoteStream(Generic[P, T]):
    """A streaming function of a server. Calling it sends the call and returns the Stream; its signature is the server's."""

    __name__: str
    __wrapped__: Callable[P, Iterator[T]]

    def __init__(self, function: Callable[P, Iterator[T]], name: str, schema: str, idempotent: bool) -> None:
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
        self._item = _ItemType(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """Send the call. Only the arguments given here travel: for the others the server's own defaults apply."""
        return Stream(
            self.name, args, kwargs, options=self._options, client=self._client, schema=self.schema or None, convert=self._item
        )

    def options(
        self,
        *,
        timeout: timedelta | float | None = None,
        item_timeout: timedelta | float | None = None,
        headers: Mapping[str, str] | None = None,
        require_server: bool | None = None,
        client: HasChannel | None = None,
    ) -> RemoteStream[P, T]:
        """The same function with options for its calls; what is not given stays as it was.

        `timeout`: seconds until the whole stream's deadline, after which its reader gets ClientTimeOutError and the server ends
        it. `item_timeout`: seconds that the reader waits for one item; after its ClientTimeOutError one may read on. The others
        as for RemoteFunction.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = merge_stream_options(self._options, timeout, item_timeout, headers, require_server)
        if client is not None:
            other._client = client
        return other

    def __reduce__(self) -> str:
        # By its name in its module, as functions are pickled.
        return self.__name__

    def __repr__(self) -> str:
        return f"<RemoteStream {self.name}{self.__signature__}>"


def merge_stream_options(
    base: CallOptions,
    timeout: timedelta | float | None,
    item_timeout: timedelta | float | None,
    headers: Mapping[str, str] | None,
    require_server: bool | None,
) -> CallOptions:
    """`base` with what is given."""
    merged = merge_options(base, timeout, headers, require_server)
    return merged if item_timeout is None else replace(merged, item_timeout=seconds_of(item_timeout))


class _ItemType(Generic[T]):
    """The conversion of an item to what the return annotation, `Iterator[T]`, says; looked up when the first item is there."""

    def __init__(self, function: Callable[..., Iterator[T]]) -> None:
        self._function = function
        self._converter: Callable[[Any], Any] | None = None
        self._known = False

    def __call__(self, value: Any) -> T:
        if not self._known:
            from prpc.conversion import converter_for, resolve_hints

            parts = get_args(resolve_hints(self._function).get("return"))
            self._converter = converter_for(parts[0]) if parts else None
            self._known = True
        item: T = value if self._converter is None else self._converter(value)
        return item


def remote_stream(
    name: str, *, schema: str = "", idempotent: bool = False
) -> Callable[[Callable[P, Iterator[T]]], RemoteStream[P, T]]:
    """Decorator of generated stubs: calls of the decorated function go to the server's streaming function `name`.

    Its return annotation, `Iterator[T]`, says what the items are. `schema` and `idempotent` as for `remote_function`.
    """

    def decorate(function: Callable[P, Iterator[T]]) -> RemoteStream[P, T]:
        return RemoteStream(function, name, schema, idempotent)

    return decorate
