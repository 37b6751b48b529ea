"""The bounds of one text, and the small words that the whole codec shares."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_DIGITS", "Limits"]

#: Most decimal digits of one number: what Python itself turns from text into an int.
MAX_DIGITS = 4300


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one text, for reading and for writing alike."""

    #: Most bytes of a text.
    max_bytes: int = 64 * 1024 * 1024
    #: Most containers inside one another in one value.
    max_depth: int = 100
    #: Most elements of all containers of a text together; a value that is referred to twice counts twice.
    max_items: int = 5_000_000
