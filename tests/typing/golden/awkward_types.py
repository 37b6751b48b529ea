"""Functions whose types have to come along: dataclasses, enums, models and what else a signature may name."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any, Generic, Literal, NamedTuple, NewType, TypeVar

import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PositiveInt, RootModel
from typing_extensions import (
    NotRequired,
    ReadOnly,
    Required,
    TypeAliasType,
    TypedDict,
    Unpack,
)

import awkward_other

T = TypeVar("T")
K = TypeVar("K", bound="Shape")
N = TypeVar("N", int, str)
T_co = TypeVar("T_co", covariant=True)


class Color(enum.Enum):
    """What it looks like."""

    RED = "r"
    BLUE = "b"
    AZURE = "b"


class Size(str, enum.Enum):
    S = "s"
    M = "m"


class Weight(float, enum.Enum):
    LIGHT = 0.5


class Perm(enum.IntFlag):
    R = 4
    W = 2
    X = 1
    ALL = 7


class Planet(enum.Enum):
    EARTH = (5.97e24, 6.37e6)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass


class Secret(enum.Enum):
    TOKEN = object()


@dataclasses.dataclass
class Address:
    """Where somebody lives."""

    city: str
    street: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Point:
    x: float
    y: float = 0.0


ORIGIN = Point(0.0)


@dataclasses.dataclass
class Shape:
    name: str
    center: Point = ORIGIN
    tags: list[str] = dataclasses.field(default_factory=list)
    kind: typing.ClassVar[str] = "shape"
    color: Color = Color.RED


@dataclasses.dataclass
class Circle(Shape):
    radius: float = 1.0


@dataclasses.dataclass(kw_only=True)
class Order:
    id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
    made: datetime.datetime = dataclasses.field(
        default_factory=lambda: datetime.datetime(2024, 1, 1)
    )
    total: int = dataclasses.field(init=False, default=7)
    lines: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Late:
    first: int = 0
    second: list[int] = dataclasses.field(default_factory=lambda: [1])
    third: str = "c"


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)
    parent: Tree | None = None


@dataclasses.dataclass
class Ping:
    pong: Pong | None = None


@dataclasses.dataclass
class Pong:
    ping: Ping | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    spare: list[T] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class IntBox(Box[int]):
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Held(Generic[T_co]):
    item: T_co


@dataclasses.dataclass
class Shadow:
    date: datetime.date | None = None
    list: list[int] | None = None
    Color: Color | None = None
    field: int = dataclasses.field(default=1, kw_only=True)
    dict: dict[str, int] = dataclasses.field(default_factory=dict)
    Address: Address | None = None


class Plain:
    pass


@dataclasses.dataclass
class Mixed(Plain):
    plain: Plain | None = None
    count: int = 0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]
    id: ReadOnly[int]


class Partial(TypedDict, total=False):
    a: int
    b: Required[str]


class Sequel(Movie, total=False):
    of: Movie


Headers = typing.TypedDict(
    "Headers", {"content-type": str, "class": "NotRequired[int]"}
)


class Options(TypedDict, total=False):
    depth: int
    color: Color


class Pair(TypedDict, Generic[T]):
    left: T
    right: T


class Span(NamedTuple):
    """From, to."""

    start: int
    end: int = 10
    step: int | None = None


class Both(NamedTuple, Generic[T]):
    one: T
    two: T


Untyped = namedtuple("Untyped", "a b", defaults=[5])


class User(BaseModel):
    """Somebody."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(min_length=1, max_length=30, description='The "full" name')
    age: PositiveInt = 1
    site: HttpUrl | None = None
    home: Address | None = None
    made: datetime.datetime = Field(
        default_factory=lambda: datetime.datetime(2024, 1, 1)
    )
    tags: list[str] = Field(default_factory=list)
    level: Literal["a", "b"] = "a"
    code: str = Field(default="ab", pattern=r"^[a-z\"]+$")
    friends: list[User] = []


class Admin(User):
    rights: Perm = Perm.ALL


class Alias(BaseModel):
    user_id: int = Field(alias="userId")


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int = 0


class Ids(RootModel[list[int]]):
    pass


class Nested(RootModel["dict[str, Nested | int]"]):
    pass


UserId = NewType("UserId", int)
SuperId = NewType("SuperId", UserId)
Odd = NewType("Odd", "int | str")
Json = TypeAliasType(
    "Json", "dict[str, Json] | list[Json] | str | int | float | bool | None"
)
Two = TypeAliasType("Two", tuple[T, T], type_params=(T,))
Vector = list[float]


def address(
    a: Address, b: awkward_other.Address, c: awkward_other.Outer.Address
) -> str:
    return f"{a.city} {b.country} {c.floor}"


def colors(a: Color, b: awkward_other.Color) -> tuple[str, str]:
    return a.name, b.name


def paint(
    color: Color = Color.BLUE,
    size: Size = Size.M,
    weight: Weight = Weight.LIGHT,
    perm: Perm = Perm.R | Perm.W,
) -> Color:
    return color


def planet(planet: Planet = Planet.EARTH) -> float:
    return planet.mass


def secret(secret: Secret | None = None) -> None:
    return None


def move(point: Point, by: Point = Point(1.0, 2.0)) -> Point:
    return Point(point.x + by.x, point.y + by.y)


def shape(shape: Shape, other: Circle | None = None) -> Shape:
    return shape


def circle(radius: float) -> Circle:
    return Circle("c", radius=radius)


def order(order: Order) -> int:
    return sum(order.lines.values()) + order.total


def late(late: Late) -> list[int]:
    return late.second


def tree(tree: Tree) -> int:
    return tree.value + sum(child.value for child in tree.children)


