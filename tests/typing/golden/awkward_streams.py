"""Functions that stream their items, and functions that are sent streams."""

import asyncio
import datetime
import enum
import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from typing import Any, Optional


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Reading:
    where: str
    when: datetime.datetime
    color: Color = Color.RED


MADE = datetime.datetime(2024, 1, 1)


def count(number: int, /, *, start: int = 0) -> Iterator[int]:
    """Numbers.

    From `start` on.
    """
    yield from range(start, start + number)


def readings(number: int, color: Color = Color.BLUE) -> Generator[Reading, None, None]:
    for value in range(number):
        yield Reading(str(value), MADE, color)


def any_order(values: list[int]) -> Iterable[tuple[int, str]]:
    for value in values:
        yield value, str(value)


async def ticks(number: int) -> AsyncIterator[Color]:
    for _ in range(number):
        await asyncio.sleep(0)
        yield Color.RED


async def async_generator(number: int) -> AsyncGenerator[Reading, None]:
    for value in range(number):
        yield Reading(str(value), MADE)


async def async_iterable(number: int) -> AsyncIterable[float | None]:
    for value in range(number):
        yield value / 2 if value else None


def says_nothing(number: int):
    yield from range(number)


def bare(number: int) -> Iterator:
    yield from range(number)


def optional(number: int) -> Iterator[Optional[int]]:
    yield from (None, number)


def prefixed(prefix: str, number: int) -> Iterator[str]:
    yield from (f"{prefix}{value}" for value in range(number))


partial = functools.partial(prefixed, "p")


def total(numbers: Iterator[int]) -> int:
    return sum(numbers)


async def latest(points: AsyncIterator[Reading], /) -> Reading | None:
    last = None
    async for point in points:
        last = point
    return last


def doubled(numbers: Iterator[int], times: int = 2) -> Iterator[int]:
    for number in numbers:
        yield times * number


async def merged(
    one: AsyncIterator[str], *, other: AsyncIterator[Color] | None = None
) -> AsyncIterator[str]:
    async for text in one:
        yield text
    if other is not None:
        async for color in other:
            yield color.value


def anything(values: Iterator) -> list[Any]:
    return list(values)


def list_of_lists(values: list[Iterable[int]]) -> int:
    return sum(map(sum, values))


FUNCTIONS = [
    count,
    readings,
    any_order,
    ticks,
    async_generator,
    async_iterable,
    says_nothing,
    bare,
    optional,
    total,
    latest,
    doubled,
    merged,
    anything,
    list_of_lists,
]
#: Registered name -> function.
NAMED = {
    **{function.__name__: function for function in FUNCTIONS},
    "partial": partial,
    "numbers.count": count,
    "iter": count,
}
#: What is called here and over there; of a stream the items are compared.
CALLS = [
    "count(3)",
    "count(3, start=7)",
    "readings(2)",
    "readings(2, Color.RED)",
    "any_order([3, 1])",
    "ticks(2)",
    "async_generator(2)",
    "async_iterable(3)",
    "says_nothing(2)",
    "bare(2)",
    "optional(5)",
    "partial(2)",
    "total(numbers=reversed([1, 2]))",
    "total(range(4))",
    "total([1, 2])",
    "doubled(range(5), times=3)",
    "anything(reversed([1, 'x', None]))",
    "list_of_lists([[1], [2, 3]])",
]
