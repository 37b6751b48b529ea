"""Mail that is no reply: told by its kind, checked, and handed to whoever knows this kind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from prpc.client.call import Call
from prpc.codec.signing import MAIL, Signatures
from prpc.exceptions import DecodeError
from prpc.protocol.mail import kind_of, read_progress
from prpc.protocol.pending import PendingCalls

__all__ = ["MailDesk", "MailHandler", "hear_progress"]

logger = logging.getLogger("prpc.client")

#: Takes one mail of its kind, without the signature. Raises DecodeError where it cannot be read.
MailHandler = Callable[[bytes], object]


class MailDesk:
    """Sorts the mail of one queue. In its loop's thread."""

    def __init__(self, where: str, signatures: Signatures | None, handlers: Mapping[str, MailHandler]) -> None:
        """`where`: queue and broker, for the log. `signatures`: None where nothing is signed."""
        self._where, self._signatures, self._handlers = where, signatures, handlers

    def receive(self, body: bytes) -> None:
        """Hand on a text that begins as mail does. A kind that nobody knows, as of later versions, is left alone."""
        kind = kind_of(body)
        handler = None if kind is None else self._handlers.get(kind)
        if handler is None:
            logger.debug("mail of an unknown kind on %s", self._where)
            return
        try:
            handler(body if self._signatures is None else self._signatures.open(MAIL, body))
        except DecodeError as exc:
            logger.warning("mail (%s) on %s was refused: %s", kind, self._where, exc)


def hear_progress(pending: PendingCalls[Call], body: bytes) -> None:
    """A MailHandler: note it at its call; one that has ended hears nothing any more. Raises DecodeError."""
    message_id, progress = read_progress(body)
    call = pending.get(message_id)
    if call is not None:
        call.note(progress)
