"""What travels beside a message: the facts of one call, and the control messages. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from prpc.exceptions import DecodeError, EncodeError

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_HEADERS_BYTES",
    "CallFacts",
    "Control",
    "Event",
    "read_cancel",
    "read_control",
    "reply_address",
    "write_cancel",
    "write_event",
]

#: Most bytes of the headers of one call, as JSON.
MAX_HEADERS_BYTES = 16 * 1024
#: Most bytes of an event's control message: Kafka takes 1 MiB in a topic that nobody set up otherwise.
MAX_EVENT_BYTES = 1_000_000
#: Longest reply address, in characters.
MAX_ADDRESS = 200
#: Most arguments of one call that are streams.
MAX_FEEDS = 16
#: Seconds from which on a deadline is none: some 3,000 years. `timedelta.max` is longer.
NO_DEADLINE = 1e11


class CallFacts(NamedTuple):
    """The facts of one call, beside its message. A tuple, as each side makes one for every call."""

    #: Mailbox of the caller; None where it named none (it reads the result's key).
    reply_to: str | None = None
    #: Seconds that were left to the call when it was sent; the broker's clock counts from there. None without a deadline.
    timeout: float | None = None
    #: Hash of the function's signature that the caller's stub was made from.
    schema: str | None = None
    #: What the caller set with `options(headers=...)`.
    headers: Mapping[str, str] = MappingProxyType({})
    #: Which of the caller's attempts this is, from 1; all of one call have the same message id.
    attempt: int = 1
    #: Items that the caller takes from a streaming function before its first word; None where it expects a single result.
    window: int | None = None
    #: Places or names of the arguments that are streams.
    feeds: tuple[str, ...] = ()

    def to_fields(self) -> dict[str, str]:
        """As fields of an entry; what is not set is left out."""
        fields: dict[str, str] = {}
        if self.reply_to is not None:
            fields["reply_to"] = self.reply_to
        if self.timeout is not None and self.timeout < NO_DEADLINE:
            fields["timeout_ms"] = str(max(0, round(self.timeout * 1000)))
        if self.schema is not None:
            fields["schema"] = self.schema
        if self.headers:
            fields["headers"] = json.dumps(dict(self.headers), ensure_ascii=False)
        if self.attempt > 1:
            fields["attempt"] = str(self.attempt)
        if self.window is not None:
            fields["stream"] = str(self.window)
        if self.feeds:
            fields["feeds"] = ",".join(self.feeds)
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> CallFacts:
        """Read them back. Raises DecodeError where a field cannot be read; unknown fields are left alone."""
        reply_to, timeout_ms, schema = fields.get("reply_to"), fields.get("timeout_ms"), fields.get("schema")
        known = (reply_to is not None) + (timeout_ms is not None) + (schema is not None)
        if known == len(fields) and reply_to is not None and timeout_ms is not None:  # the common call
            if _is_count(timeout_ms) and _is_address(reply_to):
                return cls(reply_to, int(timeout_ms) / 1000, schema, {})
        headers, attempt, window = fields.get("headers"), fields.get("attempt"), fields.get("stream")
        if timeout_ms is not None and not _is_count(timeout_ms):
            raise DecodeError(f"field timeout_ms={timeout_ms[:40]!r} is no number of milliseconds", reason="form")
        if attempt is not None and not _is_count(attempt):
            raise DecodeError(f"field attempt={attempt[:40]!r} is no number", reason="form")
        if window is not None and not (_is_count(window) and int(window) > 0):
            raise DecodeError(f"field stream={window[:40]!r} is no number of items", reason="form")
        if reply_to is not None and not _is_address(reply_to):
            raise DecodeError(f"field reply_to={reply_to[:40]!r} is no reply address", reason="form")
        return cls(
            reply_to=reply_to,
            timeout=None if timeout_ms is None else int(timeout_ms) / 1000,
            schema=schema,
            headers={} if headers is None else _read_headers(headers),
            attempt=1 if attempt is None else int(attempt),
            window=None if window is None else int(window),
            feeds=_read_feeds(fields["feeds"]) if "feeds" in fields else (),
        )


def reply_address(fields: Mapping[str, str]) -> str | None:
    """The caller's mailbox; None where it named none, or what none can be called: brokers make channels and lists of it."""
    text = fields.get("reply_to", "")
    return text if _is_address(text) else None


