"""Items of a stream as mail: any number of values, numbered from the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prpc.codec.frame import check_depth
from prpc.codec.jsontext import check_size, write_value
from prpc.codec.limits import Limits
from prpc.codec.reader import Restorer, refuse
from prpc.codec.text import check_bounds, has_no_tags, parse
from prpc.codec.values import DialectWalk
from prpc.exceptions import DecodeError, EncodeError

__all__ = ["MAX_ITEM_BYTES", "Items", "call_of_items", "read_items", "write_item", "write_items"]

#: Largest text of one item: brokers cut off readers of larger mail (Redis at 32 MB).
MAX_ITEM_BYTES = 16 * 1024 * 1024
#: Longest name of a parameter that is fed from a stream, and longest address, in characters.
_MAX_NAME = 500
_START = re.compile(rb'\{"prpc_mail" ?: ?"items" ?, ?"id" ?: ?"([0-9a-fA-F-]{32,36})"')


@dataclass(frozen=True, slots=True)
class Items:
    """One mail of items."""

    #: The call that the stream belongs to.
    message_id: UUID
    #: Parameter that the stream feeds; empty for what the function yields.
    parameter: str
    #: Which run of the call wrote them, from 1: one that lost its server may be run again, from the first item.
    run: int
    #: Number of the first item, from 1.
    first: int
    #: Mailbox of the writer, for the reader's words.
    writer: str
    values: Sequence[Any]
    #: Number of items in all, with the last of those that feed a parameter. What is yielded ends with the call's outcome.
    total: int | None = None


def write_item(value: Any, limits: Limits, root: str) -> bytes:
    """The text of one item. Raises EncodeError, which names it by `root`."""
    text = check_size(write_value(value, limits, DialectWalk, root), limits, root)
    if len(text) > MAX_ITEM_BYTES:
        reason = f"its text has {len(text)} bytes; an item of a stream may have {MAX_ITEM_BYTES}"
        raise EncodeError(f"{root} cannot be sent: {reason}", path=root)
    return text


def write_items(items: Items, texts: Sequence[bytes]) -> bytes:
    """The mail. `items.values` is left out: `texts` stand for them, as `write_item` gave them."""
    head = b'{"prpc_mail": "items", "id": "%b", "run": %d, "first": %d, "writer": %b' % (
        str(items.message_id).encode(),
        items.run,
        items.first,
        _text(items.writer),
    )
    parts = [head]
    if items.parameter:
        parts.append(b', "parameter": ' + _text(items.parameter))
    if items.total is not None:
        parts.append(b', "total": %d' % items.total)
    return b"".join((*parts, b', "items": [', b",".join(texts), b"]}"))


def read_items(body: bytes, limits: Limits) -> Items:
    """The mail in a text. Raises DecodeError."""
    check_bounds(body, limits)
    try:
        tree, depth = parse(body)
        nodes = tree.get("items") if type(tree) is dict else None
        if type(nodes) is not list:
            raise refuse("the mail holds no items", "form")
        if has_no_tags(body):
            check_depth(depth - 2, limits)
            values = nodes
        else:
            values = [Restorer(limits).restore(node) for node in nodes]
    except RecursionError:
        raise refuse("the values are nested too deep", "depth") from None
    return Items(
        message_id=_id(tree),
        parameter=_short(tree.get("parameter", "")),
        run=_number(tree.get("run"), 1),
        first=_number(tree.get("first"), 1),
        writer=_short(tree.get("writer")),
        values=values,
        total=None if tree.get("total") is None else _number(tree["total"], 0),
    )


def call_of_items(body: bytes) -> UUID | None:
    """The call whose items these are, of a mail that may be unreadable; None where that is not known."""
    found = _START.match(body)
    try:
        return None if found is None else UUID(found[1].decode())
    except ValueError:
        return None


def _text(value: str) -> bytes:
    return write_value(value, Limits(), DialectWalk, "name")


def _id(tree: dict[str, Any]) -> UUID:
    try:
        return UUID(_short(tree.get("id")))
    except ValueError:
        raise DecodeError("the id of a stream cannot be read", reason="form") from None


def _number(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise refuse("a number in the mail of a stream is out of order", "form")
    return value


def _short(value: Any) -> str:
    if type(value) is not str or len(value) > _MAX_NAME:
        raise refuse("a text in the mail of a stream is out of order", "form")
    return value
