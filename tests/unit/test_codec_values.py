"""What can be sent and how it arrives; what cannot, and how the error names it."""

from __future__ import annotations

import enum
import json
import socket
import sys
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import jsonpickle
import pydantic
import pytest

from prpc.codec import Codec, Limits
from prpc.exceptions import DecodeError, EncodeError
from prpc.prpcmessage import PRPCMessage

ID = UUID("8dcd1fcc737c44c5b0799b8ffce37566")
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
CODEC = Codec()


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Size(enum.StrEnum):
    BIG = "big"


class Flags(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int


Old = namedtuple("Old", "a b")


class Movie(TypedDict):
    name: str
    year: int


@dataclass
class Plain:
    a: int
    b: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: Any = None


@dataclass(slots=True)
class Slotted:
    a: Any


@dataclass
class Nested:
    inner: Plain
    more: dict[str, Frozen]


class Address(pydantic.BaseModel):
    street: str
    since: date
    tags: set[str] = set()


class Person(pydantic.BaseModel):
    name: str
    address: Address
    kind: Color = Color.RED

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


class Text(str):
    def __str__(self) -> str:
        return "not this"


class Number(int):
    def __repr__(self) -> str:
        return "not this"


class Real(float):
    pass


class Mapping(dict[str, Any]):
    pass


class Sequence(list[Any]):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


class Lapse(timedelta):
    pass


class Whole(Decimal):
    pass


class Zone(tzinfo):
    """A zone of some other library."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return timedelta(hours=5, minutes=30)

    def dst(self, when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None) -> str | None:
        return "IST"


class NoZone(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None


def over(value: Any, codec: Codec = CODEC) -> Any:
    """The value as the function sees it; a result of it comes back alike."""
    message = PRPCMessage("f", (value,), {"k": value}, ID, NOW)
    read = codec.read_call(codec.write_call(message))
    (arrived,) = read.func_args
    assert repr(read.func_kwargs["k"]) == repr(arrived)
    written = codec.write_reply(message.done(NOW, value), None, for_us=True)
    for body in (written.wake, written.body):
        assert repr(codec.read_reply(body).result) == repr(arrived)
    return arrived


def refusal(value: Any, codec: Codec = CODEC) -> EncodeError:
    """The error for a value that cannot be sent."""
    with pytest.raises(EncodeError) as caught:
        codec.write_call(PRPCMessage("f", (value,), {}, ID, NOW))
    with pytest.raises(EncodeError):
        codec.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(NOW, value), None, for_us=True)
    return caught.value


SAME = [
    None,
    True,
    0,
    -1,
    2**70,
    -(2**64),
    0.1,
    -0.0,
    1e300,
    float("inf"),
    "",
    "é☃𝄞",
    "\x00\x1f",
    "\ud800",
    "a\udfffb",
    b"",
    b"\x00\xff",
    [],
    {},
    (),
    set(),
    frozenset(),
    [[]],
    ((),),
    {"": {"": []}},
    {1: "a", "1": "b"},
    {None: 1, True: 2, 2.5: 3, (1, (2,)): 4},
    {b"k": 1},
    {float("inf"): 1},
    {NOW: 1, ID: 2, Decimal("1.5"): 3, date(2024, 1, 1): 4, frozenset({1}): 5, Path("/a"): 6, 1j: 7},
    {"json://x": 1, "py/tuple": 2, "py/id": [3], "p": 4, "j": 5, "jp/": 6},
    {"__dict__": 1, "default_factory": 2},
    {1, "a", (2, 3), frozenset({4}), b"x", None},
    bytearray(b"\x00ab"),
    bytearray(),
    complex(1, -2),
    Decimal("1.10"),
    Decimal("-Infinity"),
    date(1, 1, 1),
    date(9999, 12, 31),
    time(1, 2, 3, 4),
    time(23, 59, fold=1),
    time(1, tzinfo=UTC),
    time(1, tzinfo=timezone(timedelta(hours=1))),
    datetime(2024, 11, 6, 12),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3), "west")),
    datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    ZoneInfo("UTC"),
    UTC,
    timezone(timedelta(minutes=90)),
    timedelta(-1, 2, 3),
    ID,
    Path("/a/b"),
    Path(),
    PurePosixPath("x/y"),
    PureWindowsPath("c:\\x"),
]


def shown(value: Any) -> Any:
    """Like repr, with the members of sets in one order."""
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(str(shown(member)) for member in value)
    if isinstance(value, list | tuple):
        return type(value).__name__, [shown(member) for member in value]
    if isinstance(value, dict):
        return type(value).__name__, [(shown(key), shown(member)) for key, member in value.items()]
    return repr(value)


@pytest.mark.parametrize("value", SAME, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(SAME)])
def test_it_arrives_as_it_was_also_deep_inside_and_stock_reads_it_alike(value: Any) -> None:
    for sent in (value, [value], {"a": (value, [value])}):
        arrived = over(sent)
        assert arrived == sent and shown(arrived) == shown(sent)
        stock = jsonpickle.decode(CODEC.write_call(PRPCMessage("f", (sent,), {}, ID, NOW)).decode(), keys=True)
        assert stock.func_args == (sent,)


def test_nan_arrives() -> None:
    for sent in ([float("nan")], complex(float("nan"), 1), Decimal("NaN"), {"a": float("nan")}, {float("nan"): 1}):
        assert repr(over(sent)) == repr(sent)


def test_utc_stays_the_one_object() -> None:
    assert over(NOW).tzinfo is UTC
    assert over({"zone": UTC})["zone"] is UTC
    assert over(time(1, tzinfo=UTC)).tzinfo is UTC


def test_the_second_of_two_equal_hours_stays_the_second() -> None:
    sent = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert over(sent).fold == 1 and over(sent).utcoffset() == sent.utcoffset()
    assert over(datetime(2024, 10, 27, 2, 30, fold=1)).fold == 1


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        (Color.RED, "red"),
        (Color.PAIR, (1, 2)),
        (Level.LOW, 1),
        (Size.BIG, "big"),
        (Flags.A | Flags.B, 3),
        ({Color.RED: 1}, {"red": 1}),
        ({Level.LOW: 1}, {1: 1}),
        ({Size.BIG}, {"big"}),
        (Point(1, 2), (1, 2)),
        (Old(1, [Point(3, 4)]), (1, [(3, 4)])),
        ({Point(1, 2)}, {(1, 2)}),
        (Movie(name="a", year=1), {"name": "a", "year": 1}),
        (Text("x"), "x"),
        ({Text("k"): Text("v")}, {"k": "v"}),
        (Number(5), 5),
        (Real(0.5), 0.5),
        (Real("inf"), float("inf")),
        (Mapping(a=1), {"a": 1}),
        (Sequence([1]), [1]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (deque([1, 2], 5), [1, 2]),
        (Moment(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
        (Day(2024, 1, 1), date(2024, 1, 1)),
        (Lapse(1), timedelta(1)),
        (Whole("1.5"), Decimal("1.5")),
        (Plain(1, [Plain(2)]), {"a": 1, "b": [{"a": 2, "b": []}]}),
        (Frozen(1, (2,)), {"a": 1, "b": (2,)}),
        (Slotted({1}), {"a": {1}}),
        (Nested(Plain(1), {"k": Frozen(2)}), {"inner": {"a": 1, "b": []}, "more": {"k": {"a": 2, "b": None}}}),
        (Address(street="s", since=date(2024, 1, 1), tags={"t"}), {"street": "s", "since": date(2024, 1, 1), "tags": {"t"}}),
        (
            Person(name="n", address=Address(street="s", since=date(2024, 1, 1))),
            {"name": "n", "address": {"street": "s", "since": date(2024, 1, 1), "tags": set()}, "kind": "red"},
        ),
        (pydantic.RootModel[list[int]]([1]), [1]),
        (datetime(2024, 1, 1, tzinfo=Zone()), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_a_receiver_may_not_know_arrives_as_plain_data(sent: Any, arrived: Any) -> None:
    for value, expected in ((sent, arrived), ([sent], [arrived]), ({"k": (sent,)}, {"k": (arrived,)})):
        found = over(value)
        assert found == expected and repr(found) == repr(expected)


def test_stock_jsonpickle_makes_dataclasses_of_dataclasses() -> None:
    for value in (Plain(1, [Plain(2)]), Frozen(1, (2,)), Slotted(1), Nested(Plain(1), {"k": Frozen(2)})):
        body = CODEC.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(NOW, value), None, for_us=False).body
        assert jsonpickle.decode(body.decode(), keys=True).result == value


def generator() -> Any:
    yield 1


class Opaque:
    pass


class Broken(dict[str, Any]):
    def items(self) -> Any:
        raise ZeroDivisionError


class Unset:
    pass


@pytest.mark.parametrize(
    ("make", "type_name", "words"),
    [
        (lambda: lambda: 1, "function", "lambda"),
        (lambda: generator, "function", "generator"),
        (lambda: generator(), "generator", "generator"),
        (lambda: threading.Lock(), "_thread.lock", "lock"),
        (lambda: sys, "module", "module"),
        (lambda: Opaque, "type", "class"),
        (lambda: int, "type", "class int"),
        (lambda: len, "builtin_function_or_method", "len"),
        (lambda: Opaque(), "Opaque", "Opaque"),
        (lambda: object(), "object", "object"),
        (lambda: iter([]), "list_iterator", "list_iterator"),
        (lambda: range(3), "range", "range"),
        (lambda: memoryview(b""), "memoryview", "memoryview"),
        (lambda: ValueError("x"), "ValueError", "ValueError"),
        (lambda: ..., "ellipsis", "ellipsis"),
        (lambda: types.SimpleNamespace(), "types.SimpleNamespace", "SimpleNamespace"),
        (lambda: {}.keys(), "dict_keys", "dict_keys"),
        (lambda: pydantic.SecretStr("x"), "SecretStr", "SecretStr"),
        (lambda: 10**4300, "int", "4300 digits"),
        (lambda: Decimal("1" * 4301), "decimal.Decimal", "4300 digits"),
        (lambda: datetime(2024, 1, 1, tzinfo=NoZone()), "datetime", "zone"),
        (lambda: time(1, tzinfo=ZoneInfo("Europe/Berlin")), "datetime.time", "zone"),
        (lambda: NoZone(), "NoZone", "NoZone"),
        (lambda: {Frozen(1)}, "Frozen", "hash"),
        (lambda: {Frozen(1): 1}, "Frozen", "hash"),
        (lambda: {(1, Frozen(2))}, "Frozen", "hash"),
        (lambda: {1: "a", Level.LOW.__class__.LOW: "b", "x": {True: 1}}, None, None),
        (lambda: {Color.RED: 1, "red": 2}, "dict", "alike"),
        (lambda: Mapping(a={Size.BIG: 1, Text("big2"): 2, "big": 3} | {Size.BIG: 1}), None, None),
    ],
)
def test_what_cannot_be_sent_is_named(make: Callable[[], Any], type_name: str | None, words: str | None) -> None:
    if type_name is None or words is None:
        over(make())
        return
    for value, path in ((make(), "func_args[0]"), ([0, make()], "func_args[0][1]"), ({"a": (make(),)}, "func_args[0]['a'][0]")):
        error = refusal(value)
        assert error.path is not None and error.path.startswith(path)
        assert error.type_name is not None and error.type_name.endswith(type_name)
        assert words in str(error) and path in str(error) and isinstance(error, TypeError)


def test_the_path_goes_through_fields_keys_and_results() -> None:
    lock = threading.Lock()
    assert refusal(Plain(1, [Frozen(1, lock)])).path == "func_args[0].b[0].b"
    assert refusal({(1, 2): {"x": [lock]}}).path == "func_args[0][(1, 2)]['x'][0]"
    assert refusal({"a" * 200: lock}).path == "func_args[0]['" + "a" * 76 + "...]"
    with pytest.raises(EncodeError) as caught:
        CODEC.write_call(PRPCMessage("f", (), {"k": [1, lock]}, ID, NOW))
    assert caught.value.path == "func_kwargs['k'][1]"
    with pytest.raises(EncodeError) as caught:
        CODEC.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(NOW, {"a": lock}), None, for_us=False)
    assert caught.value.path == "result['a']"


def test_a_socket_is_named() -> None:
    with socket.socket() as open_socket:
        assert refusal([open_socket]).path == "func_args[0][0]"


def test_an_attribute_that_is_not_set_is_named() -> None:
    value = Slotted(1)
    del value.a
    assert "'a' has no value" in str(refusal(value))


def test_a_key_without_a_repr_is_named_by_its_type() -> None:
    class Key(str):
        def __repr__(self) -> str:
            raise ValueError

    assert "Key" in str(refusal({Key("k"): threading.Lock()}))


def test_a_class_that_fails_while_it_is_read_is_an_encode_error() -> None:
    error = refusal(Broken(a=1))
    assert "ZeroDivisionError" in str(error) and isinstance(error.__cause__, ZeroDivisionError)


def cycles() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    two: dict[str, Any] = {}
    two["a"] = [two]
    three = Plain(1)
    three.b.append((three,))
    four: list[Any] = []
    four.append((four, {1}))
    return [one, two, three, four]


@pytest.mark.parametrize("number", range(4))
def test_what_contains_itself_is_refused(number: int) -> None:
    error = refusal(cycles()[number])
    assert "contains itself" in str(error)


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = [1, (2,)]
    assert over([shared, shared, {"a": shared}]) == [shared, shared, {"a": shared}]


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = wrap(1)
    for _ in range(depth - 1):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda v: [v],
    lambda v: (v,),
    lambda v: {"a": v},
    lambda v: {1: v},
    lambda v: Frozen(1, v),
    lambda v: frozenset({v}),
]


@pytest.mark.parametrize("number", range(len(WRAPS)))
def test_what_may_be_written_may_be_read_down_to_the_last_level(number: int) -> None:
    wrap = WRAPS[number]
    codec = Codec(Limits(max_depth=30))
    value = nested(29, wrap)  # the arguments themselves are the thirtieth
    message = PRPCMessage("f", (value,), {}, ID, NOW)
    codec.read_call(codec.write_call(message))
    codec.read_call(codec.write_call(PRPCMessage("f", (nested(28, wrap), {1}, NOW), {}, ID, NOW)))
    written = codec.write_reply(message.done(NOW, nested(30, wrap)), None, for_us=True)
    codec.read_reply(written.body)
    codec.read_reply(written.wake)
    with pytest.raises(EncodeError, match="deeper than 30 levels"):
        codec.write_call(PRPCMessage("f", (nested(30, wrap),), {}, ID, NOW))
    with pytest.raises(EncodeError, match="deeper than 30 levels"):
        codec.write_reply(message.done(NOW, nested(31, wrap)), None, for_us=True)


@pytest.mark.parametrize("number", range(len(WRAPS)))
def test_the_reader_refuses_one_level_more(number: int) -> None:
    wrap = WRAPS[number]
    generous, strict = Codec(Limits(max_depth=31)), Codec(Limits(max_depth=30))
    message = PRPCMessage("f", (nested(30, wrap),), {}, ID, NOW)
    written = generous.write_reply(message.done(NOW, nested(31, wrap)), None, for_us=True)
    for read, body in (
        (strict.read_call, generous.write_call(message)),
        (strict.read_reply, written.body),
        (strict.read_reply, written.wake),
    ):
        with pytest.raises(DecodeError) as caught:
            read(body)
        assert caught.value.reason == "depth"


def test_very_deep_values_are_refused() -> None:
    assert "deeper than 100 levels" in str(refusal(nested(100_000, WRAPS[0])))


def test_limits_beyond_pythons_own_stack_end_in_the_same_errors() -> None:
    codec = Codec(Limits(max_depth=1_000_000))
    assert "nested too deep" in str(refusal(nested(100_000, WRAPS[0]), codec))
    text = codec.write_call(PRPCMessage("f", ("HERE",), {}, ID, NOW)).decode()
    for opening, closing in (('{"py/tuple": [', "]}"), ('{"json://1": ', "}"), ("[", "]")):
        with pytest.raises(DecodeError) as caught:
            codec.read_call(text.replace('"HERE"', opening * 450 + '{"py/set": []}' + closing * 450).encode())
        assert caught.value.reason == "depth" and caught.value.message_id == str(ID)


def test_what_is_too_large_is_refused() -> None:
    codec = Codec(Limits(max_bytes=10_000))
    message = PRPCMessage("f", (), {}, ID, NOW)
    for value in ("x" * 10_000, b"x" * 10_000, ["x"] * 5_000, {1: "x" * 10_000}):
        assert "at most 10000 are sent" in str(refusal(value, codec))
        with pytest.raises(EncodeError):
            codec.write_raw_reply(message.done(NOW, value))
        with pytest.raises(EncodeError):
            codec.write_reply(message.done(NOW, value), None, for_us=False)


def test_too_many_items_are_refused() -> None:
    codec = Codec(Limits(max_items=1_000))
    for value in ([0] * 1_001, dict.fromkeys(range(1001), 0), [[]] * 1_001, (None,) * 1_001, [Frozen(1)] * 400):
        assert "more than 1000 items" in str(refusal(value, codec))
    laugh: Any = []
    for _ in range(40):
        laugh = [laugh, laugh, (1,)]
    assert "more than" in str(refusal(laugh, codec))


def test_a_pair_of_surrogates_is_refused_for_it_would_arrive_as_one_character() -> None:
    for value in ("\ud83d\ude00", ["a\ud83d\ude00"], {"\ud83d\ude00": 1}, {"k": ["\ud800", "x\udbff\udfff"]}):
        assert "pair of surrogates" in str(refusal(value))


def test_a_name_with_surrogates_is_refused() -> None:
    with pytest.raises(EncodeError):
        CODEC.write_call(PRPCMessage("f\ud800", (), {}, ID, NOW))


def test_a_message_without_a_zone_or_an_end_is_refused() -> None:
    naive = datetime(2024, 1, 1)
    with pytest.raises(EncodeError):
        CODEC.write_call(PRPCMessage("f", (), {}, ID, naive))
    with pytest.raises(EncodeError):
        CODEC.write_reply(PRPCMessage("f", (), {}, ID, NOW).done(naive), None, for_us=True)
    for write in (lambda m: CODEC.write_reply(m, None, for_us=True), CODEC.write_raw_reply):
        with pytest.raises(EncodeError):
            write(PRPCMessage("f", (), {}, ID, NOW))


def test_without_pydantic_nothing_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pydantic")
    monkeypatch.delitem(sys.modules, "zoneinfo")
    assert over([Plain(1), Color.RED]) == [{"a": 1, "b": []}, "red"]
    refusal(Opaque())
    assert "pydantic" not in sys.modules


def test_the_text_is_json_in_jsonpickles_form() -> None:
    text = CODEC.write_call(PRPCMessage("summ", (1, "é"), {"z": {1, 2}}, ID, NOW)).decode()
    tree = json.loads(text)
    assert tree["py/object"] == "prpc.prpcmessage.PRPCMessage" and tree["func_args"] == {"py/tuple": [1, "é"]}
    assert list(tree) == list(json.loads(jsonpickle.encode(PRPCMessage("summ", (), {}, ID, NOW), keys=True)))