def _is_address(text: str) -> bool:
    return 0 < len(text) <= MAX_ADDRESS and text.isprintable() and " " not in text


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _read_feeds(text: str) -> tuple[str, ...]:
    feeds = tuple(text.split(","))
    if len(set(feeds)) != len(feeds) or len(feeds) > MAX_FEEDS or not all(0 < len(feed) <= MAX_ADDRESS for feed in feeds):
        raise DecodeError(f"field feeds={text[:40]!r} is no list of arguments", reason="form")
    return feeds


def _read_headers(text: str) -> dict[str, str]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_HEADERS_BYTES:
        raise DecodeError(f"field headers is larger than {MAX_HEADERS_BYTES} bytes", reason="size")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DecodeError("field headers is no JSON", reason="json") from exc
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise DecodeError("field headers is no JSON object of texts", reason="form")
    return value


def write_cancel(message_ids: Iterable[UUID]) -> bytes:
    """The control message that cancels these calls."""
    return json.dumps({"cancel": [str(i) for i in message_ids]}).encode()


@dataclass(frozen=True, slots=True)
class Event:
    """A call of a broadcast function, on its way to every server of the queue."""

    #: The call's text, as the server got it that took the call.
    call: bytes
    #: When it was published: seconds since 1970 by the broker's clock.
    sent: float
    #: The call's headers, and the seconds that were left to it when it was published.
    facts: CallFacts = field(default_factory=CallFacts)
    #: Whether the text is plain JSON.
    raw: bool = False
    #: Whether annotations bind the arguments; they do not bind clients of before.
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Control:
    """A control message; empty where it is of a kind that is not known here."""

    cancelled: list[UUID] = field(default_factory=list)
    event: Event | None = None


def write_event(event: Event) -> bytes:
    """The control message of an event. Raises EncodeError for one of more than MAX_EVENT_BYTES."""
    fields = {"message": event.call.decode("utf-8", "surrogatepass"), "sent_ms": str(round(event.sent * 1000))}
    fields |= event.facts.to_fields()
    if event.raw:
        fields["raw"] = "1"
    if not event.strict:
        fields["loose"] = "1"
    body = json.dumps({"event": fields}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(body) > MAX_EVENT_BYTES:
        text = f"the call makes an event of {len(body)} bytes; at most {MAX_EVENT_BYTES} go to every server"
        raise EncodeError(text)
    return body


def read_control(body: bytes) -> Control:
    """What is said to every server of a queue. Raises DecodeError where it cannot be read."""
    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            return Control()
        cancelled, event = [UUID(i) for i in value.get("cancel", [])], value.get("event")
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise DecodeError("a control message cannot be read", reason="form") from exc
    return Control(cancelled, None if event is None else _read_event(event))


def read_cancel(body: bytes) -> list[UUID]:
    """The ids to cancel; empty for a control message of another kind. Raises DecodeError where it cannot be read."""
    return read_control(body).cancelled


def _read_event(fields: object) -> Event:
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise DecodeError("an event is no JSON object of texts", reason="form")
    text, sent_ms = fields.get("message"), fields.get("sent_ms", "")
    if text is None or not _is_count(sent_ms):
        raise DecodeError("an event does not say what is called and when it was sent", reason="form")
    call = text.encode("utf-8", "surrogatepass")
    if len(call) > MAX_EVENT_BYTES:
        raise DecodeError(f"an event of {len(call)} bytes; at most {MAX_EVENT_BYTES} are read", reason="size")
    given = CallFacts.from_fields({name: fields[name] for name in ("timeout_ms", "headers") if name in fields})
    return Event(call, int(sent_ms) / 1000, given, raw="raw" in fields, strict="loose" not in fields)
