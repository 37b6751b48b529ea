"""Dates and ids in the one form that the frame of a message uses."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from datetime import UTC, date, datetime, time, tzinfo
from struct import Struct
from typing import Any

from prpc.exceptions import EncodeError

__all__ = ["DATE_END", "DATE_START", "STAMP_LENGTH", "UTC_TREE", "read_date", "read_datetime", "read_stamp", "read_time", "stamp"]

#: What jsonpickle writes around the ten bytes of an aware datetime in UTC.
DATE_START = b'{"py/object": "datetime.datetime", "__reduce__": [{"py/type": "datetime.datetime"}, ["'
DATE_END = (
    b'", {"py/reduce": [{"py/type": "datetime.timezone"}, '
    b'{"py/tuple": [{"py/reduce": [{"py/type": "datetime.timedelta"}, {"py/tuple": [0, 0, 0]}]}]}]}]]}'
)
#: The zone in it, as a tree.
UTC_TREE: dict[str, Any] = {
    "py/reduce": [
        {"py/type": "datetime.timezone"},
        {"py/tuple": [{"py/reduce": [{"py/type": "datetime.timedelta"}, {"py/tuple": [0, 0, 0]}]}]},
    ]
}
#: Characters of ten bytes in base64.
STAMP_LENGTH = 16

_DATETIME = Struct(">HBBBBBBH")
_FOLD = 0x80


def stamp(when: datetime) -> bytes:
    """The moment in UTC as pickle's ten bytes, in base64. Raises EncodeError for one without a time zone."""
    if when.tzinfo is not UTC:
        if when.tzinfo is None:
            raise EncodeError(f"the date {when.isoformat()} of a message needs a time zone", type_name="datetime.datetime")
        when = when.astimezone(UTC)
    pickled: Any = when.__reduce__()
    return b2a_base64(pickled[1][0], newline=False)


def read_stamp(text: bytes) -> datetime:
    """The moment that `stamp` wrote. Raises ValueError."""
    return read_datetime(a2b_base64(text, strict_mode=True), UTC)


def read_datetime(state: bytes, zone: tzinfo | None) -> datetime:
    """A datetime from pickle's ten bytes, every field checked (pickle's own way checks the month only). Raises ValueError."""
    if len(state) != _DATETIME.size:
        raise ValueError("a datetime has ten bytes")
    year, month, day, hour, minute, second, high, low = _DATETIME.unpack(state)
    if month & _FOLD:
        return datetime(year, month ^ _FOLD, day, hour, minute, second, high << 16 | low, zone, fold=1)
    return datetime(year, month, day, hour, minute, second, high << 16 | low, zone)


def read_date(state: bytes) -> date:
    """A date from pickle's four bytes. Raises ValueError."""
    if len(state) != 4:
        raise ValueError("a date has four bytes")
    return date(state[0] << 8 | state[1], state[2], state[3])


def read_time(state: bytes, zone: tzinfo | None) -> time:
    """A time from pickle's six bytes. Raises ValueError."""
    if len(state) != 6:
        raise ValueError("a time has six bytes")
    hour, fold = state[0] & ~_FOLD, state[0] >> 7
    return time(hour, state[1], state[2], state[3] << 16 | state[4] << 8 | state[5], zone, fold=fold)
