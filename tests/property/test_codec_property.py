"""The codec against stock jsonpickle as oracle, both ways, and against itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import jsonpickle
from hypothesis import given, settings
from hypothesis import strategies as st

from prpc.codec import Codec, Limits
from prpc.exceptions import DecodeError, EncodeError
from prpc.failure import Failure
from prpc.prpcmessage import PRPCMessage

CODEC = Codec()
ID = UUID("8dcd1fcc737c44c5b0799b8ffce37566")
NOW = datetime(2026, 11, 20, 8, 6, 55, 591876, UTC)

offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zones = st.sampled_from([UTC, timezone(timedelta(hours=2), "two"), ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")]) | offsets
fixed = st.sampled_from([UTC, timezone(timedelta(hours=-3), "west")]) | offsets
texts = st.text() | st.sampled_from(
    ["", "py/tuple", "json://1", "py/", "\x00", "\ud800", "a\udfff", "é☃𝄞", '"', "\\u0070y/id", ":"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=40)
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes(timezones=st.none() | zones)
    | st.times(timezones=st.none() | fixed)
    | st.timedeltas()
    | st.complex_numbers(allow_nan=False)
    | st.builds(PurePosixPath, st.text("abc./", max_size=8))
    | st.builds(PureWindowsPath, st.text("abc.", max_size=8))
    | fixed
)
hashables = st.recursive(
    scalars,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
keys = texts | hashables


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(texts, inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.frozensets(hashables, max_size=4)
    )


values = st.recursive(scalars, containers, max_leaves=20)
names = st.text().filter(lambda name: not name.startswith("py/"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5),
    max_leaves=30,
)


def call(args: Any, kwargs: dict[str, Any]) -> PRPCMessage:
    return PRPCMessage("summ", args, kwargs, ID, NOW)


def types_of(value: Any) -> Any:
    """The value's types all the way down, for True is 1 and 1.0 to `==`."""
    if isinstance(value, (list, tuple)):
        return type(value), [types_of(member) for member in value]
    if isinstance(value, dict):
        return type(value), sorted(repr((types_of(key), types_of(member))) for key, member in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(types_of(member)) for member in value)
    if isinstance(value, float):
        return type(value), math.copysign(1, value)
    return type(value)


def same(one: Any, other: Any) -> None:
    assert one == other
    assert types_of(one) == types_of(other)


@settings(deadline=None, max_examples=60)
@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(texts, values, max_size=3))
def test_a_call_comes_back_as_it_was_and_stock_reads_it_alike(args: Any, kwargs: dict[str, Any]) -> None:
    message = call(args, kwargs)
    body = CODEC.write_call(message)
    read = CODEC.read_call(body)
    assert read == message
    same(read.func_args, args)
    same(read.func_kwargs, kwargs)
    stock = jsonpickle.decode(body.decode(), keys=True)
    assert stock == message
    same(stock.func_args, args)
    same(stock.func_kwargs, kwargs)


@settings(deadline=None, max_examples=60)
@given(values, st.lists(values, max_size=2), st.booleans())
def test_a_result_comes_back_as_it_was_and_stock_reads_it_alike(result: Any, args: list[Any], for_us: bool) -> None:
    done = call(args, {}).done(NOW, result)
    written = CODEC.write_reply(done, None, for_us=for_us)
    stock = jsonpickle.decode(written.body.decode(), keys=True)
    assert stock.result == result and stock.date_done_message == NOW and stock.message_id == ID
    same(stock.result, result)
    assert stock.func_args == (() if for_us else args)
    for body in (written.body, written.wake) if for_us else (written.body,):
        reply = CODEC.read_reply(body)
        same(reply.result, result)
        assert (reply.message_id, reply.failure, reply.date_done_message) == (ID, None, NOW)


#: What a search for tags stops at.
STOPS = ['"py/', "py/tuple", "json://", "/", "//", "\\", "\\/", "\\u0070y/", ":", "[", "{", '"', "x" * 300]
long_texts = st.lists(st.sampled_from(STOPS), max_size=90).map(lambda parts: "x" * 1100 + "".join(parts))


