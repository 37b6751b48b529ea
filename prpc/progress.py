"""How far a call is: what its function says of itself while it runs."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

__all__ = ["MOST_CHARACTERS", "Progress"]

#: Characters of a message that are kept.
MOST_CHARACTERS = 500
#: What every reader can hold.
LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total`, in whatever unit the function counts.

    Raises ValueError for a number that is negative, infinite or none, TypeError for what is no number or no text.
    """

    #: What is done; from 0 up.
    done: float
    #: What there is to do; None where that is not known.
    total: float | None = None
    #: A word for people, at most 500 characters: a longer one is cut.
    message: str | None = None

    def __post_init__(self) -> None:
        # Set only what changes: functions that say much come through here often.
        done = _number("done", self.done)
        if done is not self.done:
            object.__setattr__(self, "done", done)
        if self.total is not None:
            total = _number("total", self.total)
            if total is not self.total:
                object.__setattr__(self, "total", total)
        if self.message is not None:
            if not isinstance(self.message, str):
                raise TypeError(f"message={_shown(self.message)} cannot be used: allowed is a text, or None")
            if type(self.message) is not str or len(self.message) > MOST_CHARACTERS:
                object.__setattr__(self, "message", str(self.message[:MOST_CHARACTERS]))


def _number(name: str, value: Any) -> float:
    number: float = value
    if type(value) is not int and type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}={_shown(value)} cannot be used: allowed is a number")
        number = _plain(value)
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{name}={_shown(value)} cannot be used: allowed is a finite number from 0 up")
    return number


def _plain(value: Real) -> float:
    """A number of another library, of an enum and the like."""
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except OverflowError:  # a fraction that no float holds
        return math.inf


def _shown(value: Any) -> str:
    """For an error: short, and without the digits of a number that has too many to be written."""
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
