"""The closed table: every class that a text may name, each with the check of what it is given."""

from __future__ import annotations

import os
import re
from binascii import a2b_base64
from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Protocol
from uuid import UUID

from prpc.codec.limits import MAX_DIGITS
from prpc.codec.stamps import read_date, read_datetime, read_time
from prpc.exceptions import DecodeError

__all__ = ["CALLABLES", "OBJECTS", "b64", "check_hashes"]

_HEX = re.compile(r"[0-9a-fA-F]{32}")


def _form(what: str) -> DecodeError:
    return DecodeError(f"{what} has a form that is not accepted", reason="form")


def b64(text: Any) -> bytes:
    """The bytes of a base64 text. Raises DecodeError."""
    if type(text) is not str:
        raise _form("py/b64")
    try:
        return a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        raise _form("py/b64") from None


#: Members of a set or keys of a dict from which on their hashes are looked at.
_MANY = 1000


def check_hashes(members: Collection[Any]) -> None:
    """Refuse members that were made to fall on one hash: a set of them takes hours. Raises DecodeError, or TypeError."""
    if len(members) > _MANY and 2 * len(set(map(hash, members))) < len(members):
        raise _form("a set or a dict")


# By call: {"py/reduce": [{"py/type": name}, {"py/tuple": [arguments]}, ...]}


def _checked(what: str, arguments: list[Any], rest: list[Any], *kinds: type | tuple[type, ...], least: int | None = None) -> None:
    enough = len(kinds) if least is None else least
    if not enough <= len(arguments) <= len(kinds) or any(part is not None for part in rest):
        raise _form(what)
    for argument, kind in zip(arguments, kinds, strict=False):
        if not isinstance(argument, kind) or isinstance(argument, bool):
            raise _form(what)