@settings(deadline=None, max_examples=100)
@given(long_texts, st.sampled_from([lambda text: text, lambda text: [text], lambda text: {"k": text}, lambda text: (text, 1)]))
def test_long_texts_come_back_as_they_were(text: str, put: Callable[[str], Any]) -> None:
    value = put(text)
    read = CODEC.read_call(CODEC.write_call(call((value,), {})))
    same(read.func_args, (value,))
    read = CODEC.read_call(CODEC.write_call(call((), {"a": value})))
    same(read.func_kwargs, {"a": value})
    written = CODEC.write_reply(call((), {}).done(NOW, value), None, for_us=True)
    for body in (written.body, written.wake):
        same(CODEC.read_reply(body).result, value)


@settings(deadline=None, max_examples=100)
@given(long_texts, st.sampled_from(["py/object", "py/reduce", "json://1", "py\\/type", "\\u0070y/object"]), st.booleans())
def test_a_tag_is_seen_behind_a_long_text(text: str, tag: str, before: bool) -> None:
    tagged = f'{{"{tag}": "os.system"}}'
    members = [json.dumps(text), tagged] if before else [tagged, json.dumps(text)]
    body = CODEC.write_call(call(("THIS",), {})).replace(b'"THIS"', ", ".join(members).encode())
    reply = b'["%s",[%s],null,"B+oLFAgGNwlBBA=="]' % (ID.hex.encode(), ", ".join(members).encode())
    for read in (lambda: CODEC.read_call(body).func_args, lambda: CODEC.read_reply(reply).result):
        try:
            found = read()[before]
        except DecodeError:
            continue
        assert not any(str(key).startswith(("py/", "json://")) for key in found)


def survives_stock(value: Any) -> bool:
    """Whether stock jsonpickle itself brings a value back, which it does not with keys that look like tags."""
    try:
        back = jsonpickle.decode(jsonpickle.encode(value, keys=True), keys=True)
    except Exception:
        return False
    return bool(back == value and types_of(back) == types_of(value))


@settings(deadline=None, max_examples=60)
@given(st.lists(values, max_size=4), st.data())
def test_what_stock_writes_is_read_with_all_its_references(pool: list[Any], data: st.DataObject) -> None:
    # A key that begins like a tag is refused by us; stock takes those that are none of its tags.
    shared = [value for value in pool if survives_stock(value) and '"py/"' not in jsonpickle.encode(value, keys=True)]
    if not shared:
        return
    pick = st.sampled_from(shared)
    args = tuple(data.draw(st.lists(pick | st.lists(pick, max_size=3) | st.tuples(pick, pick), max_size=4)))
    message = call(args, {"k": data.draw(pick), "j": [data.draw(pick)]})
    text = jsonpickle.encode(message, keys=True)
    if not survives_stock(message):
        return  # an oracle that errs is none: it loses count where a key is escaped
    read = CODEC.read_call(text.encode())
    assert read == message
    same(read.func_args, args)
    done = message.done(NOW, [*shared, args])
    if not survives_stock(done):
        return
    reply = CODEC.read_reply(jsonpickle.encode(done, keys=True).encode())
    same(reply.result, done.result)


@settings(deadline=None, max_examples=60)
@given(plain, st.dictionaries(names, plain, max_size=3))
def test_raw_calls_bring_what_json_reads(arg: Any, kwargs: dict[str, Any]) -> None:
    text = json.dumps({"func_name": "f", "func_args": [arg], "func_kwargs": kwargs, "message_id": str(ID)})
    message = CODEC.read_raw_call(text.encode())
    same(message.func_args, [arg])
    same(message.func_kwargs, kwargs)
    answer = json.loads(CODEC.write_raw_reply(message.done(NOW, arg)))
    same(answer["result"], arg)


@settings(deadline=None, max_examples=60)
@given(values)
def test_raw_replies_are_json_that_every_language_reads(value: Any) -> None:
    done = call((), {}).done(NOW, value)
    try:
        text = CODEC.write_raw_reply(done)
    except EncodeError as exc:
        assert exc.path is not None and exc.path.startswith("result")
        return

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(text, parse_constant=refuse)


