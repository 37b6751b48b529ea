"""Hostile texts of messages, made from good ones: by bytes, by their tree, and from lists of values that nobody expects."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from hostile_tags import attacks

from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage

__all__ = [
    "CANARY_FILE",
    "CANARY_MODULE",
    "VALUES",
    "call_text",
    "changed_bytes",
    "changed_tree",
    "nested",
    "raw_text",
    "reference_tree",
    "sample",
    "tag_tree",
]

#: A module that the attacks want imported. There is none of this name, and nobody may look for it.
CANARY_MODULE = "prpc_hostile_canary"
#: What the attacks would make, if one of their commands were run.
CANARY_FILE = "/tmp/prpc_attacked"

_CODEC = Codec()
_CAPTURED = json.loads((Path(__file__).parent.parent / "data" / "wire_samples.json").read_text())["jsonpickle"]
#: The calls that an earlier implementation wrote: whether they are plain JSON, their text, and the id in it.
_SAMPLES: list[tuple[bool, str, str]] = []
for _cases in _CAPTURED.values():
    for _name, _case in _cases.items():
        _tree = json.loads(_case["call"])
        _id = _tree["message_id"]
        _SAMPLES.append((_name.startswith("raw_"), _case["call"], _id["hex"] if isinstance(_id, dict) else _id))
_TREES = list(attacks(CANARY_MODULE).values())

#: What stands where something else is wanted.
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    float("-inf"),
    2**63,
    -(2**64),
    10**400,
    "",
    "\0",
    "\ud800",
    "\u2028\r\n",
    "x" * 5000,
    [],
    [[]],
    {},
    {"": ""},
    {"a": {"b": [None]}},
    {"py/tuple": []},
    {"py/set": [1, 1]},
    {"py/b64": "AA=="},
    {"py/id": 1},
    {"py/object": "prpc.prpcmessage.PRPCMessage"},
    {"py/object": "uuid.UUID", "hex": "0" * 32},
    {"json://1": 1},
    "8dcd1fcc-737c-44c5-b079-9b8ffce37566",
    "2026-11-20T00:00:00",
    "0001-01-01T00:00:00+14:00",
]


def sample(rng: Random, message_id: UUID, *, raw: bool) -> str:
    """A captured call under a new id."""
    _, text, old = rng.choice([found for found in _SAMPLES if found[0] == raw])
    return text.replace(old, str(message_id) if raw else message_id.hex)


def call_text(message_id: UUID, name: str = "echo", args: str = '"HERE"', kwargs: str = "{}") -> str:
    """A call with these texts for its arguments."""
    message = PRPCMessage("NAME", ("ARGS",), {"KWARGS": 1}, message_id, datetime(2026, 11, 20, tzinfo=UTC))
    text = _CODEC.write_call(message).decode()
    return text.replace('"NAME"', json.dumps(name)).replace('"ARGS"', args).replace('{"KWARGS":1}', kwargs)


def raw_text(message_id: UUID, name: str = "echo", args: str = '"HERE"', kwargs: str = "{}") -> str:
    """The same in plain JSON."""
    head = f'{{"func_name": {json.dumps(name)}, "func_args": [{args}], "func_kwargs": {kwargs}'
    return f'{head}, "message_id": "{message_id}"}}'


# By bytes.


def _truncate(rng: Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body))]


def _behead(rng: Random, body: bytes) -> bytes:
    return body[rng.randrange(1, len(body)) :]


def _flip(rng: Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut_out(rng: Random, body: bytes) -> bytes:
    start = rng.randrange(len(body))
    return body[:start] + body[start + rng.randrange(1, 40) :]


def _repeat(rng: Random, body: bytes) -> bytes:
    start = rng.randrange(len(body))
    end = start + rng.randrange(1, 60)
    return body[:end] + body[start:end] * rng.choice((1, 2, 100)) + body[end:]


def _insert(rng: Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    choices = (b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"\\u0000", b"{", b"]", b",", b"\n", rng.randbytes(9), b" " * 999)
    return body[:at] + rng.choice(choices) + body[at:]


def _splice(rng: Random, body: bytes) -> bytes:
    other = _SAMPLES[rng.randrange(len(_SAMPLES))][1].encode()
    return body[: rng.randrange(len(body))] + other[rng.randrange(len(other)) :]


def _reverse(rng: Random, body: bytes) -> bytes:
    return body[::-1]


def _recode(rng: Random, body: bytes) -> bytes:
    return body.decode("latin-1").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp500")))


def _requote(rng: Random, body: bytes) -> bytes:
    return body.replace(b'"', rng.choice((b"'", b'\\"', b"", b'""', b"\xe2\x80\x9c")))


def _renumber(rng: Random, body: bytes) -> bytes:
    return body.replace(
        rng.choice((b"1", b"2", b"0")), rng.choice((b"9" * 5000, b"-", b"1e999", b"0x1", b"01", b"1.", b"NaN")), 3
    )


_BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_truncate, _behead, _flip, _flip, _flip, _cut_out, _repeat, _insert, _insert, _splice, _reverse, _recode),
    *(_requote, _renumber),
)


def changed_bytes(rng: Random, body: bytes) -> bytes:
    """The text, damaged in one or two ways."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        if body:
            body = rng.choice(_BYTES)(rng, body)
    return body


