"""Signatures: who holds the key wrote this message, for this queue, with these facts. No I/O, no clock.

HMAC-SHA256 over netstrings (`5:hello,`): "prpc 1", the kind, the queue, the message, and for a call every fact beside it as
name and value, sorted by name. A call carries it as the fact `signature`; replies, mail and control messages as their last
member, so that whoever has no key still reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest, digest

from prpc.codec.text import find_message_id
from prpc.exceptions import DecodeError

__all__ = ["CONTROL", "MAIL", "REPLY", "SIGNATURE", "SIGNED_MS", "Signatures", "signatures_of"]

#: The facts that a signed call carries: the signature, and when it was made (milliseconds, by the broker's clock).
SIGNATURE, SIGNED_MS = "signature", "signed_ms"
#: Kinds of messages: none passes for one of another kind.
CALL, RAW_CALL, REPLY, CONTROL, MAIL = b"call", b"raw call", b"reply", b"control", b"mail"
#: Most seconds between signing a call and its entry into the queue: within them ids are remembered (at most once). A call with
#: a deadline has no longer than that, but at least LEAST_DELAY, for clocks are never quite the same.
MOST_DELAY, LEAST_DELAY = 300.0, 5.0

_VERSION = b"6:prpc 1,"
_DIGITS = 64
#: Bracket that ends a text -> what stands before the signature that is put in front of it.
_OPENINGS = {b"}": b', "signature": "', b"]": b',"'}


def signatures_of(secret_key: str, queue: str) -> Signatures | None:
    """The signatures of a queue by the setting `secret_key`; None where it is empty: nothing is signed or checked."""
    return Signatures(secret_key, queue) if secret_key else None


class Signatures:
    """Signs and checks the messages of one queue. Never shows its keys."""

    __slots__ = ("_keys", "_queue")

    def __init__(self, secret_key: str, queue: str) -> None:
        """`secret_key`: one or several keys, separated by commas; the first signs, any may have signed."""
        self._keys = tuple(key.strip().encode("utf-8", "surrogateescape") for key in secret_key.split(","))
        self._queue = queue.encode()

    def sign_call(self, body: bytes, facts: Mapping[str, str], now: float, *, raw: bool = False) -> dict[str, str]:
        """The facts with the signature and its time. `now`: seconds by the broker's clock."""
        signed = {**facts, SIGNED_MS: str(round(now * 1000))}
        signed[SIGNATURE] = self._sign(self._call_text(body, signed, raw)).decode()
        return signed

    def check_call(self, body: bytes, facts: Mapping[str, str], entered: float, *, raw: bool = False) -> None:
        """Raise DecodeError, with `message_id` where it can be seen, unless a key signed exactly this, and just before it entered
        the queue (`entered`: seconds by the broker's clock)."""
        problem = self._problem(body, facts, entered, raw)
        if problem is not None:
            raise DecodeError(f"the call {problem}", reason="signature", message_id=find_message_id(body))

    def sign(self, kind: bytes, text: bytes) -> bytes:
        """A reply, mail or control message, which is a JSON object or list, with its signature as the last member."""
        end = text[-1:]
        return b"".join((text[:-1], _OPENINGS[end], self._sign(self._text(kind, text)), b'"', end))

    def open(self, kind: bytes, text: bytes) -> bytes:
        """The text that `sign` was given. Raises DecodeError unless a key signed exactly this."""
        end = text[-1:]
        opening = _OPENINGS.get(end, b"")
        start = len(text) - _DIGITS - 2
        if not opening or not text.startswith(opening, start - len(opening)) or text[-2:-1] != b'"':
            raise DecodeError("it is not signed", reason="signature")
        inner = text[: start - len(opening)] + end
        if not self._verify(text[start:-2], self._text(kind, inner)):
            raise DecodeError("its signature is wrong", reason="signature")
        return inner

    def _problem(self, body: bytes, facts: Mapping[str, str], entered: float, raw: bool) -> str | None:
        """What is wrong with a call; nothing of its content."""
        signature = facts.get(SIGNATURE)
        if signature is None:
            return "is not signed"
        if not self._verify(signature, self._call_text(body, facts, raw)):
            return "has a wrong signature"
        signed, timeout = _milliseconds(facts, SIGNED_MS), _milliseconds(facts, "timeout_ms")
        if signed is None:
            return "does not say when it was signed"
        most = MOST_DELAY if timeout is None else min(MOST_DELAY, max(LEAST_DELAY, timeout))
        delay = entered - signed
        if not -MOST_DELAY <= delay <= most:
            return f"was signed {abs(delay):.0f} s {'before' if delay > 0 else 'after'} it came into the queue"
        return None

    def _call_text(self, body: bytes, facts: Mapping[str, str], raw: bool) -> bytes:
        names = sorted(name for name in facts if name != SIGNATURE)
        texts = [text for name in names for text in (name, facts[name])]
        beside = "".join([f"{len(text)}:{text}," for text in texts])
        if beside.isascii():
            written = beside.encode()
        else:  # the lengths are those of the bytes
            coded = [text.encode("utf-8", "surrogatepass") for text in texts]
            written = b"".join([b"%d:%b," % (len(text), text) for text in coded])
        return self._text(RAW_CALL if raw else CALL, body, written)

    def _text(self, kind: bytes, message: bytes, beside: bytes = b"") -> bytes:
        head = b"%b%d:%b,%d:%b,%d:" % (_VERSION, len(kind), kind, len(self._queue), self._queue, len(message))
        return b"".join((head, message, b",", beside))

    def _sign(self, text: bytes) -> bytes:
        return digest(self._keys[0], text, "sha256").hex().encode()

    def _verify(self, signature: str | bytes, text: bytes) -> bool:
        if isinstance(signature, str):
            signature = signature.encode("utf-8", "surrogatepass")
        return any(compare_digest(digest(key, text, "sha256").hex().encode(), signature) for key in self._keys)


def _milliseconds(facts: Mapping[str, str], name: str) -> float | None:
    text = facts.get(name, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 16 else None
