"""An outcome as the reply that a broker hands over."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from prpc.brokers.base import Reply
from prpc.codec import Codec
from prpc.exceptions import DecodeError, EncodeError, PRPCError, SerializationError
from prpc.failure import Failure, failure_of, type_name_of
from prpc.prpcmessage import PRPCMessage
from prpc.server.outcomes import in_short
from prpc.server.seal import Seal

__all__ = ["ReplyWriter", "nameless_call"]


def nameless_call(message_id: UUID, when: datetime) -> PRPCMessage:
    """Stands for a call of which nothing but the id could be read."""
    return PRPCMessage(func_name="", func_args=(), func_kwargs={}, message_id=message_id, date_create_message=when)


class ReplyWriter:
    """Writes replies; a result that cannot be written becomes a failure, and no call is left without a reply."""

    def __init__(self, codec: Codec, seal: Seal | None) -> None:
        self._codec, self._seal = codec, seal

    def refusal(self, message_id: UUID, error: DecodeError, *, when: datetime, address: str | None, raw: bool) -> Reply | None:
        """What the sender of an entry that cannot be read is told; None where it gets no answer.

        Who did not sign learns no more than that, unsigned, and only in the mailbox that it names: it may not decide what the
        outcome of an id is.
        """
        call = nameless_call(message_id, when)
        if error.reason != "signature":
            return self.write(call, None, failure_of(error), when=when, address=address, raw=raw)[0]
        if address is None or raw:
            return None
        return self._written(call, None, failure_of(DecodeError("the server refused the call")), when, address, raw)

    def write(
        self, message: PRPCMessage, value: Any, failure: Failure | None, *, when: datetime, address: str | None, raw: bool
    ) -> tuple[Reply, Failure | None]:
        """The reply to `message`, which is done by this, and the failure that it tells of (None: it holds the value)."""
        try:
            return self._write(message, value, failure, when, address, raw), failure
        except SerializationError as exc:
            refused = _explained(message, exc)
        except BaseException as exc:  # code of the value's own class runs while it is written, and may raise anything
            text = f"the result of {message.func_name}() cannot be sent: {type_name_of(type(exc))}"
            refused = failure_of(EncodeError(text, type_name=type_name_of(type(value))))
        # What cannot be written may stand in the call: in the name, or in the arguments, where the function may have put it.
        name = message.func_name.encode(errors="replace").decode()
        bare = replace(message, func_name=name, func_args=(), func_kwargs={})
        known = failure or refused
        try:
            return self._write(bare, None, known, when, address, raw), known
        except SerializationError:  # what it tells is more than a message may hold
            return self._write(bare, None, in_short(known), when, address, raw), known

    def _write(
        self, message: PRPCMessage, value: Any, failure: Failure | None, when: datetime, address: str | None, raw: bool
    ) -> Reply:
        reply = self._written(message, value, failure, when, address, raw)
        return reply if self._seal is None else self._seal.reply(reply)

    def _written(
        self, message: PRPCMessage, value: Any, failure: Failure | None, when: datetime, address: str | None, raw: bool
    ) -> Reply:
        # In place: the message is this reply's alone, and a copy would cost as much as writing it.
        message.date_done_message = when
        message.result = value if failure is None else None
        message.exception_info = None if failure is None else failure.message
        if raw:
            return Reply(message.message_id, self._codec.write_raw_reply(message), address=address, raw=True)
        written = self._codec.write_reply(message, failure, for_us=address is not None)
        return Reply(message.message_id, written.body, address=address, wake=written.wake)


def _explained(message: PRPCMessage, error: PRPCError) -> Failure:
    path = getattr(error, "path", None) or "result"
    reason = str(error).removeprefix(f"{path} cannot be sent: ")
    where = "" if path == "result" else f"at {path if len(path) <= 80 else path[:77] + '...'}: "
    text = f"the result of {message.func_name}() cannot be sent: {where}{reason}"
    facts = {name: getattr(error, name) for name in error.facts}
    return failure_of(type(error)(text, **facts))
