"""Replies in their forms: for callers with a mailbox, for all others, and in plain JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import jsonpickle
import pytest

from prpc.codec import Codec, Limits, ReadReply
from prpc.exceptions import DecodeError, EncodeError
from prpc.failure import Failure, describe
from prpc.prpcmessage import PRPCMessage

ID = UUID("8dcd1fcc737c44c5b0799b8ffce37566")
NOW = datetime(2026, 11, 20, 8, 6, 55, 591876, UTC)
LATER = NOW + timedelta(seconds=1)
CODEC = Codec()
CALL = PRPCMessage("summ", (1, [2]), {"z": 3}, ID, NOW)
FAILURE = Failure("billing.CardRefused", 'no: "money"', ("builtins.ValueError",), "Traceback...", ("note",))


def test_a_result_for_us_brings_no_arguments_back() -> None:
    written = CODEC.write_reply(CALL.done(LATER, {"a": 1}), None, for_us=True)
    stock = jsonpickle.decode(written.body.decode(), keys=True)
    assert stock == PRPCMessage("summ", (), {}, ID, NOW, {"a": 1}, None, LATER)
    assert json.loads(written.wake) == [ID.hex, {"a": 1}, None, json.loads(written.wake)[3]]
    expected = ReadReply(ID, {"a": 1}, None, LATER)
    assert CODEC.read_reply(written.wake) == CODEC.read_reply(written.body) == expected


def test_a_result_for_others_brings_the_arguments_back() -> None:
    written = CODEC.write_reply(CALL.done(LATER, (1,)), None, for_us=False)
    assert jsonpickle.decode(written.body.decode(), keys=True) == CALL.done(LATER, (1,))
    assert written.wake == b""
    assert CODEC.read_reply(written.body) == ReadReply(ID, (1,), None, LATER)


def test_arguments_that_came_as_a_list_go_back_as_a_list() -> None:
    message = PRPCMessage("f", [1, (2,)], {}, ID, NOW)
    body = CODEC.write_reply(message.done(LATER), None, for_us=False).body
    assert jsonpickle.decode(body.decode(), keys=True).func_args == [1, (2,)]


def test_a_failure_for_us_is_described() -> None:
    written = CODEC.write_reply(CALL.done(LATER, None, FAILURE.message), FAILURE, for_us=True)
    expected = ReadReply(ID, None, FAILURE, LATER)
    assert CODEC.read_reply(written.wake) == CODEC.read_reply(written.body) == expected
    stock = jsonpickle.decode(written.body.decode(), keys=True)
    assert stock.exception_info == FAILURE.message and stock.result["type_name"] == "billing.CardRefused"


def test_a_failure_for_others_is_its_text() -> None:
    written = CODEC.write_reply(CALL.done(LATER, None, FAILURE.message), FAILURE, for_us=False)
    stock = jsonpickle.decode(written.body.decode(), keys=True)
    assert stock == CALL.done(LATER, None, FAILURE.message)
    reply = CODEC.read_reply(written.body)
    assert reply.failure == Failure("prpc.exceptions.RemoteError", FAILURE.message) and reply.result is None


def test_a_failure_without_a_text_is_a_failure() -> None:
    failure = Failure("builtins.ValueError", "")
    for for_us in (True, False):
        written = CODEC.write_reply(CALL.done(LATER, None, ""), failure, for_us=for_us)
        for body in (written.body, written.wake) if for_us else (written.body,):
            reply = CODEC.read_reply(body)
            assert reply.failure is not None and reply.failure.message == ""


def test_a_text_without_a_description_is_described_by_what_is_known() -> None:
    written = CODEC.write_reply(CALL.done(LATER, None, "text"), None, for_us=True)
    assert CODEC.read_reply(written.wake).failure == Failure("prpc.exceptions.RemoteError", "text")


def test_a_result_that_looks_like_a_failure_is_a_result() -> None:
    value = {"type_name": "builtins.KeyError", "message": "x"}
    written = CODEC.write_reply(CALL.done(LATER, value), None, for_us=True)
    for body in (written.body, written.wake):
        assert CODEC.read_reply(body) == ReadReply(ID, value, None, LATER)


def test_a_description_that_cannot_be_written_shrinks_to_name_and_text() -> None:
    failure = Failure("a.B", "text", ("builtins.KeyError",), facts={"x": object()})
    written = CODEC.write_reply(CALL.done(LATER, None, "text"), failure, for_us=True)
    assert CODEC.read_reply(written.wake).failure == Failure("a.B", "text", ("builtins.KeyError",))


def test_a_real_exception_goes_over_with_cause_members_and_facts() -> None:
    try:
        try:
            b"\xff".decode()
        except UnicodeDecodeError as exc:
            raise ExceptionGroup("many", [exc, KeyError((1, "k"))]) from OSError(2, "gone", "file")
    except ExceptionGroup as exc:
        exc.add_note("a \ud800 note")
        failure = describe(exc)
    written = CODEC.write_reply(CALL.done(LATER, None, failure.message), failure, for_us=True)
    for body in (written.body, written.wake):
        arrived = CODEC.read_reply(body).failure
        assert arrived == failure


def test_dates_of_other_zones_are_the_same_moments() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    message = PRPCMessage("f", (), {}, ID, NOW.astimezone(zone))
    assert CODEC.read_call(CODEC.write_call(message)) == message
    written = CODEC.write_reply(message.done(LATER.astimezone(zone)), None, for_us=True)
    assert CODEC.read_reply(written.wake).date_done_message == LATER == CODEC.read_reply(written.body).date_done_message


@pytest.mark.parametrize(
    "name", ["f", "", "é", 'a"b', "a\\", ', "func_args": {"py/tuple": []}, "func_kwargs": {}, "message_id"', "x" * 5000]
)
def test_any_name_of_a_function_goes_through(name: str) -> None:
    message = PRPCMessage(name, (1,), {}, ID, NOW)
    assert CODEC.read_call(CODEC.write_call(message)) == message
    written = CODEC.write_reply(message.done(LATER, [1]), None, for_us=True)
    assert jsonpickle.decode(written.body.decode(), keys=True).func_name == name
    assert CODEC.read_reply(written.body).result == [1]


def test_very_many_names_are_not_all_remembered() -> None:
    codec = Codec()
    for number in range(2_000):
        codec.write_call(PRPCMessage(f"f{number}", (), {}, ID, NOW))
    assert len(codec._heads) < 1_000
    message = PRPCMessage("f0", (), {}, ID, NOW)
    assert codec.read_call(codec.write_call(message)) == message


BODY = CODEC.write_reply(CALL.done(LATER, "HERE"), None, for_us=True).body.decode()


def test_a_kept_text_in_other_blanks_is_read_alike() -> None:
    respaced = json.dumps(json.loads(BODY), separators=(",", ":")).encode()
    assert CODEC.read_reply(respaced) == CODEC.read_reply(BODY.encode()) == ReadReply(ID, "HERE", None, LATER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"exception_info": null', '"exception_info": 1'),
        ('"exception_info": null', '"exception_info": null, "exception_info": "x"'),
        ('"exception_info": null', '"result": 2, "exception_info": null'),
        (ID.hex, "x" * 32),
        ('"summ"', '"su\\mm"'),
        ('"HERE"', "[}"),
        ('"summ"', '"summ", "func_name": "x"'),
        ('"exception_info": null, ', ""),
        ('"message_id"', '"message"'),
        ("B+oL", "B+AA"),
        ('"HERE", "exception_info": null', '{}, "exception_info": "text"'),
    ],
)
def test_a_kept_text_that_is_ill_formed_is_refused_or_read_step_by_step(old: str, new: str) -> None:
    body = BODY.replace(old, new, 1)
    assert body != BODY
    if new == "":
        assert CODEC.read_reply(body.encode()).failure is None  # nothing says that it failed
        return
    with pytest.raises(DecodeError):
        CODEC.read_reply(body.encode())


def test_a_message_that_is_not_done_is_no_reply() -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.read_reply(CODEC.write_call(CALL))
    assert caught.value.reason == "form" and caught.value.message_id == str(ID)


# Plain JSON


class Color(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Item:
    name: str
    at: datetime


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (frozenset(), []),
        (b"\x00", {"py/b64": "AA=="}),
        (bytearray(b"\x00"), {"py/b64": "AA=="}),
        (NOW, "2026-11-20T08:06:55.591876+00:00"),
        (NOW.date(), "2026-11-20"),
        (NOW.time(), "08:06:55.591876"),
        (timedelta(minutes=1.5), 90.0),
        (ID, str(ID)),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("a/b"), "a/b"),
        (1 + 2j, "(1+2j)"),
        (UTC, "UTC"),
        (Color.RED, "red"),
        (Point(1, 2), [1, 2]),
        (Item("a", NOW), {"name": "a", "at": NOW.isoformat()}),
        (float("nan"), None),
        ([float("inf")], [None]),
        (2**70, 2**70),
        ("\ud800", "\ud800"),
        ({1: "a"}, {"1": "a"}),
        ({None: 1, True: 2, 1.5: 3}, {"null": 1, "true": 2, "1.5": 3}),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        ({NOW.date(): 1, Color.RED: 2, False: 3}, {"2026-11-20": 1, "red": 2, "false": 3}),
        ({"py/x": 1}, {"py/x": 1}),
    ],
)
def test_values_in_plain_json(value: Any, written: Any) -> None:
    text = CODEC.write_raw_reply(CALL.done(LATER, value))
    assert json.loads(text) == {
        "func_name": "summ",
        "func_args": [1, [2]],
        "func_kwargs": {"z": 3},
        "message_id": str(ID),
        "date_create_message": NOW.isoformat(),
        "result": written,
        "exception_info": None,
        "date_done_message": LATER.isoformat(),
    }


@pytest.mark.parametrize(
    ("value", "path"), [({1: "a", "1": "b"}, "result['1']"), ({b"x": 1}, "result[b'x']"), ([object()], "result[0]")]
)
def test_what_plain_json_has_no_form_for_is_refused(value: Any, path: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.write_raw_reply(CALL.done(LATER, value))
    assert caught.value.path == path


def raw(**fields: Any) -> bytes:
    return json.dumps({"func_name": "f", "message_id": str(ID)} | fields).encode()


def test_a_raw_call_may_name_only_function_and_id() -> None:
    message = Codec(now=lambda: NOW).read_raw_call(raw())
    assert message == PRPCMessage("f", [], {}, ID, NOW)
    assert CODEC.read_raw_call(raw(func_args=None, func_kwargs=None)).date_create_message.tzinfo is not None


@pytest.mark.parametrize("message_id", [str(ID), str(ID).upper(), ID.hex, {"hex": ID.hex}])
def test_the_id_of_a_raw_call_has_three_forms(message_id: Any) -> None:
    assert CODEC.read_raw_call(raw(message_id=message_id)).message_id == ID


def test_a_raw_call_brings_plain_values_and_bytes() -> None:
    args = [1, 2**70, None, {"a": [{"json://1": 1}]}]
    message = CODEC.read_raw_call(raw(func_args=[*args, {"py/b64": "AP8="}], func_kwargs={"k": [{"py/b64": ""}]}))
    assert message.func_args == [*args, b"\x00\xff"] and message.func_kwargs == {"k": [b""]}


@pytest.mark.parametrize(
    ("text", "when"), [("2026-11-20T08:06:55.591876Z", NOW), ("2026-11-20T08:06:55.591876", NOW), (None, LATER)]
)
def test_a_raw_call_may_bring_its_date(text: str | None, when: datetime) -> None:
    assert Codec(now=lambda: LATER).read_raw_call(raw(date_create_message=text)).date_create_message == when


@pytest.mark.parametrize(
    "fields",
    [
        {"func_name": None},
        {"func_name": 1},
        {"func_args": {}},
        {"func_args": "x"},
        {"func_kwargs": []},
        {"message_id": None},
        {"message_id": 1},
        {"message_id": "x"},
        {"message_id": "z" * 36},
        {"message_id": {"hex": 1}},
        {"message_id": {}},
        {"date_create_message": "yesterday"},
        {"date_create_message": 1},
        {"func_kwargs": {"py/object": "x"}},
        {"func_args": [{"py/b64": 1}]},
        {"func_args": [{"py/b64": "AA==", "a": 1}]},
    ],
)
def test_an_ill_formed_raw_call_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.read_raw_call(raw(**fields))
    assert caught.value.reason in ("form", "tag")
    assert caught.value.message_id == (None if "message_id" in fields else str(ID))


def test_the_limits_hold_for_raw_calls() -> None:
    codec = Codec(Limits(max_depth=3, max_items=50, max_bytes=1000))
    assert codec.read_raw_call(raw(func_args=[[[1]]])).func_args == [[[1]]]
    for args, reason in (([[[[1]]]], "depth"), ([0] * 100, "items"), (["x" * 1000], "size")):
        with pytest.raises(DecodeError) as caught:
            codec.read_raw_call(raw(func_args=args))
        assert caught.value.reason == reason


# What stock jsonpickle writes of classes that are not ours to know

TWO_DAYS_EAST = "".join(
    (
        '{"py/reduce": [{"py/type": "datetime.timezone"}, {"py/tuple": [',
        '{"py/reduce": [{"py/type": "datetime.timedelta"}, {"py/tuple": [2, 0, 0]}]}',
        "]}]}",
    )
)
ORDERED = '{"py/reduce": [{"py/type": "collections.OrderedDict"}, {"py/tuple": []}, null, null, %s]}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"py/object": "x.Y", "a": 1, "b": {"py/tuple": [2]}}', {"a": 1, "b": (2,)}),
        ('{"py/object": "x.Y"}', {}),
        ('{"py/object": "x.Y", "py/state": {"a": 1}}', {"a": 1}),
        ('{"py/object": "x.Y", "py/state": {"py/tuple": [{"a": 1}, {"b": 2}]}}', {"a": 1, "b": 2}),
        ('{"py/object": "x.Y", "py/state": {"py/tuple": [null, {"b": 2}]}}', {"b": 2}),
        ('{"py/object": "x.NT", "py/newargs": {"py/tuple": [1, 2]}, "py/seq": [1, 2]}', (1, 2)),
        ('{"py/object": "x.L", "py/seq": [1, {"py/tuple": []}]}', [1, ()]),
        ('{"py/object": "x.S", "py/newargs": {"py/tuple": ["x"]}}', "x"),
        ('{"py/object": "x.D", "a": 1, "__dict__": {}}', {"a": 1}),
        ('{"py/object": "x.K", "json://1": 2}', {1: 2}),
        ('{"py/object": "collections.defaultdict", "a": [1], "default_factory": {"py/type": "builtins.list"}}', {"a": [1]}),
        ('{"py/reduce": [{"py/type": "collections.Counter"}, {"py/tuple": [{"a": 1}]}]}', {"a": 1}),
        (ORDERED % '{"py/tuple": [{"py/tuple": ["a", 1]}]}', {"a": 1}),
        ('{"py/reduce": [{"py/type": "collections.OrderedDict"}, {"py/tuple": []}]}', {}),
        ('{"py/reduce": [{"py/type": "collections.deque"}, {"py/tuple": [{"py/tuple": []}, 3]}, null, {"py/tuple": [1]}]}', [1]),
        ('{"py/reduce": [{"py/type": "collections.deque"}, {"py/tuple": []}]}', []),
        ('{"py/reduce": [{"py/type": "builtins.frozenset"}, {"py/tuple": []}]}', frozenset()),
        ('{"py/reduce": [{"py/type": "pathlib._local.PurePosixPath"}, {"py/tuple": ["a", "b"]}]}', PurePosixPath("a/b")),
        ('[[1], {"py/object": "x.Y", "a": [2]}, {"py/id": 8}, {"py/id": 9}]', [[1], {"a": [2]}, {"a": [2]}, [2]]),
        ('[{"a": {"py/tuple": [[]]}}, {"py/id": 7}, {"py/id": 8}]', [{"a": ([],)}, {"a": ([],)}, []]),
    ],
)
def test_objects_of_foreign_classes_arrive_as_plain_data(text: str, value: Any) -> None:
    foreign = jsonpickle.encode(PRPCMessage("f", (), {}, ID, NOW).done(LATER, "HERE"), keys=True)
    # The reference of the last date counts from the start of the text: without it the test's own references stay free.
    arrived = CODEC.read_reply(foreign.replace('"HERE"', text).encode()).result
    assert arrived == value and type(arrived) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"py/reduce": [{"py/type": "collections.OrderedDict"}, {"py/tuple": []}, null, null, {"py/tuple": [1]}]}',
        '{"py/reduce": [{"py/type": "collections.OrderedDict"}, {"py/tuple": [1]}]}',
        '{"py/reduce": [{"py/type": "collections.deque"}, {"py/tuple": []}, null, [1]]}',
        '{"py/reduce": [{"py/type": "collections.Counter"}, {"py/tuple": [1]}]}',
        '{"py/reduce": [{"py/type": "builtins.frozenset"}, {"py/tuple": [[[1]]]}]}',
        TWO_DAYS_EAST,
        '{"py/object": "datetime.datetime", "a": 1}',
        '{"py/object": "datetime.datetime", "__reduce__": [{"py/type": "datetime.datetime"}, []]}',
        '{"py/object": "datetime.date", "__reduce__": [{"py/type": "datetime.date"}, ["AAABAQ=="]]}',
        '{"py/object": "datetime.date", "__reduce__": [{"py/type": "datetime.date"}, ["AA=="]]}',
        '{"py/object": "datetime.time", "__reduce__": [{"py/type": "datetime.time"}, ["AA=="]]}',
        '{"py/object": "builtins.complex"}',
        '{"py/reduce": [{"py/type": "datetime.timedelta"}, {"py/tuple": [1, 2]}]}',
        '{"py/reduce": [{"py/type": "datetime.timedelta"}, {"py/tuple": [1, 2, 3]}, {}]}',
        '{"py/object": "x.Y", "py/newargs": [1]}',
    ],
)
def test_ill_formed_objects_are_refused(text: str) -> None:
    body = CODEC.write_call(PRPCMessage("f", ("HERE",), {}, ID, NOW)).decode().replace('"HERE"', text)
    with pytest.raises(DecodeError):
        CODEC.read_call(body.encode())


def test_a_counter_of_other_than_counts_is_a_dict() -> None:
    text = '{"py/reduce": [{"py/type": "collections.Counter"}, {"py/tuple": [{"a": "many"}]}]}'
    body = CODEC.write_call(PRPCMessage("f", ("HERE",), {}, ID, NOW)).decode().replace('"HERE"', text)
    assert CODEC.read_call(body.encode()).func_args == ({"a": "many"},)


def test_a_call_in_other_blanks_with_a_list_of_arguments() -> None:
    text = CODEC.write_call(PRPCMessage("f", [1, {"a": (1,)}], {"k": "\ud800"}, ID, NOW))
    assert CODEC.read_call(text).func_args == [1, {"a": (1,)}]
    assert CODEC.read_call(json.dumps(json.loads(text), indent=1).encode()) == CODEC.read_call(text)


def test_what_stands_in_the_frame_beside_its_fields_is_left_alone() -> None:
    text = CODEC.write_call(CALL).decode().replace('"result": null', '"result": null, "priority": [1]')
    assert CODEC.read_call(text.encode()) == CALL
    for wrong in ('"py/state": 1', '"json://1": 1'):
        with pytest.raises(DecodeError):
            CODEC.read_call(text.replace('"priority": [1]', wrong).encode())
