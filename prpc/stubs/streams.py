"""What a function's code and annotations say of streams: its own items, and those that it is sent."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any

__all__ = ["StreamHint", "is_generator", "item_of", "sent_as", "stream_hint"]

#: What a generator function is annotated to return.
_ITERATED = frozenset(
    {
        *(collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator),
        *(collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator),
    }
)
_UNIONS = (typing.Union, types.UnionType)


@dataclass(frozen=True, slots=True)
class StreamHint:
    """The annotation of a parameter that is fed from a stream."""

    #: Whether it is AsyncIterator, for coroutine functions.
    is_async: bool
    #: Annotation of an item; Any where there is none.
    item: Any
    #: Whether it may be None instead.
    optional: bool


def stream_hint(hint: object) -> StreamHint | None:
    """What an annotation says of a stream: Iterator, AsyncIterator, with or without an item's type, or one of them or None."""
    optional = False
    if typing.get_origin(hint) in _UNIONS:
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        optional, hint = len(parts) < len(typing.get_args(hint)), parts[0] if len(parts) == 1 else None
    kind = typing.get_origin(hint) or hint
    if kind is not collections.abc.Iterator and kind is not collections.abc.AsyncIterator:
        return None
    return StreamHint(kind is collections.abc.AsyncIterator, (*typing.get_args(hint), Any)[0], optional)


def sent_as(hint: Any) -> Any:
    """What a caller may send for a parameter: any iterable where the function reads a stream."""
    found = stream_hint(hint)
    if found is None:
        return hint
    kinds = (collections.abc.Iterable, collections.abc.AsyncIterable)
    plain, asynchronous = (types.GenericAlias(kind, (found.item,)) for kind in kinds)
    return plain | asynchronous | None if found.optional else plain | asynchronous


def item_of(hint: object) -> object:
    """What a generator's return annotation says of its items; `inspect.Signature.empty` where it says nothing."""
    parts = typing.get_args(hint)
    return parts[0] if parts and typing.get_origin(hint) in _ITERATED else inspect.Signature.empty


def is_generator(function: Any) -> bool:
    """Whether its items stream: a generator function, plain or async, or what wraps one."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = inspect.getattr_static(type(function), "__call__", None)
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
