"""An outcome as the reply that a broker hands over."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from prpc.brokers.base import Reply
from prpc.codec import Codec
from prpc.exceptions import EncodeError, PRPCError, SerializationError
from prpc.failure import Failure, failure_of
from prpc.prpcmessage import PRPCMessage

__all__ = ["ReplyWriter", "nameless_call"]


def nameless_call(message_id: UUID, when: datetime) -> PRPCMessage:
    """Stands for a call of which nothing but the id could be read."""
    return PRPCMessage(func_name="", func_args=(), func_kwargs={}, message_id=message_id, date_create_message=when)


class ReplyWriter:
    """Writes replies; a result that cannot be written becomes a failure, and no call is left without a reply."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def write(
        self, message: PRPCMessage, value: Any, failure: Failure | None, *, when: datetime, address: str | None, raw: bool
    ) -> tuple[Reply, Failure | None]:
        """The reply to `message`, which is done by this, and the failure that it tells of (None: it holds the value)."""
        try:
            return self._write(message, value, failure, when, address, raw), failure
        except SerializationError as exc:
            refused = _explained(message, exc)
        except (Exception, SystemExit) as exc:  # code of the value's own class may run while it is written
            text = f"the result of {message.func_name}() cannot be written: {type(exc).__name__}"
            refused = failure_of(EncodeError(text, type_name=type(value).__name__))
        failure = failure or refused
        # The arguments are left out: the function may have put something into them that cannot be written either.
        bare = PRPCMessage(message.func_name, (), {}, message.message_id, message.date_create_message)
        return self._write(bare, None, failure, when, address, raw), failure

    def _write(
        self, message: PRPCMessage, value: Any, failure: Failure | None, when: datetime, address: str | None, raw: bool
    ) -> Reply:
        done = message
        done.date_done_message = when
        done.result = value if failure is None else None
        done.exception_info = None if failure is None else failure.message
        if raw:
            return Reply(done.message_id, self._codec.write_raw_reply(done), address=address, raw=True)
        written = self._codec.write_reply(done, failure, for_us=address is not None)
        return Reply(done.message_id, written.body, address=address, wake=written.wake)


def _explained(message: PRPCMessage, error: PRPCError) -> Failure:
    text = f"the result of {message.func_name}() cannot be sent: {error}"
    facts = {name: getattr(error, name) for name in error.facts}
    return failure_of(type(error)(text, **facts))
