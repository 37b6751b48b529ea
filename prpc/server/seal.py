"""The server's seal: what comes in must be signed, what goes out is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prpc.brokers.base import Delivery, Reply
from prpc.codec.signing import CONTROL, MAIL, REPLY, Signatures, signatures_of

__all__ = ["Seal"]


class Seal:
    """Checks deliveries, mail and control messages, signs replies and mail. Without a key it lets everything through as it is."""

    def __init__(self, secret_key: str, queue: str, now: Callable[[], float]) -> None:
        """`now`: seconds by the broker's clock."""
        self._signatures: Signatures | None = signatures_of(secret_key, queue)
        self._now = now

    def check(self, delivery: Delivery, body: bytes) -> None:
        """Raise DecodeError (reason "signature") for a call that must not be believed."""
        if self._signatures is not None:
            entered = self._now() - delivery.age
            self._signatures.check_call(body, delivery.facts, entered, raw=delivery.raw)

    def open_control(self, body: bytes) -> bytes:
        """The control message. Raises DecodeError where it must not be believed."""
        return body if self._signatures is None else self._signatures.open(CONTROL, body)

    def mail(self, body: bytes) -> bytes:
        """The mail, signed."""
        return body if self._signatures is None else self._signatures.sign(MAIL, body)

    def open_mail(self, body: bytes) -> bytes:
        """The mail that came. Raises DecodeError where it must not be believed."""
        return body if self._signatures is None else self._signatures.open(MAIL, body)

    def control(self, body: bytes) -> bytes:
        """The control message, signed."""
        return body if self._signatures is None else self._signatures.sign(CONTROL, body)

    def reply(self, reply: Reply) -> Reply:
        """The reply, signed."""
        signatures = self._signatures
        if signatures is None:
            return reply
        wake = signatures.sign(REPLY, reply.wake) if reply.wake else reply.wake
        return replace(reply, body=signatures.sign(REPLY, reply.body), wake=wake)
