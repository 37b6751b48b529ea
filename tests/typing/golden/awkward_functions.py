"""Functions whose signatures are awkward in their parameters, defaults and names.

`CALLS` says what each gives: the same text is evaluated here and in the generated file.
"""

import datetime
import decimal
import enum
import fractions
import functools
import math
import pathlib
import typing
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple, Union

import annotated_types
import pydantic


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3
    ADMIN = 4


class Unknown:
    def __init__(self, size: int = 1) -> None:
        self.size = size


def nothing() -> None:
    pass


def positional_only(a: int, b: int = 2, /) -> int:
    return a - b


def keyword_only(*, a: int, b: int = 2) -> int:
    return a - b


def every_kind(
    a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: int
) -> list[int]:
    return [a, b, *rest, c, d, *more.values()]


def star_only(a: int, *, b: str = "x") -> str:
    return f"{a}{b}"


def varargs(*words: str) -> str:
    return " ".join(words)


def varkw(**numbers: float) -> dict[str, float]:
    return numbers


def unannotated(a, b=1, *args, c=None, **kwargs):
    return [a, b, list(args), c, kwargs]


def strings(
    plain: str = "text",
    quoted: str = 'He said "it\'s"',
    path: str = "C:\\temp\\new",
    lines: str = "a\nb\tc\0d",
    wide: str = "Ünïcödé ☃ \u202e",
    empty: str = "",
    single: str = "it's",
) -> str:
    return "|".join([plain, quoted, path, lines, wide, empty, single])


def raw_bytes(
    data: bytes = b"\x00\xff'\"", buffer: bytearray = bytearray(b"ab")
) -> bytes:
    return data + bytes(buffer)


def numbers(
    big: int = 12345678901234567890,
    negative: int = -1,
    tiny: float = 1e-300,
    huge: float = math.inf,
    undefined: float = math.nan,
    unreal: complex = 1 + 2j,
    yes: bool = True,
) -> str:
    return repr((big, negative, tiny, huge, undefined, unreal, yes))


def dates(
    day: datetime.date = datetime.date(2024, 2, 29),
    moment: datetime.datetime = datetime.datetime(
        2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc
    ),
    clock: datetime.time = datetime.time(23, 59, 59, 1),
    span: datetime.timedelta = datetime.timedelta(days=1, microseconds=5),
    zone: datetime.timezone = datetime.timezone(datetime.timedelta(hours=2), "EET"),
) -> datetime.datetime:
    return moment.astimezone(zone) + span


def exact(
    price: decimal.Decimal = decimal.Decimal("19.90"),
    part: fractions.Fraction = fractions.Fraction(1, 3),
    key: uuid.UUID = uuid.UUID("12345678-1234-5678-1234-567812345678"),
    home: pathlib.Path = pathlib.Path("/var/tmp"),
) -> list[str]:
    return [str(price), str(part), str(key), str(home)]


def containers(
    items: list[int] = [1, 2],
    pair: tuple[int, str] = (1, "a"),
    one: tuple[int] = (1,),
    none: tuple[()] = (),
    names: set[str] = {"b", "a"},
    fixed: frozenset[int] = frozenset({1}),
    table: dict[str, list[int]] = {"a": [1]},
    nothing: dict[str, int] = {},
) -> int:
    return (
        len(items)
        + len(pair)
        + len(one)
        + len(none)
        + len(names)
        + len(fixed)
        + len(table)
        + len(nothing)
    )


def enums(
    level: Level = Level.HIGH,
    mode: Mode = Mode.FAST,
    right: Right = Right.READ | Right.ADMIN,
) -> str:
    return f"{level.name} {mode.name} {right.value}"


def enum_result(level: Level) -> Level:
    return level


def literal(
    mode: Literal["r", "w", b"x", 1, True, None] = "r",
    level: Literal[Level.LOW] = Level.LOW,
) -> str:
    return f"{mode!r} {level.name}"


def annotated(
    age: Annotated[int, annotated_types.Ge(0), "years"] = 1,
    name: Annotated[
        str, pydantic.Field(min_length=1, max_length=20, description="who")
    ] = "x",
    share: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.5,
) -> str:
    return f"{name} {age} {share}"


