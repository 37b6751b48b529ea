"""Any value to a tree of JSON values: what the dialect and plain JSON have in common.

A walk keeps the limits, finds cycles and names the place of what cannot be written. Enum members, dataclasses,
models and subclasses of built-in types are taken apart here; what a tuple or a date looks like is said by the subclass.
"""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import isfinite
from pathlib import PurePath
from typing import Any, ClassVar, cast
from uuid import UUID

from prpc.codec.limits import MAX_DIGITS, Limits
from prpc.exceptions import EncodeError

__all__ = ["Refusal", "Walk", "as_datetime"]

_TOO_LONG = 10**MAX_DIGITS

#: Built-in types whose subclasses are written as the base; the nearest comes first.
_BASES: tuple[type, ...] = (
    str, int, float, complex, bytes, bytearray, dict, list, tuple, set, frozenset, deque,
    datetime, date, time, timedelta, timezone, UUID, Decimal, PurePath,
)  # fmt: skip


class Refusal(Exception):
    """A value that cannot be written; the containers on the way out add the path."""

    def __init__(self, reason: str, value: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.type_name = _type_name(type(value))
        self.steps: list[str] = []

    def as_error(self, root: str) -> EncodeError:
        """The error for the caller; `root` names what was written."""
        path = root + "".join(reversed(self.steps))
        return EncodeError(f"{path} cannot be sent: {self.reason}", path=path, type_name=self.type_name)


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=1024)
def _nearest(kind: type) -> type | None:
    """The entry of the table that a class belongs to; None where there is none."""
    if issubclass(kind, Enum):
        return Enum
    if dataclasses.is_dataclass(kind):
        return _Dataclass
    for base in _BASES:
        if issubclass(kind, base):
            return base
    return None


def _is_model(kind: type) -> bool:
    # Whoever has a model has imported pydantic, so that nobody else pays for it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _is_zone(kind: type) -> bool:
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and issubclass(kind, zoneinfo.ZoneInfo)


class _Dataclass:
    """Stands for every dataclass in the table."""


class _Model:
    """Stands for every pydantic model in the table."""


class _Zone:
    """Stands for zoneinfo.ZoneInfo in the table."""


@lru_cache(maxsize=1024)
def _field_names(kind: Hashable) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cast("Any", kind)))


def as_datetime(value: datetime) -> datetime:
    """A datetime of the standard class whose zone, if it is some library's own, became its fixed offset."""
    zone = value.tzinfo
    if zone is not None and not isinstance(zone, timezone) and not _is_zone(type(zone)):
        offset = value.utcoffset()
        if offset is None:
            raise Refusal("its time zone has no offset", value)
        zone = timezone(offset)
    elif type(value) is datetime:
        return value
    return datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, zone, fold=value.fold
    )


