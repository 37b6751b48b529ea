"""The measurements, in memory and without I/O."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["ALL_KEYS", "MetricStore", "Series"]

#: Asked for in place of a key: everything.
ALL_KEYS = "*"


class Series(TypedDict):
    """The measurements of one key, in the order of time; both lists are of one length."""

    #: Seconds since 1970.
    timestamps: list[int]
    values: list[float]


class MetricStore:
    """Measurements by key and second. For one thread."""

    def __init__(self) -> None:
        self._measured: dict[str, dict[int, float]] = {}

    def put(self, key: str, value: float, timestamp: int) -> None:
        """Keep a value; one of the same key and second is overwritten."""
        self._measured.setdefault(key, {})[timestamp] = value

    def get(self, key: str) -> dict[str, Series]:
        """What was measured for the key, or for all (`*`) in the order of their first put; empty where nothing was."""
        if key == ALL_KEYS:
            return {name: _series(measured) for name, measured in self._measured.items()}
        return {key: _series(self._measured[key])} if key in self._measured else {}


def _series(measured: dict[int, float]) -> Series:
    # As columns: a message with plain lists of numbers is written and read in half the time of one with rows.
    timestamps = sorted(measured)
    return {"timestamps": timestamps, "values": [measured[timestamp] for timestamp in timestamps]}
