"""The kinds of hostile entries."""

from __future__ import annotations

import json
from collections.abc import Callable

from hostile_bodies import VALUES, changed_bytes, changed_tree, nested, reference_tree, sample, tag_tree
from hostile_entries import Entry, Forge, entry_of

__all__ = ["KINDS", "LARGE", "large", "make"]

# What is no message.


def _no_message(forge: Forge) -> Entry:
    names = (b"", b"Message", b"message ", b"\xff\0", b"own", b"prpc_crashes", b"reason", b"body", b"messag", b"*", b"x" * 300)
    fields = [(forge.rng.choice(names), forge.rng.randbytes(forge.rng.randrange(40))) for _ in range(forge.rng.randrange(1, 6))]
    return Entry("no message", forge.maybe(), fields)


def _empty(forge: Forge) -> Entry:
    body = forge.rng.choice(
        (b"", b" ", b"\n\n", b"\0", b"\0" * 500, b"null", b"[]", b"{}", b'""', b"0", b"\xef\xbb\xbf{}", b"\xff\xfe")
    )
    return entry_of("empty", body, raw=forge.maybe())


def _no_json(forge: Forge) -> Entry:
    rng = forge.rng
    body = rng.choice(
        (rng.randbytes(rng.randrange(1, 300)), b"GET / HTTP/1.1\r\n\r\n", b"<xml/>", b"undefined", b"\x80\x04K\x01.", b"{'a': 1}")
    )
    return entry_of("no json", body, raw=forge.maybe())


# Good messages, damaged.


def _damaged(forge: Forge) -> Entry:
    raw = forge.maybe(0.3)
    body = changed_bytes(forge.rng, sample(forge.rng, forge.new_id(), raw=raw).encode())
    return entry_of("damaged", body, raw=raw)


def _other_tree(forge: Forge) -> Entry:
    raw = forge.maybe(0.3)
    return entry_of("other tree", changed_tree(forge.rng, sample(forge.rng, forge.new_id(), raw=raw)), raw=raw)


def _wrong_type(forge: Forge) -> Entry:
    """One attribute is something else, the id is as it should be."""
    rng, raw, message_id = forge.rng, forge.maybe(0.3), forge.new_id()
    tree = json.loads(sample(rng, message_id, raw=raw))
    name = rng.choice(("func_name", "func_args", "func_kwargs", "date_create_message", "result", "exception_info"))
    tree[name] = rng.choice(VALUES)
    return entry_of("wrong type", json.dumps(tree), raw=raw, named=message_id)


def _wrong_id(forge: Forge) -> Entry:
    raw = forge.maybe(0.3)
    tree = json.loads(sample(forge.rng, forge.new_id(), raw=raw))
    tree["message_id"] = forge.rng.choice(VALUES)
    return entry_of("wrong id", json.dumps(tree), raw=raw)


def _other_dialect(forge: Forge) -> Entry:
    """A good call in the other stream."""
    raw, message_id = forge.maybe(), forge.new_id()
    return entry_of("other dialect", sample(forge.rng, message_id, raw=not raw), raw=raw, named=message_id)


def _key_twice(forge: Forge) -> Entry:
    raw, message_id = forge.maybe(0.3), forge.new_id()
    text = forge.text(message_id, raw=raw)
    twice = forge.rng.choice(('"HERE", {"a":1,"a":2}', '"HERE", {"a":1,"\\u0061":2}', '[{"a":":","a":2}]'))
    changed = forge.rng.choice(
        (
            text.replace('"HERE"', twice),
            text.replace('"func_name"', '"func_name": "canary", "func_name"'),
            text.replace('"func_args"', '"func_args": [1], "func_args"'),
        )
    )
    return entry_of("key twice", changed, raw=raw, named=message_id)


# What an argument can do.


def _place(forge: Forge, kind: str, tree: str, *, raw: bool = False) -> Entry:
    """The tree at one of the places of a message that is good otherwise."""
    message_id = forge.new_id()
    place = forge.rng.randrange(5)
    if place == 0:
        text = forge.text(message_id, raw=raw, kwargs=f'{{"k": {tree}}}')
    elif place == 1:
        text = forge.text(message_id, raw=raw, kwargs=tree)
    elif place == 2 and not raw:
        text = forge.text(message_id, raw=raw).replace('{"py/tuple": ["HERE"]}', tree)
    else:
        text = forge.text(message_id, raw=raw, args=f'{{"a": [{tree}]}}' if place == 3 else tree)
    return entry_of(kind, text, raw=raw)


def _tags(forge: Forge) -> Entry:
    return _place(forge, "tags", tag_tree(forge.rng), raw=forge.maybe(0.1))


def _references(forge: Forge) -> Entry:
    return _place(forge, "references", reference_tree(forge.rng))


def _nesting(forge: Forge) -> Entry:
    levels = forge.rng.choice((90, 99, 100, 101, 500, 1500, 5000))
    return _place(forge, "nesting", nested(forge.rng, levels), raw=forge.maybe(0.3))