class Walk(ABC):
    """One value on its way to JSON. Use one object for one text: it counts the items of all values that it is given."""

    #: Type (or stand-in) -> name of the method that writes it.
    table: ClassVar[dict[type, str]] = {
        str: "write_str", int: "write_int", float: "write_float", complex: "write_complex",
        bytes: "write_bytes", bytearray: "write_bytearray", dict: "write_dict", list: "write_list", tuple: "write_tuple",
        set: "write_set", frozenset: "write_frozenset", deque: "write_list",
        datetime: "write_datetime", date: "write_date", time: "write_time", timedelta: "write_timedelta",
        timezone: "write_zone", _Zone: "write_zone", UUID: "write_uuid", Decimal: "write_decimal", PurePath: "write_path",
        Enum: "write_enum", _Dataclass: "write_dataclass", _Model: "write_model",
    }  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._items = 0
        self._open: set[int] = set()
        #: Inside a set or a key, where the reader needs something hashable.
        self._hashable = 0
        #: Whether a float has been met that only Python's own JSON can write.
        self.has_nonfinite = False
        self._methods: dict[type, Callable[[Any], Any]] = {}

    def write(self, value: Any, root: str) -> Any:
        """The tree of one value; `root` names it in errors. Raises EncodeError."""
        try:
            return self.lower(value)
        except Refusal as refusal:
            raise refusal.as_error(root) from None
        except RecursionError:
            raise EncodeError(f"{root} cannot be sent: it is nested too deep", path=root, type_name=None) from None
        except Exception as exc:  # a property, an iterator or a serializer of the value's own class failed
            reason = f"reading it raised {type(exc).__name__}"
            raise EncodeError(f"{root} cannot be sent: {reason}", path=root, type_name=_type_name(type(value))) from exc

    def lower(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        method = self._methods.get(kind)
        if method is None:
            method = self._methods[kind] = self._find(kind, value)
        return method(value)

    def _find(self, kind: type, value: Any) -> Callable[[Any], Any]:
        entry = _nearest(kind)
        if _is_model(kind):
            entry = _Model
        elif entry is None and _is_zone(kind):
            entry = _Zone
        if entry is None:
            raise Refusal(f"no form is known for {_described(value)}", value)
        method: Callable[[Any], Any] = getattr(self, self.table[entry])
        return method

    # Containers

    def enter(self, value: Any, size: int) -> None:
        """Begin a container of so many items."""
        if id(value) in self._open:
            raise Refusal("it contains itself", value)
        if len(self._open) >= self.limits.max_depth:
            raise Refusal(f"it is nested deeper than {self.limits.max_depth} levels", value)
        self._items += size + 1
        if self._items > self.limits.max_items:
            raise Refusal(f"it has more than {self.limits.max_items} items", value)
        self._open.add(id(value))

    def leave(self, value: Any) -> None:
        """End it."""
        self._open.discard(id(value))

    def items(self, value: Any, members: Iterable[Any]) -> list[Any]:
        """The trees of a container's members."""
        result: list[Any] = []
        self.enter(value, len(value))
        try:
            for member in members:
                result.append(self.lower(member))  # noqa: PERF401  its length names the place of a refusal
        except Refusal as refusal:
            refusal.steps.append(f"[{len(result)}]")
            raise
        self.leave(value)
        return result

    def hashable_items(self, value: Any) -> list[Any]:
        """The same for a set, whose reader needs hashable members."""
        self._hashable += 1
        result = self.items(value, value)
        self._hashable -= 1
        return result

    def need_no_hash(self, value: Any) -> None:
        """Refuse, inside a set or a key, what its reader cannot hash."""
        if self._hashable:
            raise Refusal(f"{_described(value)} cannot stand in a set or be a key: it is read as an unhashable value", value)

    def write_dict(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        self.need_no_hash(value)
        result: dict[str, Any] = {}
        self.enter(value, len(value))
        for key, member in value.items():
            try:
                name = key if type(key) is str and key[:1] not in ("p", "j") else self.write_key(key)
                if name in result:
                    raise Refusal(f"two of its keys are written alike, as {name[:80]!r}", value)
                result[name] = self.lower(member)
            except Refusal as refusal:
                refusal.steps.append(f"[{_short(key)}]")
                raise
        self.leave(value)
        return result

    def fields(self, value: Any, result: dict[str, Any]) -> dict[str, Any]:
        """The fields of a dataclass, into `result`."""
        self.need_no_hash(value)
        kind: Any = type(value)
        names = _field_names(kind)
        self.enter(value, len(names))
        for name in names:
            try:
                result[name] = self.lower(getattr(value, name))
            except Refusal as refusal:
                refusal.steps.append(f".{name}")
                raise
            except AttributeError:
                raise Refusal(f"its field {name!r} has no value", value) from None
        self.leave(value)
        return result

    def write_list(self, value: Any) -> Any:
        self.need_no_hash(value)
        return self.items(value, value)

    def write_model(self, value: Any) -> Any:
        self.need_no_hash(value)
        # round_trip leaves out what only a reader of documentation wants: computed fields.
        return self.lower(value.model_dump(mode="python", round_trip=True, warnings=False))

    # One by one

    def write_str(self, value: str) -> Any:
        return str.__str__(value)

    def write_int(self, value: int) -> Any:
        number = int.__int__(value)
        if not -_TOO_LONG < number < _TOO_LONG:
            raise Refusal(f"a number of more than {MAX_DIGITS} digits", value)
        return number

    def write_float(self, value: float) -> Any:
        number = float.__float__(value)
        if not isfinite(number):
            self.has_nonfinite = True
        return number

    def write_enum(self, value: Enum) -> Any:
        return self.lower(value.value)

    @abstractmethod
    def write_key(self, key: Any) -> str:
        """A dict's key as a string."""


def _short(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        text = _type_name(type(key))
    return text if len(text) <= 80 else text[:77] + "..."


def _described(value: Any) -> str:
    """What a value is, in a beginner's words."""
    kind = type(value)
    if isinstance(value, type):
        return f"the class {_type_name(value)}"
    name = getattr(value, "__qualname__", None) if callable(value) else None
    if isinstance(name, str):
        return f"the {kind.__name__} {name}"
    return f"an object of type {_type_name(kind)}"
