"""Values to plain JSON, for callers in other languages: no tag but bytes, no NaN, one obvious form for each type."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from math import isfinite
from pathlib import PurePath
from typing import Any
from uuid import UUID

from prpc.codec.walk import Refusal, Walk

__all__ = ["PlainWalk"]


class PlainWalk(Walk):
    """One value on its way to plain JSON.

    Tuples and sets are lists; dates and times ISO 8601; durations seconds; UUID, Decimal, Path, complex and zones text;
    bytes `{"py/b64": base64}`; dataclasses and models objects of their fields; NaN and infinities null, for JSON has none.
    """

    def write_key(self, key: Any) -> str:
        tree = self.lower(key)
        if tree is None or isinstance(tree, bool):
            return {None: "null", True: "true", False: "false"}[tree]
        if isinstance(tree, (str, int, float)):
            return str(tree)
        if isinstance(tree, list):
            return repr(key)
        raise Refusal(f"a key of type {type(key).__name__} has no form in plain JSON", key)

    def write_float(self, value: float) -> Any:
        return float.__float__(value) if isfinite(value) else None

    def write_tuple(self, value: Any) -> Any:
        return self.items(value, value)

    def write_set(self, value: AbstractSet[Any]) -> Any:
        return self.items(value, value)

    write_frozenset = write_set

    def write_bytes(self, value: bytes | bytearray) -> Any:
        return {"py/b64": b2a_base64(value, newline=False).decode("ascii")}

    write_bytearray = write_bytes

    def write_dataclass(self, value: Any) -> Any:
        return self.fields(value, {})

    def write_datetime(self, value: datetime | date | time) -> Any:
        return value.isoformat()

    write_date = write_time = write_datetime

    def write_timedelta(self, value: timedelta) -> Any:
        return value.total_seconds()

    def write_text(self, value: UUID | Decimal | PurePath | complex | tzinfo) -> Any:
        return str(value)

    write_uuid = write_decimal = write_path = write_complex = write_zone = write_text
