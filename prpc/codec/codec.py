"""Bytes <-> messages: the one class that the client's and the server's wing use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from prpc.codec import frame
from prpc.codec.items import Items, read_items, write_item
from prpc.codec.jsontext import check_size, write_members, write_value
from prpc.codec.limits import Limits
from prpc.codec.outcome import failure_from_text, read_failure, write_failure
from prpc.codec.plain import PlainWalk
from prpc.codec.rawcall import read_raw
from prpc.codec.reader import Restorer, refuse
from prpc.codec.stamps import read_stamp, stamp
from prpc.codec.text import check_bounds, count_few, find_message_id, parse
from prpc.codec.values import DialectWalk
from prpc.exceptions import DecodeError, EncodeError
from prpc.failure import Failure
from prpc.prpcmessage import PRPCMessage

__all__ = ["Codec", "ReadReply", "WrittenReply"]

_read_uuid = msgspec.json.Decoder(UUID).decode
_read_plain_reply = msgspec.json.Decoder(tuple[UUID, Any, Any, str]).decode
#: Names of functions whose heads are kept ready.
_MAX_HEADS = 512
#: Largest refused text that is parsed once more for its id alone.
_MAX_REPARSE = 1024 * 1024


# Neither is frozen, as of all that is made for every call: that costs three times as much.
@dataclass(slots=True)
class WrittenReply:
    """One outcome as text."""

    #: The whole done message, for the key that is kept.
    body: bytes
    #: `[id, result, failure or null, date]`, for the mailbox of the caller; empty where the caller has none.
    wake: bytes


@dataclass(slots=True)
class ReadReply:
    """One outcome as a caller sees it."""

    message_id: UUID
    #: What the function returned; None where it failed.
    result: Any
    failure: Failure | None
    date_done_message: datetime


class Codec:
    """Writes and reads every text that goes over a broker. One object serves many threads."""

    def __init__(self, limits: Limits = Limits(), *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:  # noqa: B008
        self._limits = limits
        self._now = now
        self._heads: dict[str, tuple[bytes, bytes]] = {}

    # Calls

    def write_call(self, message: PRPCMessage) -> bytes:
        """The text of a call that is not done. Raises EncodeError naming the argument that cannot be sent."""
        text = b"".join((*self._call_parts(message), frame.call_tail(message)))
        return check_size(text, self._limits, "the call")

    def read_call(self, body: bytes) -> PRPCMessage:
        """The call in a text. Raises DecodeError, with `message_id` where it can be read."""
        try:
            check_bounds(body, self._limits)
            return frame.quick_call(body, self._limits) or _call_of(self._fields(body))
        except (DecodeError, RecursionError) as exc:
            _raise_with_id(exc, body)

    def read_raw_call(self, body: bytes) -> PRPCMessage:
        """The call in a text of plain JSON. Raises DecodeError, with `message_id` where it can be read."""
        try:
            return read_raw(body, self._limits, self._now())
        except (DecodeError, RecursionError) as exc:
            _raise_with_id(exc, body)

    # Replies

    def write_reply(self, done: PRPCMessage, failure: Failure | None, *, for_us: bool) -> WrittenReply:
        """The outcome of a call.

        `for_us`: the caller reads its mailbox and knows what it sent, so the arguments stay away, and in place of the
        result of a failed call stands the failure's description. Any other caller gets its arguments back and the
        exception's text. Raises EncodeError naming the part of the result that cannot be sent.
        """
        stamped = stamp(_date_done(done))
        text = done.exception_info if failure is None else failure.message
        exception = b"null" if text is None else self._write(text, "exception_info")
        described = self._describe(failure or failure_from_text(text)) if text is not None and for_us else b"null"
        result = described if text is not None else self._write(done.result, "result")
        hexed = b"%032x" % done.message_id.int
        tail = frame.done_tail(hexed, done, result, exception, stamped)
        if not for_us:
            return WrittenReply(self._checked(b"".join((*self._call_parts(done), tail))), b"")
        body = self._checked(self._head(done.func_name)[1] + tail)
        pair = (b",null,", described) if text is not None else (b",", result, b",null")
        wake = b"".join((b'["', hexed, b'"', *pair, b',"', stamped, b'"]'))
        return WrittenReply(body, wake)

    def write_raw_reply(self, done: PRPCMessage) -> bytes:
        """The outcome of a call that came in plain JSON. Raises EncodeError naming the part that cannot be sent."""
        fields = {
            "func_name": done.func_name,
            "func_args": list(done.func_args),
            "func_kwargs": done.func_kwargs,
            "message_id": str(done.message_id),
            "date_create_message": done.date_create_message.isoformat(),
            "result": done.result,
            "exception_info": done.exception_info,
            "date_done_message": _date_done(done).isoformat(),
        }
        texts = {name: write_value(value, self._limits, PlainWalk, name) for name, value in fields.items()}
        parts = [b'"%s":%s' % (name.encode(), text) for name, text in texts.items()]
        return self._checked(b"{" + b",".join(parts) + b"}")

    def read_reply(self, body: bytes) -> ReadReply:
        """The outcome in a text, in the short form or as a whole message of ours or of another writer. Raises DecodeError."""
        try:
            check_bounds(body, self._limits)
            if body.startswith(b"["):
                return _short_reply(body, self._limits)
            done = frame.quick_done(body, self._limits)
            return _reply_of(self._fields(body)) if done is None else _reply(*done)
        except (DecodeError, RecursionError) as exc:
            _raise_with_id(exc, body)

    # Items of streams

    def write_item(self, value: Any, root: str) -> bytes:
        """The text of one item. Raises EncodeError, which names it by `root`."""
        return write_item(value, self._limits, root)

    def read_items(self, body: bytes) -> Items:
        """The items in a mail. Raises DecodeError."""
        return read_items(body, self._limits)

    # Parts

    def _checked(self, text: bytes) -> bytes:
        return check_size(text, self._limits, "result")

    def _write(self, value: Any, root: str) -> bytes:
        return write_value(value, self._limits, DialectWalk, root)

    def _head(self, func_name: str) -> tuple[bytes, bytes]:
        """The text up to the name, and the same up to the arguments of a call that has none."""
        found = self._heads.get(func_name)
        if found is None:
            if not isinstance(func_name, str):
                raise EncodeError("the name of the function is no text", path="func_name", type_name=type(func_name).__name__)
            try:
                start = frame.head(func_name)
            except ValueError:
                raise EncodeError("the name of the function holds lone surrogates", path="func_name", type_name="str") from None
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            found = self._heads[func_name] = start, start + frame.NO_ARGUMENTS
        return found

    def _call_parts(self, message: PRPCMessage) -> tuple[bytes, ...]:
        """The text up to and including the arguments."""
        args, kwargs = message.func_args, message.func_kwargs
        members = write_members(args, self._limits) if type(args) is tuple else None
        written = (b'{"py/tuple": ', members, b"}") if members is not None else (self._write(args, "func_args"),)
        for name in kwargs:
            if not isinstance(name, str):
                raise EncodeError("a keyword argument's name is no text", path="func_kwargs", type_name=type(name).__name__)
        keywords = self._write(kwargs, "func_kwargs") if kwargs else b"{}"
        return (self._head(message.func_name)[0], b', "func_args": ', *written, b', "func_kwargs": ', keywords)

    def _describe(self, failure: Failure) -> bytes:
        try:
            return self._write(write_failure(failure), "failure")
        except EncodeError:
            # Rather the name and the text alone than no answer.
            return self._write(write_failure(Failure(failure.type_name, failure.message, failure.bases)), "failure")

    def _fields(self, body: bytes) -> dict[str, Any]:
        """The fields of a whole message, restored in their order, which is that of the references."""
        tree, _ = parse(body)
        if type(tree) is not dict or tree.get("py/object") != frame.TYPE_NAME:
            raise refuse("the text is no PRPCMessage", "form")
        restorer = Restorer(self._limits)
        restorer.begin()
        fields: dict[str, Any] = {}
        for name, node in tree.items():
            if name != "py/object":
                if name.startswith(("py/", "json://")):
                    raise refuse(f"the tag {name[:40]!r} is not accepted in a message")
                fields[name] = restorer.restore(node)
        return fields


def _short_reply(body: bytes, limits: Limits) -> ReadReply:
    # Without a colon there is no key, and with that no tag.
    if b":" not in body and count_few(body, b"[", limits.max_depth) <= limits.max_depth:
        try:
            message_id, result, described, stamped = _read_plain_reply(body)
            if described is None:
                return ReadReply(message_id, result, None, read_stamp(stamped.encode()))
        except ValueError:
            pass  # said below what is wrong with it, if it is
    parts = frame.read_values(body, limits)
    if type(parts) is not list or len(parts) != 4:
        raise refuse("the reply has not four parts", "form")
    hexed, result, described, stamped = parts
    try:
        message_id, done = _read_uuid(b'"%s"' % hexed.encode()), read_stamp(stamped.encode())
    except (ValueError, AttributeError):
        raise refuse("the id or the date of a reply cannot be read", "form") from None
    return ReadReply(message_id, result, None if described is None else read_failure(described), done)


def _date_done(done: PRPCMessage) -> datetime:
    if done.date_done_message is None:
        raise EncodeError("a reply needs the date of its end", path="date_done_message", type_name="NoneType")
    return done.date_done_message


def _call_of(fields: dict[str, Any]) -> PRPCMessage:
    name, args, kwargs = fields.get("func_name"), fields.get("func_args"), fields.get("func_kwargs")
    if type(name) is not str:
        raise refuse("func_name is no text", "form")
    if type(args) is not tuple and type(args) is not list:
        raise refuse("func_args is no list and no tuple", "form")
    if type(kwargs) is not dict or not all(type(key) is str for key in kwargs):
        raise refuse("func_kwargs is no object", "form")
    return PRPCMessage(name, args, kwargs, _id_of(fields), _date_of(fields, "date_create_message"))


def _reply_of(fields: dict[str, Any]) -> ReadReply:
    message_id, done = _id_of(fields), _date_of(fields, "date_done_message")
    return _reply(message_id, fields.get("result"), fields.get("exception_info"), done)


def _reply(message_id: UUID, result: Any, text: Any, done: datetime) -> ReadReply:
    if text is None:
        return ReadReply(message_id, result, None, done)
    if type(text) is not str:
        raise refuse("exception_info is no text", "form")
    described = read_failure(result) if type(result) is dict else failure_from_text(text)
    return ReadReply(message_id, None, described, done)


def _id_of(fields: dict[str, Any]) -> UUID:
    found = fields.get("message_id")
    if type(found) is not UUID:
        raise refuse("message_id is no uuid", "form")
    return found


def _date_of(fields: dict[str, Any], name: str) -> datetime:
    found = fields.get(name)
    if type(found) is not datetime or found.tzinfo is None:
        raise refuse(f"{name} is no date with a time zone", "form")
    try:
        found.astimezone(UTC)  # as which it is written: the first and the last hours of all have none
    except OverflowError:
        raise refuse(f"{name} is no date in UTC", "form") from None
    return found


def _raise_with_id(exc: DecodeError | RecursionError, body: bytes) -> NoReturn:
    """The refusal with what is known of whom to answer."""
    if isinstance(exc, DecodeError):
        error = exc
    else:
        error = refuse("the values are nested too deep", "depth")
    error.message_id = _readable_id(body)
    raise error from None


def _readable_id(body: bytes) -> str | None:
    if len(body) <= _MAX_REPARSE:
        try:
            tree, _ = parse(body)
        except DecodeError:
            tree = None
        node = tree.get("message_id") if type(tree) is dict else None
        text = node.get("hex") if type(node) is dict else node
        if type(text) is str and len(text) in (32, 36):
            try:
                return str(UUID(text))
            except ValueError:
                return None
    return find_message_id(body)