def _numbers(forge: Forge) -> Entry:
    digits = forge.rng.choice((1, 18, 19, 20, 308, 4299, 4300, 4301, 20_000))
    number = forge.rng.choice(
        ("9" * digits, "-" + "8" * digits, f"1e{digits}", f"1e-{digits}", f"0.{'3' * digits}", "NaN", "-Infinity", "-0")
    )
    return _place(forge, "numbers", number, raw=forge.maybe(0.3))


def _text(forge: Forge) -> Entry:
    raw, message_id = forge.maybe(0.3), forge.new_id()
    body = forge.text(message_id, raw=raw).encode()
    odd = (
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\0",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\x1b[2J",
        b"\xf4\x90\x80\x80",
        b"\\u0000",
        b"\r\n",
        b"\xe2\x80\xa8",
    )
    return entry_of("text", body.replace(b"HERE", forge.rng.choice(odd) * forge.rng.choice((1, 3))), raw=raw)


def _size(forge: Forge) -> Entry:
    """Just below, at and above the limit, and some whose answer is above it."""
    raw, message_id = forge.maybe(0.3), forge.new_id()
    body = forge.text(message_id, raw=raw)
    padding = forge.most_bytes - len(body) + forge.rng.choice((-2000, -1, 0, 1, 5000))
    return entry_of("size", body.replace("HERE", "x" * (padding + 4)), raw=raw, named=message_id)


# What stands beside a message.


def _many_fields(forge: Forge) -> Entry:
    rng, message_id, raw = forge.rng, forge.new_id(), forge.maybe(0.2)
    entry = entry_of(
        "many fields", forge.text(message_id, raw=raw, name=rng.choice(("echo", "nobody"))), raw=raw, named=message_id
    )
    more = [(b"f%d" % number, rng.randbytes(2)) for number in range(rng.choice((100, 2_000, 4_000)))]
    entry.fields[rng.randrange(2) : 0] = more
    return entry if forge.maybe(0.8) else Entry("many fields", raw, more)


_NUMBERS = (
    b"",
    b"-1",
    b"0",
    b"1e3",
    b"0x10",
    b"+5",
    b" 5",
    b"5 ",
    b"1.5",
    b"9" * 15,
    b"9" * 16,
    b"9" * 400,
    b"NaN",
    "\u0665".encode(),
    b"\xff",
    b"\0",
)
_HEADERS = (
    *(
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"a": 1}',
        b'{"a": null}',
        b'{"a": "b"}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": "a"}',
        b'{"": "\\u0000"}',
    ),
    *(
        b'{"a": ' + b"[" * 5000,
        b'{"a": "' + b"x" * 17_000 + b'"}',
        b'{"a":"b","a":"c"}',
        b"\xff\xfe",
        b'{"a": ' + b"9" * 5000 + b"}",
    ),
)
_FACTS: dict[bytes, tuple[bytes, ...]] = {
    b"timeout_ms": _NUMBERS,
    b"attempt": _NUMBERS,
    b"prpc_crashes": _NUMBERS,
    b"prpc_born_ms": _NUMBERS,
    b"headers": _HEADERS,
    b"schema": (b"", b"\xff", b"0" * 64, b"x" * 50_000, b"\0\n"),
    b"own": (b"", b"0-0", b"99999999999999999999-1", b"*", b"\xff\n", b"1-1"),
    b"signature": (b"", b"0" * 64, b"\xff"),
    b"signed_ms": _NUMBERS,
    b"message": (b"", b"{}", b"\xff"),
    b"reason": (b"x",),
    b"rest": (b"5:hello",),
    b"stream": (b"prpc_x",),
}


def _facts(forge: Forge) -> Entry:
    rng, message_id, raw = forge.rng, forge.new_id(), forge.maybe(0.2)
    name = rng.choice(("echo", *forge.headers, "boom", "boom_twice", "ping", "nobody"))
    args = "" if name == "ping" or name in forge.headers else '"HERE"'
    facts = [(fact, rng.choice(_FACTS[fact])) for fact in rng.sample(sorted(_FACTS), rng.choice((1, 1, 2, 4)))]
    entry = entry_of("facts", forge.text(message_id, raw=raw, name=name, args=args), raw=raw, more=facts)
    rng.shuffle(entry.fields)
    return entry


def _reply_to(forge: Forge) -> Entry:
    """Addresses that are none, that belong to somebody else, or that want to be several."""
    rng, message_id, raw = forge.rng, forge.new_id(), forge.maybe(0.2)
    theirs = rng.choice(forge.mailboxes).encode()
    odd = (
        b"",
        b"\n",
        b"*",
        b"\0",
        b"\xff",
        theirs,
        theirs + b"\n",
        b"a\n" + theirs,
        theirs + b" ",
        b"x" * 70_000,
        b"..",
        "\u2603".encode(),
        b"None",
    )
    name = rng.choice(("echo", "nobody", "boom"))
    text = forge.text(message_id, raw=raw, name=name, args=rng.choice(('"HERE"', '{"py/type": "x"}')))
    return entry_of("reply to", text, raw=raw, more=[(b"reply_to", rng.choice(odd))], named=message_id)


