"""Values to the bytes of JSON; what is plain JSON already is not walked through a tree of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

import msgspec

from prpc.codec.limits import Limits
from prpc.codec.text import has_too_many_items
from prpc.codec.walk import Walk
from prpc.exceptions import EncodeError

__all__ = ["check_size", "write_members", "write_value"]

_encode = msgspec.json.Encoder().encode
_ATOMS = frozenset({str, int, bool, type(None)})
#: First letters of keys that could look like a tag (`py/`, `json://`).
_SUSPECT = frozenset({"p", "j"})
#: Containers inside one another that are looked at without the care for cycles that a walk takes.
_SHALLOW = 16
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def write_value(value: Any, limits: Limits, kind: type[Walk], root: str) -> bytes:
    """The JSON of one value, in the form that `kind` gives what is no plain JSON; `root` names it in errors.

    Raises EncodeError.
    """
    if _plain(value, min(_SHALLOW, limits.max_depth)):
        try:
            return _encode(value)
        except (ValueError, RecursionError):
            pass  # a lone surrogate or a very long int: the walk writes the one and names the place of the other
    walk = kind(limits)
    return _dump(walk.write(value, root), walk, root)


def write_members(members: tuple[Any, ...], limits: Limits) -> bytes | None:
    """The JSON list of a tuple's members where all are plain JSON, else None."""
    if _all_plain(members, min(_SHALLOW, limits.max_depth) - 1):
        try:
            return _encode(members)
        except (ValueError, RecursionError):
            return None
    return None


def _plain(value: Any, deeper: int) -> bool:
    """Whether a value is JSON as it stands: exact types, finite floats, not deep, no key that looks like a tag."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is float:
        return isfinite(value)
    if deeper == 0:
        return False
    if kind is list:
        return _all_plain(value, deeper - 1)
    if kind is dict:
        for key in value:
            if type(key) is not str or key[:1] in _SUSPECT:
                return False
        return _all_plain(value.values(), deeper - 1)
    return False


def _all_plain(members: Iterable[Any], deeper: int) -> bool:
    for member in members:
        kind = type(member)
        if kind in _ATOMS:
            continue
        if kind is float:
            if not isfinite(member):
                return False
        elif not _plain(member, deeper):
            return False
    return True


def _dump(tree: Any, walk: Walk, root: str) -> bytes:
    """The JSON of a tree; Python's own writer where it holds NaN, an infinity or a lone surrogate."""
    if not walk.has_nonfinite:
        try:
            return _encode(tree)
        except UnicodeEncodeError:
            _check_surrogates(tree, root)
    return json.dumps(tree).encode("ascii")


def _check_surrogates(tree: Any, root: str) -> None:
    """Refuse two surrogates side by side: read back, they would be one character."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            todo += [*node, *node.values()]
        elif isinstance(node, list):
            todo += node
        elif isinstance(node, str) and _PAIR.search(node):
            raise EncodeError(f"{root} cannot be sent: a text holds a pair of surrogates", path=root, type_name="str")


def check_size(text: bytes, limits: Limits, root: str) -> bytes:
    """The text itself, if its reader will not find it too large. Raises EncodeError."""
    if len(text) > limits.max_bytes:
        reason = f"its text has {len(text)} bytes; at most {limits.max_bytes} are sent"
    elif len(text) > limits.max_items and has_too_many_items(text, limits):
        reason = f"it has more than {limits.max_items} items"
    else:
        return text
    raise EncodeError(f"{root} cannot be sent: {reason}", path=root)