def old_typing(
    a: Optional[int],
    b: Union[int, str, None],
    c: List[int],
    d: Dict[str, Tuple[int, ...]],
    e: Tuple = (),
) -> Optional[List[Any]]:
    return [a, b, c, d, list(e)]


def bare_generics(a: list, b: dict, c: tuple = (), d: typing.Sequence = ()) -> list:
    return [a, b, list(c), list(d)]


def abstract(a: Sequence[int], b: Mapping[str, int], c: Iterable[str]) -> Sequence[int]:
    return [len(a), len(b), len(list(c))]


def callback(
    a: int,
    hook: Callable[[int], int] | None = None,
    other: Callable[..., Any] | None = None,
) -> int:
    return a if hook is None else hook(a)


def implicit_optional(a: int = None, b: str = 5) -> str:  # type: ignore[assignment]
    return f"{a} {b}"


def unknown_class(
    a: Unknown, b: Unknown | None = None, c: list[Unknown] = [], d: Unknown = Unknown(3)
) -> Any:
    return [a, b, c, d.size]


def unresolvable(a: "Missing", b: "list[Missing]" = [], c: "1 +" = 2) -> "Missing":  # noqa: F821, F722
    return [a, b, c]


def odd_annotations(
    a: 5, b: "a text", c: [int, str], d: print = 1, e: (int, str) = 2
) -> {"x": 1}:  # noqa: F722
    return [a, b, c, d, e]


def hidden_default(
    a: int = 1, b: object = object(), c: Any = len, d: float = float("1e400")
) -> int:
    return a


def keyword_like(match: int, case: int, type: int, _: int = 0, soft: int = 1) -> int:
    return match + case + type + _ + soft


def shadows(int: int, list: list[int], str: str, Any: Any = None) -> list[int]:
    return [int, *list]


def self_first(
    self: int, cls: int, args: int, kwargs: int, name: str = "n", func: int = 0
) -> int:
    return self + cls + args + kwargs + func


def größe(länge: float, naïve: bool = False) -> float:
    return länge * 2


def long_literal(
    country: Literal[
        "Austria",
        "Belgium",
        "Denmark",
        "Estonia",
        "Finland",
        "France",
        "Germany",
        "Greece",
    ] = "Austria",
) -> Literal[
    "Austria",
    "Belgium",
    "Denmark",
    "Estonia",
    "Finland",
    "France",
    "Germany",
    "Greece",
    "x",
]:
    return country


def long_union(
    value: dict[str, list[tuple[int, str, float]]]
    | list[dict[str, tuple[int, ...]]]
    | tuple[int, ...]
    | None,
    other: dict[
        str, dict[str, dict[str, dict[str, list[tuple[int, str, float, bytes, None]]]]]
    ]
    | None = None,
) -> (
    list[dict[str, dict[str, dict[str, dict[str, dict[str, tuple[int, str, float]]]]]]]
    | None
):
    return None


def long_default(
    text: str = "A default that is so long that no formatter can do anything about it, whatever it may try here.",
    items: list[str] = [
        "one of many words",
        "another of many words",
        "the third of many words",
        "and one more",
    ],
) -> int:
    return len(text) + len(items)


def documented(a: int) -> int:
    r"""Says "hello" to \a and \\b.

        Indented, with trailing blanks.

    And triple quotes: \""" ''' — ends with a quote "
    """
    return a


def documented_badly(a: int) -> int:
    """ "Quoted" and ends with a backslash \\"""
    return a


async def coroutine(a: int, b: int = 1) -> int:
    return a + b


async def awaitable_maker(a: int) -> list[int]:
    return [a]


def returns_awaitable(a: int) -> Optional[Awaitable[int]]:
    return None


def never(a: int) -> typing.NoReturn:
    raise ValueError(f"no {a}")


def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorate
def decorated(a: int, b: "Level" = Level.LOW) -> "Level":
    return b


def many(
    a0=0,
    a1=1,
    a2=2,
    a3=3,
    a4=4,
    a5=5,
    a6=6,
    a7=7,
    a8=8,
    a9=9,
    *,
    b0: int = 0,
    b1: int = 1,
    b2: int = 2,
    b3: int = 3,
) -> int:
    return a0 + a9 + b0 + b3


