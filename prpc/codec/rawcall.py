"""A call in plain JSON, as programs in other languages send it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from prpc.codec.frame import check_depth
from prpc.codec.limits import Limits
from prpc.codec.passive import b64
from prpc.codec.reader import refuse
from prpc.codec.text import check_bounds, parse
from prpc.prpcmessage import PRPCMessage

__all__ = ["read_raw"]


def read_raw(body: bytes, limits: Limits, now: datetime) -> PRPCMessage:
    """The message of the text; a call that names no date was made now. Raises DecodeError."""
    check_bounds(body, limits)
    tree, depth = parse(body)
    if type(tree) is not dict:
        raise refuse("the text is no JSON object", "form")
    args, kwargs, name = tree.get("func_args"), tree.get("func_kwargs"), tree.get("func_name")
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if type(name) is not str:
        raise refuse("func_name is no text", "form")
    if type(args) is not list:
        raise refuse("func_args is no list", "form")
    if type(kwargs) is not dict:
        raise refuse("func_kwargs is no object", "form")
    check_depth(depth - 1, limits)
    values = [_value(arg) for arg in args]
    return PRPCMessage(name, values, _fields(kwargs), _message_id(tree.get("message_id")), _date(tree, now))


def _value(node: Any) -> Any:
    kind = type(node)
    if kind is list:
        return [_value(member) for member in node]
    if kind is dict:
        return b64(node["py/b64"]) if node.keys() == {"py/b64"} else _fields(node)
    return node


def _fields(node: dict[str, Any]) -> dict[str, Any]:
    for key in node:
        if key.startswith("py/"):
            raise refuse(f"the tag {key[:40]!r} is not accepted in plain JSON")
    return {key: _value(member) for key, member in node.items()}


def _message_id(node: Any) -> UUID:
    text = node.get("hex") if type(node) is dict else node
    if type(text) is str and len(text) in (32, 36):
        try:
            return UUID(text)
        except ValueError:
            pass
    raise refuse("message_id is no uuid", "form")


def _date(tree: dict[str, Any], now: datetime) -> datetime:
    text = tree.get("date_create_message")
    if text is None:
        return now
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise refuse("date_create_message is no ISO 8601 date", "form") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=now.tzinfo)