failures = st.recursive(
    st.builds(Failure, texts, texts, facts=st.dictionaries(st.text(), plain, max_size=2)),
    lambda inner: st.builds(
        Failure,
        type_name=texts,
        message=texts,
        bases=st.lists(texts, max_size=3).map(tuple),
        traceback=texts,
        notes=st.lists(texts, max_size=3).map(tuple),
        cause=inner,
        explicit_cause=st.booleans(),
        members=st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60)
@given(failures)
def test_a_failure_comes_back_as_it_was(failure: Failure) -> None:
    written = CODEC.write_reply(call((), {}).done(NOW, None, failure.message), failure, for_us=True)
    for body in (written.body, written.wake):
        reply = CODEC.read_reply(body)
        assert reply.failure == failure and reply.result is None
    stock = jsonpickle.decode(written.body.decode(), keys=True)
    assert stock.exception_info == failure.message


SMALL = Codec(Limits(max_bytes=10_000, max_depth=10, max_items=200))
SEEDS = [
    CODEC.write_call(call((1, [2, {"a": (1, 2)}], {3}, NOW, ID, b"x", frozenset({1})), {"z": {1: 2, (3, 4): 5}})),
    CODEC.write_reply(call((), {}).done(NOW, {"a": [1, (2, 3)]}), None, for_us=True).wake,
    CODEC.write_reply(
        call((), {}).done(NOW, None), Failure("builtins.KeyError", "'k'", cause=Failure("a", "b")), for_us=True
    ).body,
    jsonpickle.encode(call(([1], {"a": [NOW]}), {"k": Decimal("1.5")}), keys=True).encode(),
    json.dumps({"func_name": "f", "func_args": [1, {"py/b64": "AA=="}], "message_id": str(ID)}).encode(),
]
FRAGMENTS = [
    b'{"py/id": 0}',
    b'{"py/id": 3}',
    b'{"py/tuple": [',
    b'{"py/set": [[]]}',
    b'"json://[]": 1',
    b'{"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]}',
    b'{"py/object": "x.Y", "a": 1}',
    b'{"py/b64": "!"}',
    b'"py/object": "x"',
    b'"\\ud800"',
    b"NaN",
    b"1" * 30,
    b"1e999",
    b"null",
    b"{}",
    b"\xff",
    *(bytes([character]) for character in b'[]{}",:-0\\'),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        end = min(len(body), at + draw(st.integers(0, 30)))
        body[at:end] = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=6))
    return bytes(body)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | mutated())
def test_any_bytes_are_read_or_refused_with_a_decode_error(body: bytes) -> None:
    for codec in (CODEC, SMALL):
        for read in (codec.read_call, codec.read_raw_call, codec.read_reply):
            try:
                read(body)
            except DecodeError as exc:
                assert exc.reason in ("json", "tag", "size", "depth", "items", "form")
                assert exc.message_id is None or str(UUID(exc.message_id)) == exc.message_id


TAGS = ["tuple", "set", "id", "b64", "object", "reduce", "type", "state", "seq", "newargs", "newargsex", "function"]
NAMES = ["uuid.UUID", "datetime.datetime", "builtins.frozenset", "collections.OrderedDict", "builtins.complex", "x.Y"]
tag_keys = st.sampled_from([f"py/{tag}" for tag in TAGS] + ["__reduce__", "__dict__", "hex", "json://1", 'json://{"py/id": 0}'])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*NAMES, "B+oLFAgGNwlBBA=="]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tag_keys | st.text(), inner, max_size=4),
    max_leaves=25,
)


@settings(deadline=None, max_examples=300)
@given(json_values)
def test_any_tree_is_read_or_refused_with_a_decode_error(tree: Any) -> None:
    template = CODEC.write_call(call(("HERE",), {})).decode()
    body = template.replace('"HERE"', json.dumps(tree)).encode()
    try:
        CODEC.read_call(body)
    except DecodeError as exc:
        assert exc.message_id == str(ID)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SEEDS[:1]), st.integers(0, 3))
def test_reading_does_not_depend_on_blanks(seed: bytes, spaces: int) -> None:
    """The common frame is read by templates, any other way of writing the same JSON step by step: to the same message."""
    respaced = json.dumps(json.loads(seed), separators=("," + " " * spaces, " " * spaces + ":")).encode()
    assert CODEC.read_call(respaced) == CODEC.read_call(seed)
