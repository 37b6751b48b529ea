"""Hostile entries of the two streams, by kind: the same ones for the same seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from hostile_bodies import (
    VALUES,
    call_text,
    changed_bytes,
    raw_text,
)
from hostile_server import MISBEHAVING, MISBEHAVING_THERE

from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage

__all__ = ["Entry", "Fields", "Forge", "entry_of"]

Fields = list[tuple[bytes, bytes]]
_CODEC = Codec()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, to be put into a stream as it is."""

    kind: str
    raw: bool
    fields: Fields
    #: Id that stands in it for everybody to read: whoever named it must be answered. None where that is not so sure.
    message_id: UUID | None = None

    @property
    def body(self) -> bytes | None:
        """What a server reads: the last of several."""
        return dict(self.fields).get(b"message")

    def __str__(self) -> str:
        shown = {
            name[:60]: value if len(value) <= 700 else value[:500] + b" ... " + value[-150:] for name, value in self.fields[:8]
        }
        return f"{self.kind}{' (raw)' if self.raw else ''} {len(self.fields)} fields {shown}"


class Forge:
    """Makes entries. `mailboxes`: reply addresses that somebody reads. `processes`: whether there are process workers."""

    def __init__(self, rng: Random, mailboxes: Sequence[str], most_bytes: int, *, processes: bool) -> None:
        self.rng, self.mailboxes, self.most_bytes = rng, mailboxes, most_bytes
        self.misbehaving = MISBEHAVING | (MISBEHAVING_THERE if processes else {})
        self.headers = ("headers", "headers_there") if processes else ("headers",)

    def double(self, message: PRPCMessage) -> Entry:
        """An entry with the id of a good call: the same text, a damaged one, another call, or another dialect."""
        rng, raw = self.rng, self.maybe(0.2)
        text = _CODEC.write_call(message)
        tree = json.loads(text)
        tree[rng.choice(("func_name", "func_args", "func_kwargs", "date_create_message"))] = rng.choice(VALUES)
        named = self.text(message.message_id, raw=raw, name=rng.choice(("canary", "boom", "nobody", "gate")), args="1")
        bodies = (text, text, changed_bytes(rng, text), json.dumps(tree).encode(), text[:-1], named.encode())
        fields = [(b"message", rng.choice(bodies))]
        if self.maybe():
            fields.append((b"reply_to", rng.choice((self.rng.choice(self.mailboxes).encode(), b"nobody", b"a\nb", b""))))
        if self.maybe(0.3):
            fields.append((b"attempt", rng.choice((b"2", b"7", b"x"))))
        return Entry("double", raw, fields)

    def new_id(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128), version=4)

    def maybe(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def text(self, message_id: UUID, *, raw: bool, name: str = "echo", args: str = '"HERE"', kwargs: str = "{}") -> str:
        return (raw_text if raw else call_text)(message_id, name, args, kwargs)


def entry_of(kind: str, body: str | bytes, *, raw: bool = False, more: Fields | None = None, named: UUID | None = None) -> Entry:
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    return Entry(kind, raw, [(b"message", body), *(more or [])], named)
