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

__all__ = [
    "check_bounds",
    "count_few",
    "find_message_id",
    "has_no_tags",
    "has_too_many_items",
    "measure",
    "parse",
]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_CONTAINERS = frozenset({list, dict})
_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_MESSAGE_ID = re.compile(rb'"message_id"\s*:\s*(?:\{[^{}]{0,80}?"hex"\s*:\s*)?"([0-9a-fA-F-]{32,36})"')
#: Bytes of a text from which on it pays to leap from find to find, and finds after which it does not.
SHORT, FEW = 1024, 40
#: How far from either end of a refused text its id is looked for.
_ID_WINDOW = 64 * 1024


def check_bounds(body: bytes, limits: Limits) -> None:
    """Refuse what is too large before anything is built from it. Raises DecodeError."""
    if len(body) > limits.max_bytes:
        raise DecodeError(f"the text has {len(body)} bytes; at most {limits.max_bytes} are read", reason="size")
    if len(body) > limits.max_items and has_too_many_items(body, limits):
        raise DecodeError(f"the text has more than {limits.max_items} items", reason="items")


def has_too_many_items(body: bytes, limits: Limits) -> bool:
    """Whether a text has more items than are allowed, seen from its punctuation."""
    most = limits.max_items
    if len(body) <= most or _separators(body) <= most:
        return False
    # A text of one long string holds many commas; only now the strings are worth cutting out.
    quotes = body.count(b'"') - body.count(b'\\"')
    return quotes > 4 * most or _separators(_STRING.sub(b"", body)) > most


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def has_no_tags(body: bytes, known: int = 0) -> bool:
    """Whether a text surely holds no tags but so many known ones, so that its tree needs no restoring.

    An escape can hide a tag's letters only as `\\u00..` or `\\/`.
    """
    if b"\\" in body and (b"\\u00" in body or b"\\/" in body):
        return False
    if len(body) < SHORT:
        return body.count(b'"py/') == known and b"json://" not in body
    found = slashes = 0
    at = body.find(b"/")
    while at >= 0 and slashes < FEW:
        if at > 2 and body.startswith(b'"py', at - 3):
            found += 1
        elif at > 4 and body.startswith(b"json://", at - 5):
            return False
        slashes += 1
        at = body.find(b"/", at + 1)
    return found == known if at < 0 else body.count(b'"py/') == known and b"json://" not in body


def count_few(body: bytes, mark: bytes, most: int) -> int:
    """How often a character stands in a text; where that is more often than `most`, some number above it.

    bytes.find leaps over what it does not look for, bytes.count and a search for several characters do not: for 10 kB they take
    50 times as long.
    """
    if len(body) < SHORT:
        return body.count(mark)
    found, at = 0, body.find(mark)
    while at >= 0 and found <= most:
        found += 1
        if found > FEW:
            return body.count(mark)
        at = body.find(mark, at + 1)
    return found


def measure(tree: Any) -> tuple[int, int]:
    """How many keys a tree of JSON has in all its objects, and how many containers stand inside one another."""
    keys = depth = 0
    level: list[Any] = [tree] if type(tree) in _CONTAINERS else []
    while level:
        depth += 1
        inner: list[Any] = []
        for node in level:
            if type(node) is dict:
                keys += len(node)
                node = node.values()
            for member in node:
                if type(member) in _CONTAINERS:
                    inner.append(member)  # noqa: PERF401  most containers are small: a comprehension each costs more
        level = inner
    return keys, depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


class _DuplicateKeyError(ValueError):
    pass


_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def parse(body: bytes) -> tuple[Any, int]:
    """The tree of one text and its depth; keys that stand twice are refused, NaN and Infinity are read.

    Raises DecodeError.
    """
    try:
        tree = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # msgspec knows no NaN, no Infinity and no lone surrogates.
        tree = _parse_slowly(body)
        return tree, measure(tree)[1]
    if b":" not in body and (lists := count_few(body, b"[", 2)) <= 2:
        return tree, lists
    colons = body.count(b":")
    keys, depth = measure(tree)
    # msgspec keeps the last of two keys. Every key has its colon: where keys and texts account for all, none stood twice.
    if colons == keys or (b"\\u00" not in body and colons == keys + _colons_in_texts(tree)):
        return tree, depth
    return _parse_slowly(body), depth


def _colons_in_texts(tree: Any) -> int:
    colons = 0
    todo = [tree]
    while todo:
        node = todo.pop()
        if type(node) is str:
            colons += node.count(":")
        elif type(node) is list:
            todo += node
        elif type(node) is dict:
            todo += node
            todo += node.values()
    return colons


def _parse_slowly(body: bytes) -> Any:
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


def find_message_id(body: bytes) -> str | None:
    """The dashed id in a text that cannot be read, where exactly one stands near its ends."""
    found = set(_MESSAGE_ID.findall(body[:_ID_WINDOW])) | set(_MESSAGE_ID.findall(body[-_ID_WINDOW:]))
    if len(found) != 1:
        return None
    try:
        return str(UUID(found.pop().decode()))
    except ValueError:
        return None
