"""Values to jsonpickle's dialect: the forms that stock jsonpickle reads to equal values and our reader accepts."""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

from prpc.codec.limits import MAX_DIGITS
from prpc.codec.stamps import UTC_TREE
from prpc.codec.walk import Refusal, Walk, as_datetime

__all__ = ["DialectWalk"]

#: Kinds of paths under their public names, the narrower ones first.
_PATHS = (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)


def _b64(value: bytes | bytearray) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


class DialectWalk(Walk):
    """One value on its way to jsonpickle's text."""

    def write_key(self, key: Any) -> str:
        self._hashable += 1
        tree = self.lower(key)
        self._hashable -= 1
        if type(tree) is str and not tree.startswith(("py/", "json://")):
            return tree
        # What looks like a tag is escaped just as jsonpickle escapes keys that are no strings.
        return "json://" + json.dumps(tree)

    def write_tuple(self, value: tuple[Any, ...]) -> Any:
        return {"py/tuple": self.items(value, value)}

    def write_set(self, value: AbstractSet[Any]) -> Any:
        self.need_no_hash(value)
        return {"py/set": self.hashable_items(value)}

    def write_frozenset(self, value: AbstractSet[Any]) -> Any:
        return _call("builtins.frozenset", self.hashable_items(value))

    def write_bytes(self, value: bytes) -> Any:
        return {"py/b64": _b64(value)}

    def write_bytearray(self, value: bytearray) -> Any:
        # jsonpickle's own form of a bytearray loses its content.
        self.need_no_hash(value)
        return _call("builtins.bytearray", {"py/b64": _b64(value)})

    def write_dataclass(self, value: Any) -> Any:
        kind = type(value)
        return self.fields(value, {"py/object": f"{kind.__module__}.{kind.__qualname__}"})

    def write_datetime(self, value: datetime) -> Any:
        return self._by_state("datetime.datetime", as_datetime(value))

    def _by_state(self, name: str, value: datetime | time) -> Any:
        # Not by jsonpickle: protocol 4 keeps the fold, which the older form loses.
        reduced: Any = value.__reduce_ex__(4)
        arguments: list[Any] = [_b64(reduced[1][0])]
        if value.tzinfo is not None:
            arguments.append(self.lower(value.tzinfo))
        return {"py/object": name, "__reduce__": [{"py/type": name}, arguments]}

    def write_uuid(self, value: UUID) -> Any:
        return {"py/object": "uuid.UUID", "hex": value.hex}

    def write_date(self, value: date) -> Any:
        return self._by_jsonpickle(date(value.year, value.month, value.day))

    def write_time(self, value: time) -> Any:
        zone = value.tzinfo
        if zone is not None and not isinstance(zone, timezone):
            # The offset of a named zone depends on the day, which a time lacks.
            raise Refusal("a time of day needs a zone of fixed offset", value)
        plain = time(value.hour, value.minute, value.second, value.microsecond, zone, fold=value.fold)
        return self._by_state("datetime.time", plain)

    def write_timedelta(self, value: timedelta) -> Any:
        return self._by_jsonpickle(timedelta(value.days, value.seconds, value.microseconds))

    def write_zone(self, value: tzinfo) -> Any:
        if value is UTC:
            return UTC_TREE
        return self._by_jsonpickle(value)

    def write_decimal(self, value: Decimal) -> Any:
        if len(value.as_tuple().digits) > MAX_DIGITS:
            raise Refusal(f"a number of more than {MAX_DIGITS} digits", value)
        return self._by_jsonpickle(Decimal(value))

    def write_complex(self, value: complex) -> Any:
        for part in (value.real, value.imag):
            self.write_float(part)
        return self._by_jsonpickle(complex(value.real, value.imag))

    def write_path(self, value: PurePath) -> Any:
        # Not by jsonpickle: since Python 3.13 it names a private module that older readers lack, and parts lose odd roots.
        name = next(kind.__name__ for kind in _PATHS if isinstance(value, kind))
        return _call(f"pathlib.{name}", str(value))

    def _by_jsonpickle(self, value: Any) -> Any:
        if self._pickler is None:
            self._pickler = _new_pickler()
        return self._pickler.flatten(value)

    _pickler: Any = None


def _call(name: str, *arguments: Any) -> dict[str, Any]:
    return {"py/reduce": [{"py/type": name}, {"py/tuple": list(arguments)}]}


def _new_pickler() -> Any:
    from jsonpickle.pickler import Pickler  # late: most programs never need it

    return Pickler(
        unpicklable=True,
        make_refs=False,
        keys=True,
        warn=False,
        max_depth=None,
        max_iter=None,
        numeric_keys=False,
        use_decimal=False,
        use_base85=False,
        fail_safe=None,
        include_properties=False,
        handle_readonly=False,
    )
