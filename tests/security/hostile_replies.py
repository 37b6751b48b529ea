"""Hostile replies, control messages and announcements: the same ones for the same seed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from hostile_bodies import VALUES, changed_bytes, changed_tree, nested, reference_tree, tag_tree

from prpc.codec import Codec
from prpc.failure import Failure
from prpc.protocol.facts import write_cancel
from prpc.prpcmessage import PRPCMessage

__all__ = ["announcement", "broken_frame", "control", "garbage", "reply_body"]

_NOW = datetime(2026, 11, 20, tzinfo=UTC)
_CODEC = Codec()


def _reply(message_id: UUID, *, failed: bool = False) -> tuple[bytes, bytes]:
    """A good reply with a place in it: the long form and the short one."""
    done = PRPCMessage("echo", (), {}, message_id, _NOW).done(_NOW, None if failed else "HERE")
    written = _CODEC.write_reply(done, Failure("builtins.KeyError", "HERE") if failed else None, for_us=True)
    return written.body, written.wake


def new_id(rng: Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def reply_body(rng: Random) -> bytes:
    """A reply to nobody, damaged in any way."""
    text = rng.choice(_reply(new_id(rng), failed=rng.random() < 0.3)).decode()
    kind = rng.randrange(10)
    if kind == 0:
        return garbage(rng)
    if kind == 1:
        return changed_bytes(rng, text.encode())
    if kind == 2:
        return changed_tree(rng, text).encode("utf-8", "surrogatepass")
    if kind == 3:
        return text.replace('"HERE"', tag_tree(rng)).encode()
    if kind == 4:
        return text.replace('"HERE"', reference_tree(rng)).encode()
    if kind == 5:
        return text.replace('"HERE"', nested(rng, rng.choice((99, 101, 3000)))).encode()
    if kind == 6:
        return text.replace('"HERE"', json.dumps(rng.choice(VALUES))).encode()
    if kind == 7:
        parts: list[Any] = [rng.choice(VALUES) for _ in range(rng.randrange(6))]
        return json.dumps([new_id(rng).hex, *parts] if rng.random() < 0.5 else parts).encode()
    if kind == 8:
        return json.dumps([new_id(rng).hex, None, _failure(rng), "B+oLFAAAAAAAAA=="]).encode()
    return text.encode()


def _failure(rng: Random) -> Any:
    """The description of an exception that nobody would write."""
    tree: Any = {"type_name": rng.choice(("os.system", "builtins.SystemExit", "", "prpc.exceptions.X", 1)), "message": "m"}
    for name in rng.sample(("bases", "traceback", "notes", "cause", "explicit_cause", "members", "facts"), 3):
        tree[name] = rng.choice(VALUES)
    for _ in range(rng.choice((0, 0, 5, 60))):
        tree = {"type_name": "builtins.KeyError", "message": "m", "cause": tree}
    return tree


def garbage(rng: Random) -> bytes:
    """What is no reply in any dialect, and names no id."""
    return rng.choice(
        (
            b"",
            b"\0",
            b"null",
            b"[]",
            b"{}",
            b"[[[[",
            b'"x"',
            b"\xff\xfe",
            rng.randbytes(40),
            b"[" * 5000,
            b"9" * 5000,
            b"\x80\x04.",
        )
    )


def broken_frame(rng: Random) -> bytes:
    """A payload that does not begin with a length."""
    return rng.choice(
        (
            b"x",
            b"12",
            b":",
            b":abc",
            b"-5:abcde",
            b"\xff:a",
            b"5 :abcde",
            b"0x1:a",
            b"9" * 17 + b":a",
            b" 1:a",
            b"1.0:a",
            b"\n1:a",
        )
    )


#: Control messages that are refused, and such that are read and mean nothing to anybody.
_REFUSED: tuple[bytes, ...] = (
    *(
        b"",
        b"{",
        b"\xff",
        b"\0",
        b'{"cancel": 5}',
        b'{"cancel": ["x"]}',
        b'{"cancel": [null]}',
        b'{"cancel": [5]}',
        b'{"cancel": "abc"}',
    ),
    *(
        b'{"cancel": {"a": 1}}',
        b'{"cancel": [[]]}',
        b'{"cancel": true}',
        b"[" * 100_000,
        b'{"cancel": [' + b"9" * 5000 + b"]}",
        b"x" * 100_000,
    ),
    *(b'{"event": []}', b'{"event": 5}', b'{"event": {}}', b'{"event": {"message": "x"}}', b'{"event": {"sent_ms": "1"}}'),
    *(b'{"event": {"message": 5, "sent_ms": "1"}}', b'{"event": {"message": "{}", "sent_ms": 1}}'),
    *(
        b'{"event": {"message": "x", "sent_ms": "1", "headers": "["}}',
        b'{"event": {"message": "x", "sent_ms": "1"}, "cancel": [1]}',
    ),
    *(b'{"event": {"message": "{}", "sent_ms": "1"}}', b'{"event": {"message": "\\ud800", "sent_ms": "1", "raw": "1"}}'),
    *(b'{"cancel": [1e400]}', b'{"cancel": ["' + b"0" * 31 + b'"]}', b'{"cancel": [{"hex": "0"}]}'),
)
_READ: tuple[bytes, ...] = (
    b"{}",
    b"[]",
    b"null",
    b"5",
    b'"x"',
    b"NaN",
    b'{"cancel": []}',
    b'{"cancel": {}}',
    b'{"other": [1]}',
    b'{"event": null}',
    b'[{"cancel": 1}]',
)


def control(rng: Random) -> tuple[bytes, bool]:
    """A control message, and whether a server says that it refuses it."""
    if rng.random() < 0.6:
        return rng.choice(_REFUSED), True
    if rng.random() < 0.3:
        return write_cancel([new_id(rng) for _ in range(rng.choice((1, 3, 2000)))]), False
    return rng.choice(_READ), False


_SCORES = ("inf", "-inf", "0", "-1e308", "1e308", "5", "99999999999999")
_RECORDS: tuple[bytes, ...] = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"[]",
        b"null",
        b"5",
        b"{",
        b"{}",
        b"[" * 5000,
        b'{"prpc_ttl_ms": "x"}',
        b'{"prpc_ttl_ms": null}',
        b'{"prpc_ttl_ms": []}',
    ),
    *(b'{"prpc_ttl_ms": 1' + b"0" * 400 + b"}", b'{"prpc_ttl_ms": NaN}', b'{"prpc_ttl_ms": -1e308}', b'{"prpc_ttl_ms": 1e400}'),
    *(
        b'{"calls": [1, null, {"running": "x"}, {"running": NaN, "left": Infinity}]}',
        b'{"calls": {"a": 1}, "functions": 5, "running": []}',
    ),
    *(
        b'{"draining": [1], "running": 1' + b"0" * 400 + b', "schema": {"a": []}}',
        b'{"host": "\\u001b[31m\\n\\ud800", "pid": "x", "capacity": -1}',
    ),
    *(b'{"calls": [{"id": [], "function": {}, "left": "x", "running": -1e308}]}', b'{"running": true, "calls": "abc"}'),
)


def announcement(rng: Random) -> tuple[bytes, str, bytes]:
    """Name, score in the set, and record of a server that is none."""
    name = rng.choice((b"", b"\xff\xfe", b"\0", b"a\nb", b"*", "\u2603".encode(), b"x" * 3000, rng.randbytes(6)))
    return name + b"%d" % rng.randrange(1000), rng.choice(_SCORES), rng.choice(_RECORDS)
