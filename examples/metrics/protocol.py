"""The text protocol, without I/O: bytes to lines, lines to commands, results to answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from examples.metrics.store import Series

__all__ = ["MAX_LINE_BYTES", "OK", "UNAVAILABLE", "WRONG_COMMAND", "Get", "Lines", "Put", "found", "parse_command"]

#: Longest command, without its end of line.
MAX_LINE_BYTES = 64 * 1024

OK = b"ok\n\n"
WRONG_COMMAND = b"error\nwrong command\n\n"
#: The worker gave no answer in time, or the broker is away.
UNAVAILABLE = b"error\nservice unavailable\n\n"

INTEGER = frozenset("+-0123456789")
DECIMAL = INTEGER | frozenset(".eE")


@dataclass(frozen=True, slots=True)
class Put:
    """Keep a value."""

    key: str
    value: float
    #: Seconds since 1970.
    timestamp: int


@dataclass(frozen=True, slots=True)
class Get:
    """Ask for one key, or for all (`*`)."""

    key: str


class Lines:
    """Cuts what comes from a connection into lines, in whatever pieces it comes.

    Of a line that is too long only so much is kept that it can be told as such.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`, without their `\\n`."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._keep(end)
            lines.append(bytes(self._begun))
            self._begun.clear()
        self._keep(rest)
        return lines

    def _keep(self, piece: bytes) -> None:
        self._begun += piece[: MAX_LINE_BYTES + 1 - len(self._begun)]


def parse_command(line: bytes) -> Put | Get | None:
    """The command that stands in a line; None for anything else.

    Words are separated by one blank each. A key is any UTF-8 without white space.
    """
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        words = line.removesuffix(b"\r").rstrip(b" \t").decode().split(" ")
    except UnicodeDecodeError:
        return None
    match words:
        case ["get", key] if _is_word(key):
            return Get(key)
        case ["put", key, value, timestamp] if _is_word(key):
            number, second = _read_value(value), _read_timestamp(timestamp)
            return None if number is None or second is None else Put(key, number, second)
    return None


def found(series: Mapping[str, Series]) -> bytes:
    """The answer to a `get`."""
    lines = ["ok\n"]
    for key, one in series.items():
        lines += (f"{key} {value} {timestamp}\n" for timestamp, value in zip(one["timestamps"], one["values"], strict=True))
    lines.append("\n")
    return "".join(lines).encode()


def _is_word(text: str) -> bool:
    return text.split() == [text]


def _read_value(text: str) -> float | None:
    # float() and int() also take blanks, `1_000`, digits of every script, `nan` and `inf`, which other readers of the protocol
    # do not; `1e400` becomes an infinity on the way.
    if not DECIMAL.issuperset(text):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_timestamp(text: str) -> int | None:
    if not INTEGER.issuperset(text):
        return None
    try:
        return int(text)
    except ValueError:  # no number, or more digits than Python reads (4,300)
        return None
