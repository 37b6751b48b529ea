"""What attackers send: every text is read as data or refused with a DecodeError, and nothing in it is ever run."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonpickle
import pytest
from hostile_tags import attacks

from prpc.codec import Codec, Limits
from prpc.exceptions import DecodeError
from prpc.failure import Failure, restore
from prpc.prpcmessage import PRPCMessage

ID = UUID("8dcd1fcc737c44c5b0799b8ffce37566")
NOW = datetime(2026, 11, 20, tzinfo=UTC)
CODEC = Codec()
CALL = CODEC.write_call(PRPCMessage("summ", ("HERE",), {"k": 1}, ID, NOW)).decode()
REPLY = CODEC.write_reply(PRPCMessage("summ", (), {}, ID, NOW).done(NOW, "HERE"), None, for_us=False).body.decode()
WAKE = CODEC.write_reply(PRPCMessage("summ", (), {}, ID, NOW).done(NOW, "HERE"), None, for_us=True).wake.decode()


class Ran(Exception):
    """Something named in a message was run."""


@pytest.fixture
def tripwires(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A module that must not be imported, and an __import__ that knows every name."""
    name = "prpc_attack_module"
    (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    real, known = builtins.__import__, set(sys.modules)

    def watched(wanted: str, *args: Any, **kwargs: Any) -> Any:
        if wanted.split(".")[0] in (name, "antigravity", "this"):
            raise Ran(wanted)
        return real(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    yield name
    assert not {module for module in set(sys.modules) - known if module.startswith((name, "antigravity", "this"))}


PLACES = {
    "argument": lambda tree: CALL.replace('"HERE"', tree),
    "in a list": lambda tree: CALL.replace('"HERE"', f"[[{tree}]]"),
    "in an object": lambda tree: CALL.replace('"HERE"', f'{{"a": {{"b": {tree}}}}}'),
    "in a foreign object": lambda tree: CALL.replace('"HERE"', f'{{"py/object": "x.Y", "b": {tree}}}'),
    "keyword": lambda tree: CALL.replace('{"k":1}', f'{{"k": {tree}}}'),
    "arguments": lambda tree: CALL.replace('{"py/tuple": ["HERE"]}', tree),
    "keywords": lambda tree: CALL.replace('{"k":1}', tree),
    "name": lambda tree: CALL.replace('"summ"', tree),
    "id": lambda tree: CALL.replace(f'{{"py/object": "uuid.UUID", "hex": "{ID.hex}"}}', tree),
    "result": lambda tree: CALL.replace('"result": null', f'"result": {tree}'),
    "extra field": lambda tree: CALL.replace('"result": null', f'"result": null, "extra": {tree}'),
}


@pytest.mark.parametrize("attack", attacks("m"))
def test_a_call_that_attacks_is_refused_and_runs_nothing(attack: str, tripwires: str) -> None:
    for place, put in PLACES.items():
        body = put(json.dumps(attacks(tripwires)[attack])).encode()
        assert body != CALL.encode()
        with pytest.raises(DecodeError) as caught:
            CODEC.read_call(body)
        assert caught.value.reason in ("tag", "form", "json")
        if place != "id":
            assert caught.value.message_id == str(ID)


@pytest.mark.parametrize("attack", attacks("m"))
def test_a_reply_that_attacks_is_refused_and_runs_nothing(attack: str, tripwires: str) -> None:
    for text in (REPLY, WAKE):
        body = text.replace('"HERE"', json.dumps(attacks(tripwires)[attack]))
        assert body != text
        with pytest.raises(DecodeError):
            CODEC.read_reply(body.encode())


@pytest.mark.parametrize("attack", attacks("m"))
def test_a_raw_call_with_tags_is_refused_or_data(attack: str, tripwires: str) -> None:
    tree = attacks(tripwires)[attack]
    body = json.dumps({"func_name": "f", "func_args": [tree], "message_id": str(ID)}).encode()
    try:
        message = CODEC.read_raw_call(body)
    except DecodeError as exc:
        assert exc.message_id == str(ID)
    else:
        assert message.func_args == [tree]  # no tag in it: plain data, keys like json:// included
        assert not any(key.startswith("py/") for key in tree)


@pytest.mark.parametrize("attack", ["reduce import", "type", "object in type"])
def test_stock_jsonpickle_would_have_run_it(attack: str, tripwires: str) -> None:
    """The tripwires are real: they catch the stock reader."""
    with pytest.raises((Ran, SystemExit)):
        jsonpickle.decode(json.dumps(attacks(tripwires)[attack]), keys=True)


@pytest.mark.parametrize("escape", [r"\u0070y/type", r"py\/type", r"p\u0079/type", r"py\u002ftype"])
def test_a_tag_behind_an_escape_is_seen(escape: str, tripwires: str) -> None:
    for tree in (f'{{"{escape}": "{tripwires}.X"}}', f'[{{"a": {{"{escape}": "{tripwires}.X"}}}}]'):
        for body in (CALL.replace('"HERE"', tree), CALL.replace('{"k":1}', f'{{"k": {tree}}}')):
            with pytest.raises(DecodeError) as caught:
                CODEC.read_call(body.encode())
            assert caught.value.reason == "tag"
        with pytest.raises(DecodeError):
            CODEC.read_reply(WAKE.replace('"HERE"', tree).encode())


def test_text_that_only_looks_like_a_tag_is_text() -> None:
    for text in ('{"py/type": "os.system"}', "py/id", "json://1", '", "py/tuple": ["', "a:b:c", '\\u0070y/id"'):
        message = PRPCMessage("f", (text, [text], {"k": text}), {"k": text}, ID, NOW)
        assert CODEC.read_call(CODEC.write_call(message)) == message


@pytest.mark.parametrize(
    "body",
    [
        CALL.replace('"func_kwargs": {"k":1}', '"func_kwargs": {"k":1,"k":2}'),
        CALL.replace('"func_kwargs"', '"func_args": [3], "func_kwargs"'),
        CALL.replace('"HERE"', '{"a":1,"a":2}'),
        CALL.replace('"HERE"', '[{"a":{"b":[],"b":":"}}]'),
        CALL.replace('"HERE"', r'{"a":"\u003a","a":2}'),
        CALL.replace('"HERE"', r'{"a":":","a":"\u003a\u003a"}'),
        CALL.replace('"HERE"', r'{"a":1,"\u0061":2}'),
        CALL.replace('"HERE"', '{"py/tuple":[1],"py/tuple":[2]}'),
        CALL.replace('"result": null', '"result": null, "result": 1'),
        CALL.replace('"func_name"', '"func_name": "other", "func_name"'),
        CALL.replace('"message_id"', '"message_id": 1, "message_id"'),
    ],
)
def test_a_key_that_stands_twice_is_refused(body: str) -> None:
    assert body != CALL
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(body.encode())
    assert caught.value.reason == "json"


def test_a_key_that_stands_twice_in_a_reply_or_a_raw_call_is_refused() -> None:
    for tree in ('{"a":1,"a":2}', '[{"a":":","a":2}]'):
        for text in (WAKE, REPLY):
            with pytest.raises(DecodeError):
                CODEC.read_reply(text.replace('"HERE"', tree).encode())
        with pytest.raises(DecodeError):
            CODEC.read_raw_call(f'{{"func_name":"f","func_args":[{tree}],"message_id":"{ID}"}}'.encode())


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"py/tuple": [', '{"py/set": [', '{"py/object": "x.Y", "a":', '{"json://1":'])
@pytest.mark.parametrize("levels", [101, 1_000, 100_000])
def test_what_is_nested_too_deep_is_refused(opening: str, levels: int) -> None:
    closing = "".join({"[": "]", "{": "}"}[c] for c in reversed(opening) if c in "[{")
    tree = opening * levels + "1" + closing * levels
    for text, read in ((CALL, CODEC.read_call), (REPLY, CODEC.read_reply), (WAKE, CODEC.read_reply)):
        with pytest.raises(DecodeError) as caught:
            read(text.replace('"HERE"', tree).encode())
        assert caught.value.reason == "depth"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("levels", [101, 1_000, 100_000])
def test_a_raw_call_that_is_nested_too_deep_is_refused(opening: str, levels: int) -> None:
    tree = opening * levels + "1" + ("]" if opening == "[" else "}") * levels
    with pytest.raises(DecodeError) as caught:
        CODEC.read_raw_call(f'{{"func_name":"f","func_args":[{tree}],"message_id":"{ID}"}}'.encode())
    assert caught.value.reason == "depth"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[" * 1000 + "NaN", '{"py/reduce": [' * 5000, "[NaN," * 50_000]
)
def test_endless_openings_are_refused(text: str) -> None:
    for read in (CODEC.read_call, CODEC.read_reply, CODEC.read_raw_call):
        for body in (text, CALL.replace('"HERE"', text)):
            with pytest.raises(DecodeError):
                read(body.encode())


def test_reduces_inside_one_another_are_refused() -> None:
    opening, closing = '{"py/reduce": [{"py/type": "builtins.frozenset"}, {"py/tuple": [', "]}]}"
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(CALL.replace('"HERE"', opening * 300 + "[]" + closing * 300).encode())
    assert caught.value.reason in ("depth", "form")


def test_keys_inside_keys_are_read_and_counted_as_deep() -> None:
    key: Any = 1
    for _ in range(8):
        key = {"py/tuple": ["json://", key]}
    value = CODEC.read_call(CALL.replace('"HERE"', json.dumps({"json://" + json.dumps(key): 1})).encode()).func_args[0]
    assert len(value) == 1
    for _ in range(100):
        key = {"py/tuple": [key]}
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(CALL.replace('"HERE"', json.dumps({"json://" + json.dumps(key): 1})).encode())
    assert caught.value.reason == "depth"


def test_a_text_over_the_limit_is_refused_unread() -> None:
    codec = Codec(Limits(max_bytes=1000))
    for read in (codec.read_call, codec.read_raw_call, codec.read_reply):
        with pytest.raises(DecodeError) as caught:
            read(CALL.replace("HERE", "x" * 1000).encode())
        assert caught.value.reason == "size" and caught.value.message_id == str(ID)


def test_a_hundred_megabytes_are_refused() -> None:
    body = CALL.encode().replace(b"HERE", b"x" * 100_000_000)
    for read in (CODEC.read_call, CODEC.read_raw_call, CODEC.read_reply):
        with pytest.raises(DecodeError) as caught:
            read(body)
        assert caught.value.reason == "size"
        assert caught.value.message_id == str(ID)


@pytest.mark.parametrize("unit", ["1,", "[],", '"",', "{},", '{"a":1},', '",",', '"\\"",'])
def test_too_many_items_are_refused_before_they_are_built(unit: str) -> None:
    codec = Codec(Limits(max_items=100_000))
    body = CALL.replace('"HERE"', f"[{unit * 200_000}1]").encode()
    with pytest.raises(DecodeError) as caught:
        codec.read_call(body)
    assert caught.value.reason == "items"


def test_a_long_text_of_commas_is_one_item() -> None:
    codec = Codec(Limits(max_items=100))
    text = 'a,[{"' * 1000
    message = PRPCMessage("f", (text,), {}, ID, NOW)
    assert codec.read_call(codec.write_call(message)) == message


def laughs(levels: int) -> str:
    """Lists of ten references each to the one before: small to write, 10**levels to walk."""
    tens = ("[" + ",".join([f'{{"py/id": {2 + level}}}'] * 10) + "]" for level in range(levels))
    return "[" + ",".join(["[1]", *tens]) + "]"


def test_references_to_references_count_as_often_as_they_stand() -> None:
    assert len(CODEC.read_call(CALL.replace('"HERE"', laughs(3)).encode()).func_args[0][3]) == 10
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(CALL.replace('"HERE"', laughs(9)).encode())
    assert caught.value.reason == "items"


def test_references_cannot_dig_deeper_than_the_limit() -> None:
    chain = "[1]"
    for level in range(120):
        chain += f', [{{"py/id": {2 + level}}}]'
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(CALL.replace('"HERE"', f"[{chain}]").encode())
    assert caught.value.reason == "depth"


@pytest.mark.parametrize("digits", [4301, 100_000, 3_000_000])
def test_huge_numbers_are_refused(digits: int) -> None:
    for number in ("1" * digits, "-" + "9" * digits):
        for body in (CALL.replace('"HERE"', number), CALL.replace('"HERE"', f'{{"json://{number}": NaN}}')):
            with pytest.raises(DecodeError) as caught:
                CODEC.read_call(body.encode())
            assert caught.value.reason == "json"


def test_huge_numbers_are_refused_where_python_itself_would_take_them() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for other in ("1", "NaN"):
            with pytest.raises(DecodeError):
                CODEC.read_call(CALL.replace('"HERE"', f"[{other}, {'1' * 100_000}]").encode())
    finally:
        sys.set_int_max_str_digits(before)


def test_large_numbers_are_exact() -> None:
    number = int("9" * 4300)
    assert CODEC.read_call(CALL.replace('"HERE"', str(number)).encode()).func_args == (number,)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64, -(2**63) - 1, 2**70, 10**300])
def test_numbers_over_64_bits_stay_exact_ints(number: int) -> None:
    for values in ((number,), ([number], 1.5), ({"a": number},)):
        message = PRPCMessage("f", values, {"k": number}, ID, NOW)
        read = CODEC.read_call(CODEC.write_call(message))
        assert read == message and type(read.func_kwargs["k"]) is int


def test_members_that_were_made_to_share_one_hash_are_refused() -> None:
    numbers = [str((2**61 - 1) * i) for i in range(1, 50_000)]
    pairs = ",".join(f'{{"py/tuple": [{number}, 1]}}' for number in numbers)
    for tree in (
        f'{{"py/set": [{",".join(numbers)}]}}',
        f'{{"py/reduce": [{{"py/type": "builtins.frozenset"}}, {{"py/tuple": [[{",".join(numbers)}]]}}]}}',
        "{" + ",".join(f'"json://{number}": 1' for number in numbers) + "}",
        f'{{"py/reduce": [{{"py/type": "collections.OrderedDict"}}, {{"py/tuple": []}}, null, null, {{"py/tuple": [{pairs}]}}]}}',
    ):
        with pytest.raises(DecodeError) as caught:
            CODEC.read_call(CALL.replace('"HERE"', tree).encode())
        assert caught.value.reason == "form"
    honest = set(range(5_000))
    assert CODEC.read_call(CODEC.write_call(PRPCMessage("f", (honest,), {}, ID, NOW))).func_args == (honest,)


def test_nan_and_infinities_are_read() -> None:
    nan, *others = CODEC.read_call(CALL.replace('"HERE"', "NaN, Infinity, -Infinity, 1e400").encode()).func_args
    assert nan != nan
    assert others == [float("inf"), float("-inf"), float("inf")]


NO_MESSAGES = rb"""null|1|"x"|[]|{}|[[[]]]|{'a': 1}|{} {}|[1,]|undefined|-|0x1|["","","",""]|[1,2,3,4]|[null,null,null,null]
{"py/object": "prpc.prpcmessage.PRPCMessage"}|{"py/object": ["prpc.prpcmessage.PRPCMessage"]}
["8dcd1fcc737c44c5b0799b8ffce37566",1,null]|["8dcd1fcc737c44c5b0799b8ffce37566",1,null,1]"""


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", *(b for line in NO_MESSAGES.splitlines() for b in line.split(b"|"))],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    for read in (CODEC.read_call, CODEC.read_raw_call, CODEC.read_reply):
        with pytest.raises(DecodeError) as caught:
            read(body)
        assert caught.value.reason in ("json", "form") and caught.value.message_id is None


@pytest.mark.parametrize("cut", range(0, len(CALL), 7))
def test_a_call_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(DecodeError):
        CODEC.read_call(CALL[:cut].encode())


def test_other_classes_in_the_places_of_the_frame_are_refused() -> None:
    for wrong in ("1", '"x"', "null", "[]", "{}", '{"py/tuple": []}', '{"py/object": "x.Y"}'):
        for name in ("message_id", "date_create_message"):
            tree = json.loads(CALL)
            tree[name] = json.loads(wrong)
            with pytest.raises(DecodeError) as caught:
                CODEC.read_call(json.dumps(tree).encode())
            assert caught.value.reason == "form"
    wrong_parts = {
        '"summ"': ["1", "null"],
        '{"py/tuple": ["HERE"]}': ['{"a":1}', '"x"', "null", "{}", '{"py/set": []}'],
        '{"k":1}': ["[1]", "null", "1", '{"json://1":1}', '{"py/tuple":[]}'],
    }
    for part, wrongs in wrong_parts.items():
        for wrong in wrongs:
            text = CALL.replace(part, wrong)
            assert text != CALL
            for body in (text, text.replace(": ", " : ")):  # in the common frame, and in one that is read step by step
                with pytest.raises(DecodeError) as caught:
                    CODEC.read_call(body.encode())
                assert caught.value.reason == "form"


def test_a_reference_to_what_holds_it_is_refused() -> None:
    for tree in ('[{"py/id": 1}]', '{"a": [{"py/id": 1}]}', '{"py/object": "x.Y", "a": {"py/id": 1}}', '[[{"py/id": 2}]]'):
        with pytest.raises(DecodeError) as caught:
            CODEC.read_call(CALL.replace('"HERE"', tree).encode())
        assert caught.value.reason == "form"


def test_a_date_without_a_zone_is_refused_in_the_frame() -> None:
    naive = '{"py/object": "datetime.datetime", "__reduce__": [{"py/type": "datetime.datetime"}, ["B+oLFAgGNwlBBA=="]]}'
    tree = json.loads(CALL)
    tree["date_create_message"] = json.loads(naive)
    with pytest.raises(DecodeError):
        CODEC.read_call(json.dumps(tree).encode())


def test_a_date_that_has_no_utc_is_refused_in_the_frame() -> None:
    """It could be read and never be written: the answer would fail where nobody is to blame."""
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    tree = json.loads(CALL)
    tree["date_create_message"] = json.loads(jsonpickle.encode(first, keys=True))
    with pytest.raises(DecodeError, match="no date in UTC") as caught:
        CODEC.read_call(json.dumps(tree).encode())
    assert caught.value.message_id == str(ID)


@pytest.mark.parametrize(
    "state", ["AAALFAgGNwlBBA==", "B+oAFAgGNwlBBA==", "B+oLIAgGNwlBBA==", "B+oLFB4GNwlBBA==", "not base64 at!!", "B+oLFAgGNw=="]
)
def test_a_stamp_that_is_no_date_is_refused(state: str) -> None:
    stamp = "B+oLFAAAAAAAAA=="
    assert stamp in CALL
    for text, read in ((CALL, CODEC.read_call), (WAKE, CODEC.read_reply), (REPLY, CODEC.read_reply)):
        with pytest.raises(DecodeError):
            read(text.replace(stamp, state).encode())


def test_an_id_of_another_form_is_refused() -> None:
    for wrong in ("z" * 32, "0" * 31, " " * 32, "_".join(["0"] * 16) + "0", str(ID), "0x" + "0" * 30):
        body = CALL.replace(ID.hex, wrong)
        with pytest.raises(DecodeError):
            CODEC.read_call(body.encode())


def test_the_id_of_a_refused_text_is_found_only_where_it_is_clear() -> None:
    other = "0" * 32
    fake = CALL.replace('"HERE"', f'{{"message_id": {{"hex": "{other}"}}, "py/type": "x"}}')
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(fake.encode())
    assert caught.value.message_id == str(ID)
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(fake.encode()[:-1])  # no JSON any more: two ids, and no telling which
    assert caught.value.message_id is None
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(CALL.encode()[:-1])
    assert caught.value.message_id == str(ID)
    with pytest.raises(DecodeError) as caught:
        CODEC.read_call(b'{"message_id": "--------------------------------" ')
    assert caught.value.message_id is None
    with pytest.raises(DecodeError) as caught:
        CODEC.read_raw_call(json.dumps({"message_id": "-" * 36}).encode())
    assert caught.value.message_id is None


def test_an_ill_formed_failure_is_refused() -> None:
    good = CODEC.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(NOW), Failure("a.B", "text"), for_us=True).wake
    head, tail = good.split(b'{"type_name"')[0], good[good.index(b"}") + 1 :]
    wrong: list[Any] = [1, "x", [], {}, {"type_name": "a"}, {"message": "a"}]
    wrong += [{"type_name": 1, "message": "x"}, {"type_name": "a", "message": None}]
    wrong += [{"traceback": 1}, {"bases": "x"}, {"bases": [1]}, {"notes": [[]]}, {"cause": 1}, {"cause": {}}]
    wrong += [{"members": 1}, {"members": [1]}, {"facts": []}, {"facts": 1}, {"facts": {"json://1": 1}}]
    for tree in wrong:
        if isinstance(tree, dict) and tree and "type_name" not in tree and "message" not in tree:
            tree = {"type_name": "a", "message": "b", **tree}
        with pytest.raises(DecodeError):
            CODEC.read_reply(head + json.dumps(tree).encode() + tail)


def test_a_failure_that_is_endless_is_cut() -> None:
    tree: dict[str, Any] = {"type_name": "builtins.KeyError", "message": "end"}
    for _ in range(90):
        tree = {"type_name": "builtins.KeyError", "message": "m" * 10, "cause": tree}
    tree["notes"], tree["bases"], tree["message"] = ["n"] * 1000, ["b"] * 1000, "m" * 1_000_000
    good = CODEC.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(NOW), Failure("a.B", "text"), for_us=True).wake
    body = good[: good.index(b"{")] + json.dumps(tree).encode() + good[good.index(b"}") + 1 :]
    failure = CODEC.read_reply(body).failure
    assert failure is not None and len(failure.message) < 100_000 and len(failure.notes) < 100 and len(failure.bases) < 100
    depth, cause = 0, failure.cause
    while cause is not None:
        depth, cause = depth + 1, cause.cause
    assert depth <= 20
    assert isinstance(restore(failure), KeyError)


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.SystemExit", "prpc.exceptions.NoSuch", "prpc_attack_module.X", "a", "", "."]
)
def test_a_failure_names_no_class_into_being(name: str, tripwires: str) -> None:
    exc = restore(Failure(name, "text", bases=(name, "builtins.object", "prpc.settings.Settings")))
    assert type(exc).__name__ == "RemoteException" and isinstance(exc, Exception) and str(exc) == "text"