class Calculator:
    """Registered as a service."""

    def __init__(self, start: int) -> None:
        self.start = start

    def add(self, number: int, *, times: int = 1) -> int:
        """Add to the start."""
        return self.start + number * times

    @classmethod
    def make(cls, a: int = 1) -> int:
        return a

    @staticmethod
    def fixed(a: int, /) -> int:
        return a


def _two_hundred() -> Callable[..., int]:
    names = [f"p{number}" for number in range(200)]
    space: dict[str, Any] = {}
    exec(
        f"def two_hundred({', '.join(name + ': int' for name in names)}) -> int:\n    return {' + '.join(names)}\n",
        space,
    )
    return space["two_hundred"]


two_hundred = _two_hundred()

FUNCTIONS = [
    nothing,
    positional_only,
    keyword_only,
    every_kind,
    star_only,
    varargs,
    varkw,
    unannotated,
    strings,
    raw_bytes,
    numbers,
    dates,
    exact,
    containers,
    enums,
    enum_result,
    literal,
    annotated,
    old_typing,
    bare_generics,
    abstract,
    callback,
    implicit_optional,
    unknown_class,
    unresolvable,
    odd_annotations,
    hidden_default,
    keyword_like,
    shadows,
    self_first,
    größe,
    long_literal,
    long_union,
    long_default,
    documented,
    documented_badly,
    coroutine,
    awaitable_maker,
    returns_awaitable,
    never,
    decorated,
    many,
    two_hundred,
]

#: Registered under a name that is no Python name, a keyword, a built-in, or a name that the file itself uses.
NAMED = {
    "class": nothing,
    "match": star_only,
    "list": abstract,
    "int": varargs,
    "print": unannotated,
    "Any": keyword_only,
    "remote_function": enums,
    "datetime": dates,
    "Literal": literal,
    "orders.add": positional_only,
    "orders_add": star_only,
    "SERVER_SCHEMA": nothing,
    "annotations": nothing,
    "__all__": nothing,
    "__import__": nothing,
    "Level": varkw,
    "cast": implicit_optional,
    "with spaces and-dashes": nothing,
    "ﬁle": nothing,
    "file": nothing,
    "1st": nothing,
    "_": nothing,
    "type": nothing,
    "None": nothing,
    "object": hidden_default,
    "prpc": nothing,
    "SERVER_DEFAULT": nothing,
    "<lambda>": nothing,
    "ping": nothing,
    "Optional": old_typing,
    "str": strings,
    "dict": containers,
    "tuple": containers,
}
NAMED.pop("ping")

CALLS = [
    "nothing()",
    "positional_only(7)",
    "positional_only(7, 3)",
    "keyword_only(a=1)",
    "every_kind(1, 2, 3, 3, c=5, z=6)",
    "star_only(1, b='y')",
    "varargs()",
    "varargs('a', 'b')",
    "varkw(x=1.5, y=2.0)",
    "unannotated(1)",
    "unannotated(1, 2, 3, c=4, d=5)",
    "strings()",
    "strings(quoted='x')",
    "raw_bytes()",
    "raw_bytes(b'x')",
    "numbers()",
    "numbers(5, huge=1.0)",
    "dates()",
    "exact()",
    "containers()",
    "containers([1], names={'x'})",
    "enums()",
    "enums(Level.LOW, Mode.SLOW, Right.BOTH)",
    "enum_result(Level.LOW)",
    "literal()",
    "literal('w')",
    "annotated()",
    "annotated(5, name='me')",
    "old_typing(1, 'b', [1], {'a': (1, 2)})",
    "bare_generics([1], {'a': 1})",
    "abstract([1, 2], {'a': 1}, ['x'])",
    "callback(4)",
    "implicit_optional()",
    "implicit_optional(3)",
    "unknown_class({'size': 1})",
    "unresolvable(1)",
    "odd_annotations(1, 2, 3)",
    "hidden_default()",
    "hidden_default(7)",
    "keyword_like(1, case=2, type=3)",
    "shadows(1, [2], 'x')",
    "self_first(1, 2, 3, 4)",
    "größe(1.5)",
    "größe(länge=1.5)",
    "long_literal('Greece')",
    "long_union(None)",
    "long_default()",
    "documented(1)",
    "documented_badly(1)",
    "coroutine(1)",
    "awaitable_maker(1)",
    "decorated(1)",
    "many()",
    "many(5, b3=4)",
    "two_hundred(*range(200))",
    "returns_awaitable(1)",
]