def _frozenset(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("frozenset", arguments, rest, list, least=0)
    try:
        check_hashes(arguments[0] if arguments else ())
        return frozenset(*arguments)
    except TypeError:
        raise _form("frozenset") from None


def _bytearray(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("bytearray", arguments, rest, bytes)
    return bytearray(arguments[0])


def _timedelta(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("timedelta", arguments, rest, int, int, int)
    try:
        return timedelta(*arguments)
    except OverflowError:
        raise _form("timedelta") from None


def _timezone(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("timezone", arguments, rest, timedelta, str, least=1)
    # The one object of UTC, not an equal one: whoever asks `is UTC` gets the answer that he expects.
    if arguments == [timedelta(0)]:
        return UTC
    try:
        return timezone(*arguments)
    except ValueError:
        raise _form("timezone") from None


def _decimal(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("Decimal", arguments, rest, str)
    if len(arguments[0]) > MAX_DIGITS + 32:
        raise _form("Decimal")
    try:
        return Decimal(arguments[0])
    except ArithmeticError:
        raise _form("Decimal") from None


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    import zoneinfo

    return frozenset(zoneinfo.available_timezones())


def _zone(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("ZoneInfo", arguments, rest, str, int)
    # A closed table too: a name from the text reaches no path and no import before it was found in it.
    if arguments[0] not in _zones():
        raise _form("ZoneInfo")
    import zoneinfo

    return zoneinfo.ZoneInfo(arguments[0])


def _path(kind: Callable[..., PurePath]) -> Callable[[list[Any], list[Any]], Any]:
    def build(arguments: list[Any], rest: list[Any]) -> PurePath:
        _checked("Path", arguments, rest, *[str] * len(arguments))
        return kind(*arguments)

    return build


def _ordered(arguments: list[Any], rest: list[Any]) -> Any:
    if arguments not in ([], [{}]) or any(part is not None for part in rest[:2]) or len(rest) > 3:
        raise _form("OrderedDict")
    pairs = rest[2] if len(rest) == 3 and rest[2] else ()
    try:
        check_hashes([key for key, _ in pairs])
        return dict(pairs)
    except (TypeError, ValueError):
        raise _form("OrderedDict") from None


def _counter(arguments: list[Any], rest: list[Any]) -> Any:
    _checked("Counter", arguments, rest, dict)
    return dict(Counter(arguments[0])) if all(type(n) is int for n in arguments[0].values()) else arguments[0]


def _deque(arguments: list[Any], rest: list[Any]) -> Any:
    if len(arguments) > 2 or (arguments and arguments[0] != ()) or any(part is not None for part in rest[:1]) or len(rest) > 2:
        raise _form("deque")
    members = rest[1] if len(rest) == 2 and rest[1] is not None else ()
    if type(members) is not tuple:
        raise _form("deque")
    return list(members)


_posix: Callable[..., PurePath] = PurePosixPath if os.name == "nt" else Path
_windows: Callable[..., PurePath] = Path if os.name == "nt" else PureWindowsPath

#: Tag and name -> builder from arguments and the rest of a __reduce__.
CALLABLES: dict[str, Callable[[list[Any], list[Any]], Any]] = {
    "py/type builtins.frozenset": _frozenset,
    "py/type builtins.bytearray": _bytearray,
    "py/type datetime.timedelta": _timedelta,
    "py/type datetime.timezone": _timezone,
    "py/type decimal.Decimal": _decimal,
    "py/function zoneinfo.ZoneInfo._unpickle": _zone,
    "py/type collections.OrderedDict": _ordered,
    "py/type collections.Counter": _counter,
    "py/type collections.deque": _deque,
}
for _module in ("pathlib", "pathlib._local"):
    CALLABLES[f"py/type {_module}.PosixPath"] = _path(_posix)
    CALLABLES[f"py/type {_module}.WindowsPath"] = _path(_windows)
    CALLABLES[f"py/type {_module}.PurePosixPath"] = _path(PurePosixPath)
    CALLABLES[f"py/type {_module}.PureWindowsPath"] = _path(PureWindowsPath)


# By name: {"py/object": name, ...}


class MemberReader(Protocol):
    """What a builder needs of the reader: the values of its node's own members."""

    def object_argument(self, node: Any, depth: int) -> Any: ...

    def object_arguments(self, node: Any, depth: int) -> list[Any]: ...

    def object_fields(self, node: dict[str, Any], depth: int) -> dict[Any, Any]: ...


def _uuid(restorer: MemberReader, node: dict[str, Any], depth: int) -> Any:
    text = node.get("hex")
    if len(node) != 2 or type(text) is not str or not _HEX.fullmatch(text):
        raise _form("UUID")
    return UUID(text)


def _by_state(name: str, read: Callable[..., Any], *, zoned: bool) -> Callable[[MemberReader, dict[str, Any], int], Any]:
    """Builder of a date or time, which jsonpickle writes as class and state in base64."""
    first = {"py/type": name}

    def build(restorer: MemberReader, node: dict[str, Any], depth: int) -> Any:
        reduced = node.get("__reduce__")
        if len(node) != 2 or type(reduced) is not list or len(reduced) != 2 or reduced[0] != first:
            raise _form(name)
        arguments = reduced[1]
        if type(arguments) is not list or not 1 <= len(arguments) <= (2 if zoned else 1):
            raise _form(name)
        zone = restorer.object_argument(arguments[1], depth) if len(arguments) == 2 else None
        if zone is not None and not isinstance(zone, tzinfo):
            raise _form(name)
        try:
            return read(b64(arguments[0]), zone) if zoned else read(b64(arguments[0]))
        except ValueError:
            raise _form(name) from None

    return build


def _complex(restorer: MemberReader, node: dict[str, Any], depth: int) -> Any:
    if node.keys() != {"py/object", "py/newargs"}:
        raise _form("complex")
    arguments = restorer.object_arguments(node["py/newargs"], depth)
    _checked("complex", arguments, [], (float, int), (float, int))
    return complex(*arguments)


def _defaultdict(restorer: MemberReader, node: dict[str, Any], depth: int) -> Any:
    fields = {key: value for key, value in node.items() if key not in ("py/object", "default_factory", "__dict__")}
    return restorer.object_fields(fields, depth)


#: Name -> builder from the object's node.
OBJECTS: dict[str, Callable[[MemberReader, dict[str, Any], int], Any]] = {
    "uuid.UUID": _uuid,
    "datetime.datetime": _by_state("datetime.datetime", read_datetime, zoned=True),
    "datetime.date": _by_state("datetime.date", read_date, zoned=False),
    "datetime.time": _by_state("datetime.time", read_time, zoned=True),
    "builtins.complex": _complex,
    "collections.defaultdict": _defaultdict,
}
