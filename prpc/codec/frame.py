"""The frame of a message as jsonpickle writes it, as templates, and its fast reading.

Whoever writes through jsonpickle and stamps in UTC gives the same bytes around name, arguments and outcome, so that a
common call is read and written without parsing its frame.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from prpc.codec.limits import Limits
from prpc.codec.stamps import DATE_END, DATE_START, STAMP_LENGTH, read_stamp, stamp
from prpc.codec.text import check_depth
from prpc.prpcmessage import PRPCMessage

__all__ = ["AFTER_DONE", "TYPE_NAME", "call_tail", "done_tail", "head", "quick_call"]

#: The name of PRPCMessage on the wire.
TYPE_NAME = "prpc.prpcmessage.PRPCMessage"

_HEAD = b'{"py/object": "prpc.prpcmessage.PRPCMessage", "func_name": '
_ID = b', "message_id": {"py/object": "uuid.UUID", "hex": "'
_CREATED = b'"}, "date_create_message": ' + DATE_START
_NOT_DONE = DATE_END + b', "result": null, "exception_info": null, "date_done_message": null}'
_RESULT = DATE_END + b', "result": '
_EXCEPTION = b', "exception_info": '
_DONE = b', "date_done_message": ' + DATE_START
#: What follows the stamp of the end.
AFTER_DONE = DATE_END + b"}"

_HEX_AT = len(_ID)
_CREATED_AT = _HEX_AT + 32
_STAMP_AT = _CREATED_AT + len(_CREATED)
_NOT_DONE_AT = _STAMP_AT + STAMP_LENGTH
_TAIL = _NOT_DONE_AT + len(_NOT_DONE)
_HEAD_LENGTH = len(_HEAD)

_read_json = msgspec.json.Decoder().decode
_read_uuid = msgspec.json.Decoder(UUID).decode
_write_json = msgspec.json.Encoder().encode


def head(func_name: str) -> bytes:
    """The text up to the arguments. Raises UnicodeEncodeError for a name with lone surrogates."""
    return _HEAD + _write_json(func_name) + b', "func_args": '


def call_tail(message: PRPCMessage) -> bytes:
    """The text behind the arguments of a call that is stamped in UTC."""
    return b"".join((_ID, message.message_id.hex.encode(), _CREATED, stamp(message.date_create_message), _NOT_DONE))


def done_tail(message: PRPCMessage, result: bytes, exception: bytes, done: bytes) -> bytes:
    """The same of a call that is done, with its outcome as text and the stamp of its end."""
    created = stamp(message.date_create_message)
    hexed = message.message_id.hex.encode()
    return b"".join((_ID, hexed, _CREATED, created, _RESULT, result, _EXCEPTION, exception, _DONE, done, AFTER_DONE))


def quick_call(body: bytes, limits: Limits) -> PRPCMessage | None:
    """A call in the common frame whose values are plain JSON; None for any other text, which is then read step by step."""
    tail = body[-_TAIL:]
    if not (
        body.startswith(_HEAD)
        and tail.startswith(_ID)
        and tail.startswith(_CREATED, _CREATED_AT)
        and tail.endswith(_NOT_DONE)
        and len(tail) == _TAIL
    ):
        return None
    middle = b'{"func_name": ' + body[_HEAD_LENGTH:-_TAIL] + b"}"
    try:
        fields = _read_json(middle)
        message_id = _read_uuid(b'"' + tail[_HEX_AT:_CREATED_AT] + b'"')
        created = read_stamp(tail[_STAMP_AT:_NOT_DONE_AT])
    except (ValueError, RecursionError):
        return None
    values = _plain_values(fields, middle)
    if values is None:
        return None
    if middle.count(b"[") > limits.max_depth:
        check_depth(values[1], limits.max_depth)
    return PRPCMessage(*values, message_id, created)


def _plain_values(fields: Any, middle: bytes) -> tuple[str, Any, dict[str, Any]] | None:
    """Name and arguments, where nothing in them can hide a tag or a key that stands twice."""
    if len(fields) != 3:
        return None
    name, args, kwargs = fields.get("func_name"), fields.get("func_args"), fields.get("func_kwargs")
    colons = 3
    if type(args) is dict:
        args = args.get("py/tuple")
        if type(args) is not list:
            return None
        args = tuple(args)
        colons = 4
    # Every key brings its colon: where the count is that of the keys known here, there is no other key and none twice.
    if type(name) is not str or type(kwargs) is not dict or middle.count(b":") != colons + len(kwargs):
        return None
    if kwargs and (middle.count(b'"py/') != colons - 3 or b"\\" in middle):
        return None
    if type(args) is not tuple and type(args) is not list:
        return None
    return name, args, kwargs
