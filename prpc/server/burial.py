"""What becomes of entries that cannot be served: a dead letter for a person, and a word to the caller."""

from __future__ import annotations

from collections.abc import Awaitable
from uuid import UUID

from prpc.brokers.base import Delivery
from prpc.deadline import Clock
from prpc.exceptions import DecodeError
from prpc.failure import describe, failure_of
from prpc.protocol.facts import reply_address
from prpc.server.logs import logger
from prpc.server.outcomes import details_of
from prpc.server.replies import ReplyWriter, nameless_call

__all__ = ["Burial"]


class Burial:
    """Both methods start the burial; what they return ends with it, as `Delivery.bury` says."""

    def __init__(self, replies: ReplyWriter, clock: Clock) -> None:
        self._replies, self._clock = replies, clock

    def refused(self, delivery: Delivery, error: DecodeError, message_id: UUID | None) -> Awaitable[bool]:
        """An entry that cannot be read, or must not be believed. `message_id`: None where not even that is known."""
        logger.warning(
            "an entry was refused and is kept as a dead letter: %s",
            error,
            extra={"message_id": None if message_id is None else str(message_id), "reason": error.reason},
        )
        reply = None
        if message_id is not None:
            now, address = self._clock.now(), reply_address(delivery.facts)
            reply = self._replies.refusal(message_id, error, when=now, address=address, raw=delivery.raw)
        details, believed = details_of(failure_of(error)), error.reason != "signature"
        return delivery.bury(error.reason or "refused", reply, details=details, keep=believed, claim=believed)

    def given_up(self, delivery: Delivery, caller: tuple[UUID, str | None] | None, error: BaseException) -> Awaitable[bool]:
        """A fault of the server's own. `caller`: id of the call and its reply address; None where the entry was not read."""
        logger.error("an entry could not be handled and is kept as a dead letter", exc_info=error)
        reply, failure = None, describe(error)
        if caller is not None:
            call = nameless_call(caller[0], self._clock.now())
            reply, _ = self._replies.write(
                call, None, failure, when=call.date_create_message, address=caller[1], raw=delivery.raw
            )
        return delivery.bury("internal error", reply, details=details_of(failure))
