"""Python 3.12 syntax: `type` statements and type parameters. Read as a text, so that 3.11 can leave it alone."""

SOURCE = """
import dataclasses
from typing import NamedTuple, TypedDict


type Json = dict[str, Json] | list[Json] | str | int | float | bool | None
type Pairs[K, V] = list[tuple[K, V]]


@dataclasses.dataclass
class Stack[T: (int, str)]:
    items: list[T]


@dataclasses.dataclass
class Bounded[T: "Item"]:
    one: T


@dataclasses.dataclass
class Item:
    number: int = 0


class Cell[T](NamedTuple):
    value: T


class Row[T](TypedDict):
    value: T


def json(value: Json) -> Json:
    return [value]


def pairs(value: Pairs[str, int]) -> Pairs[int, str]:
    return [(number, text) for text, number in value]


def push[T: (int, str)](stack: Stack[int], item: int, other: T) -> Stack[int]:
    return Stack([*stack.items, item])


def unbound[T](items: list[T], *rest: T) -> T:
    return items[0]


def bound[T: Item](item: T, more: Bounded[Item] | None = None) -> T:
    return item


def cell(cell: Cell[int], row: Row[str]) -> Cell[str]:
    return Cell(row["value"] * cell.value)


def spread[*Ts, **P](*args: *Ts) -> tuple[*Ts]:
    return args
"""

NAMES = ["json", "pairs", "push", "unbound", "bound", "cell", "spread"]

CALLS = [
    "json({'a': [1]})",
    "pairs([('a', 1)])",
    "push(Stack([1]), 2, 'x')",
    "unbound([3], 4)",
    "bound(Item(3))",
    "cell(Cell(2), {'value': 'ab'})",
    "spread(1, 'a')",
]
