"""What type-checkers have to make of the generated files: a wrong call is an error, a result has its type."""

from collections.abc import AsyncIterator
from typing import Any

from typing_extensions import assert_type

from prpc.app_client import AwaitableTask, Stream
from stub_functions import Level, enum_result, every_kind, keyword_only, positional_only
from stub_streams import Reading, count, latest, merged, readings, total
from stub_types import (
    Box,
    Circle,
    Color,
    Point,
    UserId,
    box,
    move,
    newtypes,
    paint,
    shape,
    span,
)


async def results() -> None:
    assert_type(every_kind(1, 2, 3, c=4, e=5), AwaitableTask[list[int]])
    assert_type(await every_kind(1, 2, c=4), list[int])
    assert_type(await enum_result(Level.LOW), Level)
    assert_type(await move(Point(1.0)), Point)
    assert_type(await box(Box(1)), Box[str])
    assert_type((await span()).end, int)
    assert_type(await newtypes(UserId(1)), UserId)
    assert_type(paint.options(timeout=5)(Color.RED).result(3), Color)
    await shape(Circle("c", radius=2.0))


async def numbers() -> AsyncIterator[int]:
    yield 1


async def streams() -> None:
    assert_type(count(3), Stream[int])
    for number in count(3, start=1):
        assert_type(number, int)
    async for reading in readings(2):
        assert_type(reading, Reading)
    assert_type(readings.options(item_timeout=1)(2).next(3), Reading)
    assert_type(total(range(3)), AwaitableTask[int])
    assert_type(await total(numbers()), int)
    assert_type(await latest(readings(2)), Reading | None)
    async with merged(iter("ab"), other=None) as texts:
        assert_type(await texts.async_next(), str)


def mistakes() -> list[Any]:
    return [
        positional_only(a=1),  # type: ignore[call-arg] # pyright: ignore
        keyword_only(1),  # type: ignore[call-arg] # pyright: ignore
        count("3"),  # type: ignore[arg-type] # pyright: ignore
        total(5),  # type: ignore[arg-type] # pyright: ignore
        total(["x"]),  # type: ignore[list-item] # pyright: ignore
        enum_result("LOW"),  # type: ignore[arg-type] # pyright: ignore
        Point("x"),  # type: ignore[arg-type] # pyright: ignore
    ]
