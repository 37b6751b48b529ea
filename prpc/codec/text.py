"""Text to tree: JSON in Python's dialect, without surprises and within limits. Nothing here knows a tag."""

from __future__ import annotations

import json
import re
import sys
from typing import Any
from uuid import UUID

import msgspec

from prpc.codec.limits import MAX_DIGITS, Limits
from prpc.exceptions import DecodeError

__all__ = ["check_bounds", "check_depth", "find_message_id", "parse", "parse_unique", "separators"]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_MESSAGE_ID = re.compile(rb'"message_id"\s*:\s*(?:\{[^{}]{0,80}?"hex"\s*:\s*)?"([0-9a-fA-F-]{32,36})"')
#: How far from either end of a refused text its id is looked for.
_ID_WINDOW = 64 * 1024


def check_bounds(body: bytes, limits: Limits) -> None:
    """Refuse what is too large before anything is built from it. Raises DecodeError."""
    if len(body) > limits.max_bytes:
        raise DecodeError(f"the text has {len(body)} bytes; at most {limits.max_bytes} are read", reason="size")
    if len(body) > limits.max_items and separators(body) > limits.max_items:
        # A text of one long string holds many commas; only now the strings are worth cutting out.
        if body.count(b'"') > 4 * limits.max_items or separators(_STRING.sub(b"", body)) > limits.max_items:
            raise DecodeError(f"the text has more than {limits.max_items} items", reason="items")


def separators(body: bytes) -> int:
    """At least the number of items in a text."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def check_depth(tree: Any, max_depth: int) -> None:
    """Refuse a tree of plain JSON that is too deep, level by level. Raises DecodeError."""
    level = [tree]
    for _ in range(max_depth + 1):
        children: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is list:
                children += [x for x in node if type(x) is list or type(x) is dict]
            elif kind is dict:
                children += [x for x in node.values() if type(x) is list or type(x) is dict]
        if not children:
            return
        level = children
    raise DecodeError(f"the text is nested deeper than {max_depth} levels", reason="depth")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


class _DuplicateKeyError(ValueError):
    pass


_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def parse_unique(body: bytes) -> Any:
    """The tree of one text; keys that stand twice are refused, NaN and Infinity are read. Raises DecodeError."""
    if sys.get_int_max_str_digits() != MAX_DIGITS and _DIGITS.search(body):
        raise DecodeError(f"a number of more than {MAX_DIGITS} digits", reason="json")
    try:
        # Lone surrogates may stand as raw bytes where another writer put them.
        return _decoder.decode(body.decode("utf-8", "surrogatepass"))
    except _DuplicateKeyError:
        raise DecodeError("a key stands twice in one object", reason="json") from None
    except RecursionError:
        raise DecodeError("the text is nested too deep", reason="depth") from None
    except ValueError as exc:
        raise DecodeError(f"the text is no JSON: {exc}", reason="json") from None


def parse(body: bytes) -> Any:
    """The same tree where no object has a key twice, several times faster. Raises DecodeError.

    A caller has to see for himself that no key stands twice.
    """
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # msgspec knows no NaN, no Infinity and no lone surrogates.
        return parse_unique(body)


def find_message_id(body: bytes) -> str | None:
    """The dashed id in a text that cannot be read, where exactly one stands near its ends."""
    found = set(_MESSAGE_ID.findall(body[:_ID_WINDOW])) | set(_MESSAGE_ID.findall(body[-_ID_WINDOW:]))
    if len(found) != 1:
        return None
    try:
        return str(UUID(found.pop().decode()))
    except ValueError:
        return None