# By the tree.


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree with every key or index in it."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        found += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    return found


def changed_tree(rng: Random, text: str) -> str:
    """The text of the tree with one or two of its nodes replaced, removed, renamed or moved."""
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2))):
        places = _places(tree)
        if not places:
            break
        node, key = rng.choice(places)
        how = rng.randrange(5)
        if how == 0:
            del node[key]
        elif how == 1 and isinstance(node, dict):
            node[rng.choice(("py/object", "py/tuple", "py/type", "message_id", "hex", "", "json://1", "\0"))] = node.pop(key)
        elif how == 2:
            other, moved = rng.choice(places)
            node[key] = deepcopy(other[moved])
        elif how == 3:
            node[key] = deepcopy(rng.choice(_TREES))
        else:
            node[key] = deepcopy(rng.choice(VALUES))
    return json.dumps(tree, ensure_ascii=rng.random() < 0.9)


# From lists.


def tag_tree(rng: Random) -> str:
    """A tree that makes stock jsonpickle run something, as it stands or hidden behind escapes and other trees."""
    tree = rng.choice(_TREES)
    for _ in range(rng.choice((0, 0, 1, 3))):
        tree = rng.choice(([tree], {"a": tree}, {"py/tuple": [1, tree]}, {"py/object": "x.Y", "b": tree}, {"py/set": [tree]}))
    text = json.dumps(tree)
    return text.replace('"py/', rng.choice(('"py/', '"py/', r'"\u0070y/', r'"py\/', r'"p\u0079/')))


def reference_tree(rng: Random) -> str:
    """References to nothing, to themselves, to the message, to what comes later, and to references of references."""
    kind = rng.randrange(4)
    if kind == 0:
        return json.dumps([{"py/id": rng.choice((0, 1, 2, -1, 10**9, 2**70, 1.0, "1", True, None, [], 10**400))}])
    if kind == 1:
        levels = rng.choice((1, 3, 4, 9, 11))
        tens = ("[" + ",".join([f'{{"py/id": {2 + level}}}'] * 10) + "]" for level in range(levels))
        return "[" + ",".join(["[1]", *tens]) + "]"
    if kind == 2:
        return "[[1]" + "".join(f', [{{"py/id": {2 + level}}}]' for level in range(rng.randrange(200))) + "]"
    return json.dumps([{"a": [{"py/id": rng.randrange(6)} for _ in range(rng.randrange(1, 8))]}, {"py/id": rng.randrange(12)}])


_OPENINGS = ("[", '{"a":', '{"py/tuple": [', '{"py/set": [', '{"py/object": "x.Y", "a":', '{"json://1":')


def nested(rng: Random, levels: int) -> str:
    """Containers inside one another, closed or left open."""
    opening = rng.choice(_OPENINGS)
    closing = "".join({"[": "]", "{": "}"}[c] for c in reversed(opening) if c in "[{")
    return opening * levels + rng.choice(("1", "NaN", "", '"x"')) + closing * (levels if rng.random() < 0.8 else 0)
