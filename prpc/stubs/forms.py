"""Checks of a description's plain values: the right kind, and not too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prpc.stubs.grammar import refused

__all__ = ["flag", "items", "mapping", "notes", "text"]

#: Longest docstring, in characters.
MAX_DOC = 100_000
MAX_NOTES = 2_000


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """The value, which has to be a dict with texts as keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise refused(f"{what} is no object but {type(value).__name__}")
    return value


def items(value: object, what: str, most: int) -> Sequence[object]:
    """The value, which has to be a list of at most so many."""
    if not isinstance(value, list | tuple):
        raise refused(f"{what} is no list but {type(value).__name__}")
    if len(value) > most:
        raise refused(f"{what} has {len(value)} items; {most} are allowed")
    return value


def flag(value: object, what: str) -> bool:
    """The value, which has to be True, False or missing."""
    if value not in (None, True, False) or isinstance(value, float):
        raise refused(f"{what} is neither true nor false")
    return bool(value)


def text(value: object, what: str, most: int = MAX_DOC) -> str:
    """The value, which has to be a text or missing."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise refused(f"{what} is no text of at most {most} characters")
    return value


def notes(value: object) -> tuple[str, ...]:
    """Texts for a reader."""
    return tuple(text(note, "a note", 1000) for note in items(value or [], "notes", MAX_NOTES))
