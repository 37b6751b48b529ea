"""A default's value -> source text that builds an equal one, or None where that cannot be said."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from prpc.stubs.tree import string

__all__ = ["Classes", "source_of"]

#: Longest text of one value, in characters: a longer one says nothing to a reader.
MAX_TEXT = 2_000
MAX_DEPTH = 8


class Classes(Protocol):
    """Who knows the names of the described classes."""

    def reference(self, cls: type) -> str | None:
        """Full name of a class that comes along; None where it cannot."""
        ...


def source_of(value: object, classes: Classes) -> str | None:
    """Source text of a value; None where there is none. Runs no code of the value's own class."""
    try:
        text = _source(value, classes, 0)
    except (_NotShownError, ArithmeticError, ValueError):
        return None
    return text if len(text) <= MAX_TEXT else None


class _NotShownError(Exception):
    """A value has no source text."""


def _source(value: Any, classes: Classes, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise _NotShownError
    write = _EXACT.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, enum.Enum):
        return _member(value, classes)
    if type(value) in (list, tuple, set, frozenset, dict):
        return _container(value, classes, depth + 1)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return _instance(value, fields, classes, depth + 1)
    names = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and isinstance(names, tuple):
        return _instance(value, names, classes, depth + 1)
    raise _NotShownError


def _member(value: enum.Enum, classes: Classes) -> str:
    name = classes.reference(type(value))
    if name is None:
        raise _NotShownError
    if type(value).__members__.get(str(value.name)) is value:
        return f"{name}.{value.name}"
    return f"{name}({value.value!r})"


def _container(value: Any, classes: Classes, depth: int) -> str:
    if isinstance(value, dict):
        pairs = (f"{_source(key, classes, depth)}: {_source(item, classes, depth)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    texts = [_source(item, classes, depth) for item in value]
    if isinstance(value, list):
        return f"[{', '.join(texts)}]"
    if isinstance(value, tuple):
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    inside = ", ".join(sorted(texts))
    if isinstance(value, frozenset):
        return f"frozenset({{{inside}}})" if inside else "frozenset()"
    return f"{{{inside}}}" if inside else "set()"


def _instance(value: object, fields: Iterable[str], classes: Classes, depth: int) -> str:
    name = classes.reference(type(value))
    if name is None:
        raise _NotShownError
    words = [f"{field}={_source(_attribute(value, field), classes, depth)}" for field in fields]
    return f"{name}({', '.join(words)})"


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name)
    except Exception as exc:
        raise _NotShownError from exc


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value!r}")'


def _complex(value: complex) -> str:
    return f"complex({_float(value.real)}, {_float(value.imag)})"


def _text(value: str | bytes) -> str:
    return string(value).text


def _zoned(value: Any) -> str:
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        raise _NotShownError
    return repr(value)


def _timedelta(value: datetime.timedelta) -> str:
    return repr(value) if value else "datetime.timedelta(seconds=0)"


def _path(value: pathlib.PurePath) -> str:
    name = "Path" if isinstance(value, pathlib.Path) else type(value).__name__
    return f"pathlib.{name}({_text(str(value))})"


_EXACT: Mapping[type, Callable[[Any], str]] = MappingProxyType(
    {
        type(None): repr,
        bool: repr,
        int: repr,
        float: _float,
        complex: _complex,
        str: _text,
        bytes: _text,
        bytearray: lambda value: f"bytearray({_text(bytes(value))})",
        datetime.datetime: _zoned,
        datetime.date: repr,
        datetime.time: _zoned,
        datetime.timedelta: _timedelta,
        datetime.timezone: repr,
        decimal.Decimal: lambda value: f'decimal.Decimal("{value}")',
        fractions.Fraction: lambda value: f"fractions.Fraction({value.numerator}, {value.denominator})",
        uuid.UUID: lambda value: f'uuid.UUID("{value}")',
        pathlib.PurePosixPath: _path,
        pathlib.PureWindowsPath: _path,
        pathlib.PosixPath: _path,
        pathlib.WindowsPath: _path,
    }
)
