"""Intake: a stream that a caller sends, as the iterator that the function gets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from prpc.exceptions import BadArgumentsError
from prpc.streaming.ends import Reader

__all__ = ["Intake", "intake_of"]


class Intake:
    """An iterator for plain functions and, alike, an async one for coroutine functions. Read by one reader, once.

    Raises to the function what ended the stream before its end, and BadArgumentsError for an item that does not fit the
    annotation.
    """

    def __init__(self, reader: Reader, function: str, speak: Callable[[], None]) -> None:
        """`speak`: have the caller told how far the function is; belongs to the loop's thread."""
        self._reader, self._function, self._speak = reader, function, speak
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._news = asyncio.Event()
        self._error: Exception | None = None
        #: Name of the function's parameter.
        self.parameter = reader.key[1]
        #: Turns an item into what the annotation asks for.
        self.convert: Callable[[Any], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while not self._is_ready():
            with self._changed:
                if not self._is_ready():
                    self._changed.wait()
        return self._take(StopIteration)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._is_ready():
            self._news.clear()
            await self._news.wait()
        return self._take(StopAsyncIteration)

    def news(self) -> None:
        """Something came. In the loop's thread."""
        self._news.set()
        with self._changed:
            self._changed.notify_all()

    def end(self, error: Exception) -> None:
        """Nothing comes any more; who still reads gets this error. In the loop's thread."""
        self._error = error
        self.news()

    def _is_ready(self) -> bool:
        reader = self._reader
        return bool(len(reader.inbox)) or reader.is_over or self._error is not None or reader.error is not None

    def _take(self, end: type[Exception]) -> Any:
        inbox = self._reader.inbox
        if self._error is not None:
            raise self._error
        if not len(inbox):
            raise self._reader.error or end
        item = inbox.take()
        if inbox.wants_more and not self._reader.is_over:
            self._loop.call_soon_threadsafe(self._speak)
        if self.convert is None:
            return item
        try:
            return self.convert(item)
        except ValueError as exc:
            text = f"{self._function}(): an item of the argument {self.parameter!r} {exc}"
            raise BadArgumentsError(text, function=self._function, parameter=self.parameter) from exc


def intake_of(values: Sequence[Any], *, is_async: bool) -> Iterator[Any] | AsyncIterator[Any]:
    """The iterator for a caller that sent all items at once."""
    return _each(values) if is_async else iter(values)


async def _each(values: Sequence[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value
