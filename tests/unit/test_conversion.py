"""Values from the wire against annotations."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import functools
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    ParamSpec,
    Required,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import UUID

import annotated_types
import pydantic
import pytest

from prpc.conversion import ConversionError, converter_for, readable, resolve_hints, short_repr, unpacked_fields

T = TypeVar("T")
P = ParamSpec("P")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    corner: Point
    color: Color = Color.RED
    tags: list[str] = field(default_factory=list)


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class WithInitVar:
    total: int = field(init=False)
    base: InitVar[int] = 5

    def __post_init__(self, base: int) -> None:
        self.total = base


class Pair(NamedTuple):
    left: int
    right: Point | None = None


class Song(TypedDict):
    title: str
    length: NotRequired[float]
    covers: NotRequired[list[Song]]


class Half(TypedDict, total=False):
    name: Required[str]
    size: int


@dataclass
class Album:
    songs: list[Song]
    half: Half


class Order(pydantic.BaseModel):
    number: int
    lines: list[Point] = []


class Arbitrary:
    pass


@dataclass
class Explosive:
    x: int

    def __post_init__(self) -> None:
        raise SystemExit("boom")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("in __str__")


@dataclass
class Mumbling:
    x: int

    def __post_init__(self) -> None:
        raise Unprintable


def convert(annotation: Any, value: Any) -> Any:
    converter = converter_for(annotation)
    assert converter is not None
    return converter(value)


NOON = datetime(2024, 11, 6, 12, 0, tzinfo=UTC)

CASES: list[tuple[Any, Any, Any]] = [
    (int, 5, 5),
    (int, True, True),
    (int, "5", 5),
    (float, 1, 1.0),
    (int | float, 1, 1),
    (int | float, 1.5, 1.5),
    (int | str, "5", "5"),
    (str | None, None, None),
    (Optional[int], None, None),  # noqa: UP045
    (None, None, None),
    (bytes, b"\x00", b"\x00"),
    (bytearray, b"kept as it is", b"kept as it is"),
    (complex, 1j, 1j),
    (datetime, NOON, NOON),
    (datetime, "2024-11-06T12:00:00+00:00", NOON),
    (date, "2024-11-06", date(2024, 11, 6)),
    (time, "12:30", time(12, 30)),
    (timedelta, "PT1M", timedelta(minutes=1)),
    (timedelta, 90, timedelta(seconds=90)),
    (Decimal, "1.10", Decimal("1.10")),
    (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
    (Path, "/tmp/x", Path("/tmp/x")),
    (Path, Path("/tmp/x"), Path("/tmp/x")),
    (list[int], (1, 2), [1, 2]),
    (set[int], [1, 1], {1}),
    (frozenset[str], ["a"], frozenset({"a"})),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, Point], [1, {"x": 2}], (1, Point(2))),
    (dict[int, Point], {"1": {"x": 1}}, {1: Point(1)}),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (Sequence[int], (1, 2), (1, 2)),
    (collections.deque[int], [1], collections.deque([1])),
    (Color, "red", Color.RED),
    (Color, Color.RED, Color.RED),
    (Color, (1, 2), Color.PAIR),
    (Access, 3, Access.READ | Access.WRITE),
    (Point, {"x": 1}, Point(1)),
    (Point, {"x": 1, "from_a_newer_client": 1}, Point(1)),
    (Point, Point(1, 2.5), Point(1, 2.5)),
    (Point | None, {"x": 1}, Point(1)),
    (Point | int | None, 7, 7),
    (Box, {"corner": {"x": 1, "y": 2}, "color": "red", "tags": ["a"]}, Box(corner=Point(1, 2.0), tags=["a"])),
    (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
    (Pair, (1, {"x": 2}), Pair(1, Point(2))),
    (Pair, [1], Pair(1)),
    (Pair, {"left": 1}, Pair(1)),
    (Song, {"title": "a", "covers": [{"title": "b"}]}, {"title": "a", "covers": [{"title": "b"}]}),
    (Half, {"name": "a"}, {"name": "a"}),
    (list[Half], ({"name": "a", "size": 1},), [{"name": "a", "size": 1}]),
    (Album, {"songs": [{"title": "a"}], "half": {"name": "b"}}, Album([{"title": "a"}], {"name": "b"})),
    (Order, {"number": "1", "lines": [{"x": 1}]}, Order(number=1, lines=[Point(1)])),
    (Literal["a", 1], "a", "a"),
    (Annotated[int, annotated_types.Gt(0)], 5, 5),
    (Annotated[Iterable[Point], "note"], [{"x": 1}], [Point(1)]),
    (UserId, 5, 5),
    (Iterable[Point], ({"x": 1},), (Point(1),)),
    (Iterable[Point], "text", "text"),
    (Iterable, [1], [1]),
    (Iterable[T], [1], [1]),
    (Iterable[Point] | None, [{"x": 1}], [Point(1)]),
    (collections.abc.Collection[Point], {"kept": 1}, {"kept": 1}),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), CASES)
def test_a_value_becomes_what_the_annotation_says(annotation: Any, value: Any, expected: Any) -> None:
    converted = convert(annotation, value)
    assert converted == expected
    assert type(converted) is type(expected)


def test_init_var_takes_part() -> None:
    assert convert(WithInitVar, {"base": 7}).total == 7


def test_a_built_instance_passes_as_it_is() -> None:
    point = Point(1)
    assert convert(Point, point) is point


def test_an_exact_value_passes_as_it_is() -> None:
    value = [object()]
    assert convert(list, value) is value


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        "Unresolved",
        typing.ForwardRef("Unresolved"),
        Arbitrary,
        list[Arbitrary],
        int | Arbitrary,
        Callable[[int], int],
        Callable,
        dict[str, Callable[..., int]],
        Iterator[int],
        typing.Generator[int, None, None],
        typing.AsyncIterator[int],
        typing.Awaitable[int],
        type[int],
        P.args,
        typing.Self,
        typing.ClassVar[int],
        5,
        [1],
        typing.Generic,
    ],
)
def test_nothing_is_converted(annotation: Any) -> None:
    assert converter_for(annotation) is None


@dataclass
class Holder:
    """pydantic refuses it: for the arbitrary class, and for the date that hides its own type."""

    color: Color
    points: list[Point] = field(default_factory=list)
    thing: Arbitrary | None = None
    date: date | None = None
    below: Holder | None = None
    start: InitVar[int] = 0
    total: int = field(init=False)

    def __post_init__(self, start: int) -> None:
        self.total = start + 1


@dataclass
class Younger(Holder):
    name: str = ""


HELD = {"color": "red", "points": [{"x": 1}], "thing": {"any": "thing"}, "date": "2024-02-29", "start": 4, "total": 9, "new": 1}


def test_a_field_of_an_arbitrary_class_leaves_the_others_converted() -> None:
    made = convert(Holder, {**HELD, "below": {"color": (1, 2)}})
    assert type(made) is Holder and made.color is Color.RED and made.points == [Point(1)] and made.total == 5
    assert made.thing == {"any": "thing"} and made.date == date(2024, 2, 29)
    assert type(made.below) is Holder and made.below.color is Color.PAIR
    assert convert(Holder, made) is made
    assert convert(Younger, {**HELD, "name": "y"}).date == date(2024, 2, 29)


def test_such_a_dataclass_is_found_wherever_it_stands() -> None:
    assert convert(list[Holder], (HELD,))[0].color is Color.RED
    assert convert(dict[str, Holder | None], {"a": None, "b": HELD})["b"].points == [Point(1)]
    assert convert(int | Holder, 5) == 5
    assert convert(Annotated[Holder, "note"], HELD).color is Color.RED
    assert convert(Iterable[Holder], [HELD])[0].color is Color.RED


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({**HELD, "color": "blue"}, "must be Holder, not .*color must be Color, not 'blue'"),
        ({**HELD, "date": "soon"}, "date must be date or None, not 'soon'"),
        ({}, "missing 1.*color"),
        ([1], r"must be Holder, not \[1\] .*a dictionary or an instance of Holder"),
    ],
)
def test_what_does_not_fit_such_a_dataclass_is_named(value: Any, text: str) -> None:
    with pytest.raises(ConversionError, match=text):
        convert(Holder, value)


def test_an_unresolvable_field_stays_as_it_came() -> None:
    broken = dataclasses.make_dataclass("broken", [("x", "Nowhere"), ("y", Color)])
    assert convert(broken, {"x": [1], "y": "red"}) == broken([1], Color.RED)


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (int | float, "x", "must be int or float, not 'x'"),
        (date, "2024-13-01", "must be date, not '2024-13-01' (Input should be a valid date"),
        (list[int], ["x"], "[0]: Input should be a valid integer"),
        (Box, {"corner": {"x": "no"}}, "corner.x: Input should be a valid integer"),
        (Color, "blue", "must be Color, not 'blue'"),
        (Literal["a"], "b", "must be one of 'a', not 'b'"),
        (Annotated[int, annotated_types.Gt(0)], -1, "greater than 0"),
        (str, [10**5000], "must be str, not a value of type list"),
        (list[int], ["x"] * 9, "and 6 more"),
        (list[int], ["x"] * 200_000, "(200000 parts of it do not fit)"),
        (Explosive, {"x": 1}, "SystemExit: 'boom'"),
        (Mumbling, {"x": 1}, "Unprintable: a value of type Unprintable"),
        (Iterable[Point], [{"x": "no"}], "must be Iterable[Point]"),
        (None, 1, "must be None, not 1"),
    ],
)
def test_a_misfit_is_explained(annotation: Any, value: Any, text: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(annotation, value)
    assert text in str(caught.value)


def test_a_circular_value_is_refused() -> None:
    circle: dict[str, Any] = {"value": 1, "children": []}
    circle["children"].append(circle)
    with pytest.raises(ConversionError):
        convert(Tree, circle)


def test_the_text_stays_short_for_huge_values() -> None:
    with pytest.raises(ConversionError) as caught:
        convert(int, "x" * 10_000_000)
    assert len(str(caught.value)) < 500


def test_typed_dicts_are_left_as_they_were() -> None:
    convert(Album, {"songs": [], "half": {"name": "b"}})
    assert not hasattr(Song, "__get_pydantic_core_schema__")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (None, "None"),
        (Optional[int], "int or None"),  # noqa: UP045
        (list[Point], "list[Point]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[int, 1], "int"),
        (Literal["a", 1], "one of 'a', 1"),
        (Any, "Any"),
        (5, "5"),
    ],
)
def test_readable(annotation: Any, text: str) -> None:
    assert readable(annotation) == text


def test_short_repr_never_raises() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Rude" in short_repr(Rude())
    assert short_repr(10**5000) == "a value of type int"


def function(a: int, b: Nowhere, c: list[Point] = [], *, d: Annotated[int, 1] = 0) -> Point: ...  # type: ignore[name-defined,empty-body]  # noqa: B006, F821


class Counter:
    def __call__(self, x: int) -> None: ...

    def method(self, y: Point) -> None: ...


def test_hints_that_cannot_be_resolved_are_left_out() -> None:
    assert resolve_hints(function) == {"a": int, "c": list[Point], "d": Annotated[int, 1], "return": Point}


def test_hints_of_all_kinds_of_callables() -> None:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    nothing = type(None)
    assert resolve_hints(Counter()) == {"x": int, "return": nothing}
    assert resolve_hints(Counter().method) == {"y": Point, "return": nothing}
    assert resolve_hints(functools.partial(Counter().method)) == {"y": Point, "return": nothing}
    assert resolve_hints(wrapper)["c"] == list[Point]
    assert resolve_hints(len) == {}


def test_hints_of_oddities_never_raise() -> None:
    class Odd:
        __annotations__ = 5

        def __call__(self) -> None: ...

    def circle() -> None: ...

    circle.__wrapped__ = circle  # type: ignore[attr-defined]
    circle.__annotations__["x"] = "1/0"

    def half_bad(x: int) -> None: ...

    half_bad.__annotations__["y"] = "1/0"
    assert resolve_hints(circle) == {}
    assert resolve_hints(half_bad) == {"x": int, "return": type(None)}
    assert isinstance(resolve_hints(Odd()), dict)
    assert resolve_hints(Odd) == {}


def test_unpacked_fields() -> None:
    assert unpacked_fields(Unpack[Half]) == {"name": Required[str], "size": NotRequired[int]}
    assert unpacked_fields(int) is None
    assert unpacked_fields(list[int]) is None
    assert unpacked_fields(Unpack[tuple[int, ...]]) is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 is younger")
def test_type_statements() -> None:
    namespace: dict[str, Any] = {"Point": Point}
    exec("type Points = list[Point] | None", namespace)
    assert convert(namespace["Points"], [{"x": 1}]) == [Point(1)]
