"""The frame of a message as jsonpickle writes it, as templates, and its fast reading.

Whoever writes through jsonpickle and stamps in UTC gives the same bytes around name, arguments and outcome, so that a
common call is read and written without parsing its frame.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from prpc.codec.limits import Limits
from prpc.codec.reader import Restorer, refuse
from prpc.codec.stamps import DATE_END, DATE_START, STAMP_LENGTH, read_stamp, stamp
from prpc.codec.text import count_few, has_no_tags, measure, parse
from prpc.prpcmessage import PRPCMessage

__all__ = [
    "NO_ARGUMENTS",
    "TYPE_NAME",
    "call_tail",
    "check_depth",
    "done_tail",
    "head",
    "quick_call",
    "quick_done",
    "read_values",
]

#: The name of PRPCMessage on the wire.
TYPE_NAME = "prpc.prpcmessage.PRPCMessage"

_HEAD = b'{"py/object": "prpc.prpcmessage.PRPCMessage", "func_name": '
_ID = b', "message_id": {"py/object": "uuid.UUID", "hex": "'
_CREATED = b'"}, "date_create_message": ' + DATE_START
_NOT_DONE = DATE_END + b', "result": null, "exception_info": null, "date_done_message": null}'
_RESULT = DATE_END + b', "result": '
_EXCEPTION = b', "exception_info": '
_DONE = b', "date_done_message": ' + DATE_START
_AFTER_DONE = DATE_END + b"}"

#: Between name and id of a reply to a caller who knows what it sent.
NO_ARGUMENTS = b', "func_args": {"py/tuple": []}, "func_kwargs": {}'
_HEX_AT = len(_ID)
_CREATED_AT = _HEX_AT + 32
_STAMP_AT = _CREATED_AT + len(_CREATED)
_NOT_DONE_AT = _STAMP_AT + STAMP_LENGTH
_TAIL = _NOT_DONE_AT + len(_NOT_DONE)
_HEAD_LENGTH = len(_HEAD)
_DONE_TAIL = len(_DONE) + STAMP_LENGTH + len(_AFTER_DONE)

_read_json = msgspec.json.Decoder().decode
_read_name = msgspec.json.Decoder(str).decode
_read_uuid = msgspec.json.Decoder(UUID).decode
_write_json = msgspec.json.Encoder().encode


def head(func_name: str) -> bytes:
    """The text up to and including the name. Raises UnicodeEncodeError for a name with lone surrogates."""
    return _HEAD + _write_json(func_name)


def call_tail(message: PRPCMessage) -> bytes:
    """The text behind the arguments of a call that is stamped in UTC."""
    hexed = b"%032x" % message.message_id.int
    return b"".join((_ID, hexed, _CREATED, stamp(message.date_create_message), _NOT_DONE))


def done_tail(hexed: bytes, message: PRPCMessage, result: bytes, exception: bytes, done: bytes) -> bytes:
    """The same of a call that is done, with its id in hex digits, its outcome as text and the stamp of its end."""
    created = stamp(message.date_create_message)
    return b"".join((_ID, hexed, _CREATED, created, _RESULT, result, _EXCEPTION, exception, _DONE, done, _AFTER_DONE))


def quick_call(body: bytes, limits: Limits) -> PRPCMessage | None:
    """A call in the common frame; None for any other text, whose frame has to be read step by step."""
    tail = body[-_TAIL:]
    if not (
        len(tail) == _TAIL
        and body.startswith(_HEAD)
        and tail.startswith(_ID)
        and tail.startswith(_CREATED, _CREATED_AT)
        and tail.endswith(_NOT_DONE)
    ):
        return None
    middle = b'{"func_name": ' + body[_HEAD_LENGTH:-_TAIL] + b"}"
    try:
        message_id = _read_uuid(b'"' + tail[_HEX_AT:_CREATED_AT] + b'"')
        created = read_stamp(tail[_STAMP_AT:_NOT_DONE_AT])
    except ValueError:
        return None
    values = _plain_call(middle, limits) or _any_call(middle, limits)
    return None if values is None else PRPCMessage(*values, message_id, created)


#: Name, arguments, arguments by keyword.
_Call = tuple[str, tuple[Any, ...] | list[Any], dict[str, Any]]


def _plain_call(middle: bytes, limits: Limits) -> _Call | None:
    """Name and arguments, where nothing in them can hide a tag or a key that stands twice."""
    if middle.endswith(b"{}}") and count_few(middle, b":", 4) > 4:
        return None
    try:
        fields = _read_json(middle)
    except (ValueError, RecursionError):
        return None
    name, args, kwargs = fields.get("func_name"), fields.get("func_args"), fields.get("func_kwargs")
    if type(args) is dict:
        args = args.get("py/tuple")
        known = 4
    else:
        known = 3
    # Every key brings its colon: where the count is that of the keys known here, there is no other key and none twice.
    if type(kwargs) is not dict or len(fields) != 3 or count_few(middle, b":", known + len(kwargs)) != known + len(kwargs):
        return None
    if (kwargs and not has_no_tags(middle, known - 3)) or type(name) is not str or type(args) is not list:
        return None
    if count_few(middle, b"[", limits.max_depth) > limits.max_depth:
        check_depth(measure(args)[1], limits)
    return name, args if known == 3 else tuple(args), kwargs


def _any_call(middle: bytes, limits: Limits) -> _Call | None:
    """The same for any values."""
    fields, depth = parse(middle)
    if list(fields) != ["func_name", "func_args", "func_kwargs"]:
        return None
    name: Any
    args: Any
    kwargs: Any
    name, args, kwargs = fields.values()
    is_tuple = type(args) is dict and args.keys() == {"py/tuple"} and type(args["py/tuple"]) is list
    if has_no_tags(middle, int(is_tuple)):
        check_depth(depth - (1 + is_tuple), limits)
        args = tuple(args["py/tuple"]) if is_tuple else args
    else:
        restorer = Restorer(limits)
        restorer.begin()
        args, kwargs = restorer.restore(args), restorer.restore(kwargs)
    if type(name) is not str or type(args) not in (tuple, list) or type(kwargs) is not dict:
        return None
    return (name, args, kwargs) if all(type(key) is str for key in kwargs) else None


def quick_done(body: bytes, limits: Limits) -> tuple[UUID, Any, Any, datetime] | None:
    """Id, result, exception text and end of a done call without arguments, as we write it; None for any other text."""
    start = body.find(NO_ARGUMENTS + _ID) + len(NO_ARGUMENTS)
    result_at = start + _NOT_DONE_AT
    end = len(body) - _DONE_TAIL
    if not (
        start > _HEAD_LENGTH
        and end > result_at
        and body.startswith(_HEAD)
        and body.startswith(_CREATED, start + _CREATED_AT)
        and body.startswith(_RESULT, result_at)
        and body.startswith(_DONE, end)
        and body.endswith(_AFTER_DONE)
    ):
        return None
    try:
        _read_name(body[_HEAD_LENGTH : start - len(NO_ARGUMENTS)])
        message_id = _read_uuid(b'"' + body[start + _HEX_AT : start + _CREATED_AT] + b'"')
        done = read_stamp(body[end + len(_DONE) : end + len(_DONE) + STAMP_LENGTH])
        read_stamp(body[start + _STAMP_AT : result_at])
    except ValueError:
        return None
    fields = read_values(b'{"result": ' + body[result_at + len(_RESULT) : end] + b"}", limits)
    if list(fields) != ["result", "exception_info"]:
        return None
    return message_id, fields["result"], fields["exception_info"], done


def read_values(text: bytes, limits: Limits) -> Any:
    """The values in a text that is a list or an object; depth counts inside of it. Raises DecodeError."""
    tree, depth = parse(text)
    if has_no_tags(text):
        check_depth(depth - 1, limits)
        return tree
    restorer = Restorer(limits)
    if type(tree) is dict:
        return {name: restorer.restore(node) for name, node in tree.items()}
    return [restorer.restore(node) for node in tree] if type(tree) is list else tree


def check_depth(depth: int, limits: Limits) -> None:
    """Refuse values that are nested too deep. Raises DecodeError."""
    if depth > limits.max_depth:
        raise refuse(f"the values are nested deeper than {limits.max_depth} levels", "depth")