# Calls that are well written.


def _unknown(forge: Forge) -> Entry:
    rng, message_id, raw = forge.rng, forge.new_id(), forge.maybe(0.3)
    names = (
        "",
        "ech",
        "Echo",
        "echo ",
        "__import__",
        "os.system",
        "canary.x",
        "canary\0",
        "\ud800",
        "x" * 5000,
        "\r\nforged line",
        "ping.ping",
        "\x1b[31m",
    )
    return entry_of("unknown", forge.text(message_id, raw=raw, name=rng.choice(names)), raw=raw, named=message_id)


_ARGUMENTS: tuple[tuple[str, str, str], ...] = (
    ("summ", "", "{}"),
    ("summ", "1", '{"a": 1}'),
    ("summ", "1, 2, 3, 4", "{}"),
    ("summ", '"x", 2', "{}"),
    ("summ", "[1], {}", "{}"),
    ("typed", '"no number", "2026-11-20"', "{}"),
    ("typed", '1, "no date"', "{}"),
    ("typed", "1, 2", '{"name": []}'),
    ("typed", '1, "2026-11-20"', '{"nam": "x"}'),
    ("typed", '1, "2026-11-20"', '{"\\ud800": "x"}'),
    ("typed", '1e400, "0000-00-00"', '{"": "x"}'),
    ("join", '"no list"', "{}"),
    ("join", "[1, 2]", '{"between": null}'),
    ("canary", "1", "{}"),
    ("canary", "", '{"__class__": 1}'),
    ("ping", "1", "{}"),
    ("get_function_server", "", '{"a": 1}'),
    ("boom", '"text"', "{}"),
    ("boom", '"\\ud800"', "{}"),
    ("echo", "", '{"self": 1, "function": 2, "args": 3}'),
)


def _wrong_arguments(forge: Forge) -> Entry:
    name, args, kwargs = forge.rng.choice(_ARGUMENTS)
    raw, message_id = forge.maybe(0.3), forge.new_id()
    return entry_of(
        "wrong arguments", forge.text(message_id, raw=raw, name=name, args=args, kwargs=kwargs), raw=raw, named=message_id
    )


def _misbehaving(forge: Forge) -> Entry:
    rng, message_id, raw = forge.rng, forge.new_id(), forge.maybe(0.2)
    name = rng.choice(sorted(forge.misbehaving))
    what = rng.choice(forge.misbehaving[name])
    return entry_of("misbehaving", forge.text(message_id, raw=raw, name=name, args=json.dumps(what)), raw=raw, named=message_id)


def large(forge: Forge, number: int) -> Entry:
    """Several megabytes, in a message or beside it: what they name is unknown or cannot be."""
    message_id, much = forge.new_id(), 2_000_000
    texts = (
        forge.text(message_id, raw=False, name="x" * much),
        forge.text(message_id, raw=True, name="x" * much),
        forge.text(message_id, raw=False, name="typed", args='1, "2026-11-20"', kwargs=f'{{"{"n" * much}": 1}}'),
        forge.text(message_id, raw=False, args="[" + "1," * (much // 2) + '{"py/type": "x"}]'),
        forge.text(message_id, raw=False, args=json.dumps("\u2603" * (much // 3))),
        forge.text(message_id, raw=True, name="boom", args=json.dumps("m" * much)),
        forge.text(message_id, raw=False, name="typed", args=json.dumps("d" * much) + ', "2026-11-20"'),
        forge.text(message_id, raw=True, name="join", args="[" + "1," * (much // 8) + "1]"),
    )
    if number < len(texts):
        return entry_of("large", texts[number], raw=texts[number].startswith('{"func_name"'), named=message_id)
    names = (b"reply_to", b"headers", b"timeout_ms", b"schema", b"attempt", b"signature", b"own", b"x" * much)
    more = [(names[number - len(texts)], b"9" * much)]
    return entry_of("large", forge.text(message_id, raw=False), more=more, named=message_id)


#: How many different ones `large` makes.
LARGE = 16

#: Kind -> how it is made.
KINDS: dict[str, Callable[[Forge], Entry]] = {
    "no message": _no_message,
    "empty": _empty,
    "no json": _no_json,
    "damaged": _damaged,
    "other tree": _other_tree,
    "wrong type": _wrong_type,
    "wrong id": _wrong_id,
    "other dialect": _other_dialect,
    "key twice": _key_twice,
    "tags": _tags,
    "references": _references,
    "nesting": _nesting,
    "numbers": _numbers,
    "text": _text,
    "size": _size,
    "many fields": _many_fields,
    "facts": _facts,
    "reply to": _reply_to,
    "unknown": _unknown,
    "wrong arguments": _wrong_arguments,
    "misbehaving": _misbehaving,
}


def make(forge: Forge, kind: str) -> Entry:
    """An entry of this kind; some name a mailbox in which the answer is seen."""
    made = KINDS[kind](forge)
    if forge.maybe(0.2) and not any(name == b"reply_to" for name, _ in made.fields):
        made.fields.append((b"reply_to", forge.rng.choice(forge.mailboxes).encode()))
    return made