def grow(depth: int) -> Tree:
    return Tree(depth, [grow(depth - 1)] if depth else [])


def ping_pong(ping: Ping) -> Pong:
    return Pong(ping)


def box(
    box: Box[int], other: Box[list[Point]] | None = None, any_box: Box = Box(1)
) -> Box[str]:
    return Box(str(box.content))


def int_box(box: IntBox) -> IntBox:
    return box


def held(held: Held[int]) -> int:
    return held.item


def shadow(count: int, other: Shadow | None = None) -> Shadow:
    return Shadow(
        list=[count],
        Color=Color.RED,
        date=datetime.date(2024, 1, count),
        Address=Address("a"),
    )


def mixed(mixed: Mixed) -> int:
    return mixed["count"] if isinstance(mixed, dict) else mixed.count


def movie(
    movie: Movie, sequel: Sequel | None = None, partial: Partial | None = None
) -> Movie:
    return movie


def headers(headers: Headers) -> Headers:
    return headers


def unpacked(a: int, **options: Unpack[Options]) -> int:
    return a + options.get("depth", 0)


def unpacked_args(*args: Unpack[tuple[int, str]]) -> str:
    return f"{args[0]}{args[1]}"


def pair(pair: Pair[int]) -> int:
    return pair["left"]


def span(span: Span = Span(1, 5), both: Both[int] = Both(1, 2)) -> Span:
    return span._replace(step=both.two)


def untyped(value: Untyped) -> int:
    return value.a + value.b


def user(user: User) -> User:
    return user.model_copy(update={"age": user.age + 1})


def admin(admin: Admin) -> str:
    return f"{admin.name} {admin.rights!r}"


def alias(alias: Alias) -> Alias:
    return Alias(userId=alias.user_id + 1)


def page(page: Page[int], other: Page[User] | None = None) -> Page[str]:
    return Page[str](items=[str(item) for item in page.items])


def ids(ids: Ids, nested: Nested | None = None) -> Ids:
    return Ids([*ids.root, 1])


def newtypes(
    a: UserId, b: SuperId = SuperId(UserId(5)), c: Odd = 1, d: UserId = UserId(2)
) -> UserId:
    return UserId(a + b + d)


def json(value: Json) -> Json:
    return [value, {"a": value}]


def two(a: Two[int], b: Vector) -> Two[str]:
    return str(a[0]), str(b[0])


def first(items: list[T]) -> T:
    return items[0]


def bounded(shape: K, other: N) -> K:
    return shape


def deep(
    a: dict[str, list[tuple[Point, dict[Color, set[int]]]]],
    b: OrderedDict[str, defaultdict[str, list[Point]]] | None = None,
) -> dict[str, list[Point]]:
    return {key: [point for point, _ in items] for key, items in a.items()}


def guards(a: object) -> typing_extensions.TypeIs[int]:
    return isinstance(a, int)


def local() -> Any:
    @dataclasses.dataclass
    class Local:
        x: int

    def inner(a: Local, b: Local = Local(1)) -> Local:  # type: ignore[valid-type]
        return a

    inner.__annotations__ = {"a": Local, "b": Local, "return": Local}
    return inner


inner = local()


class Service:
    def paint(self, color: Color, *more: Color) -> list[Color]:
        return [color, *more]

    def move(self, point: Point) -> Point:
        return Point(-point.x, point.y)


FUNCTIONS = [
    address,
    colors,
    paint,
    planet,
    secret,
    move,
    shape,
    circle,
    order,
    late,
    tree,
    grow,
    ping_pong,
    box,
    int_box,
    held,
    shadow,
    mixed,
    movie,
    headers,
    unpacked,
    unpacked_args,
    pair,
    span,
    untyped,
    user,
    admin,
    alias,
    page,
    ids,
    newtypes,
    json,
    two,
    first,
    bounded,
    deep,
    guards,
    inner,
]

CALLS = [
    "address(Address('a'), OTHER('de', 49), FLOOR(3))",
    "colors(Color.RED, OTHER_COLOR.CYAN)",
    "paint()",
    "paint(Color.AZURE, Size.S, perm=Perm.ALL)",
    "planet()",
    "secret()",
    "move(Point(1.0))",
    "move(Point(1.0, 2.0), Point(0.5))",
    "shape(Shape('s', tags=['a']))",
    "shape(Shape('s'), Circle('s', radius=2.0))",
    "circle(2.5)",
    "order(Order(made=MADE, lines={'a': 2}))",
    "late(Late(second=[5]))",
    "tree(Tree(1, [Tree(2)]))",
    "grow(2)",
    "ping_pong(Ping(Pong()))",
    "box(Box(5))",
    "int_box(IntBox(1, [2], 'x'))",
    "held(Held(4))",
    "shadow(3)",
    "mixed(Mixed(count=2))",
    "movie({'title': 'x', 'id': 1})",
    "movie({'title': 'x', 'id': 1}, partial={'b': 'y'})",
    "headers({'content-type': 'x'})",
    "unpacked(1, depth=2)",
    "unpacked_args(1, 'a')",
    "pair({'left': 1, 'right': 2})",
    "span()",
    "span(Span(4))",
    "untyped(Untyped(1))",
    "user(USER)",
    "admin(ADMIN)",
    "alias(Alias(userId=3))",
    "page(Page[int](items=[1, 2]))",
    "ids(Ids([4]))",
    "newtypes(UserId(1))",
    "json({'a': [1, None]})",
    "two((1, 2), [0.5])",
    "first([3, 4])",
    "bounded(Shape('s'), 1)",
    "deep({'a': [(Point(1.0), {})]})",
    "guards(1)",
]
