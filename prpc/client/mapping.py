"""One call for each item of an iterable, of any length: `map` of stubs and clients. A bounded number of calls is in flight.

An item is consumed when there is room for its call. Room is counted from the sending of a call until its result is handed to
the reader, so a slow reader, and in order a slow first call, hold back the input and the memory stays bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from prpc.client.bars import Bar, counting_bar
from prpc.client.one_reader import moment_after
from prpc.client.options import seconds_of
from prpc.client.portal import running_loop
from prpc.client.task import AwaitableTask
from prpc.client.window import Window
from prpc.exceptions import CallCancelledError, ClientTimeOutError, EncodeError

__all__ = ["MAX_IN_FLIGHT", "Mapped"]

R = TypeVar("R")

#: Calls of one map that are sent and not yet handed to its reader, where the caller does not say.
MAX_IN_FLIGHT = 200

Input = Iterable[Any] | AsyncIterable[Any]


class Mapped(Generic[R]):
    """The results of one call for each item: `for`, `async for`, or all as a list: `await`, `.result()`. It is read once.

    Whatever ends the reading early (a failure, `break`, an exception, a cancelled task, the timeout, the end of a `with` or
    `async with` around it) cancels the calls in flight, consumes nothing more and lets go of the input.
    """

    def __init__(
        self,
        call: Callable[..., AwaitableTask[Any]],
        inputs: Sequence[Input],
        *,
        name: str,
        max_in_flight: int,
        ordered: bool,
        return_exceptions: bool,
        timeout: timedelta | float | None,
        progress: bool,
    ) -> None:
        """`call` sends the call of one item; `name` stands in the texts of errors. Nothing is consumed before it is read."""
        _check_limit(max_in_flight)
        _check_inputs(inputs)
        self._call = call
        self._inputs = inputs
        self._name = name
        self._window = Window(max_in_flight, ordered, not return_exceptions)
        self._seconds = seconds_of(timeout)
        self._until: float | None = None
        self._progress = progress
        self._bar: Bar = counting_bar(False, None)
        self._begun = False
        self._handed = 0
        #: The items, of an input for plain code.
        self._rows: Iterator[tuple[Any, ...]] | None = None
        #: Consumes an input that has to be awaited, where there is room.
        self._feeder: asyncio.Task[None] | None = None
        self._space: asyncio.Event | None = None

    # -- reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[R]:
        """The results, for plain code. Raises TypeError where the input has to be awaited, RuntimeError the second time."""
        return self._read(None)

    def __aiter__(self) -> AsyncIterator[R]:
        """The results, for coroutines; the input may be an `AsyncIterable`, too. Raises RuntimeError the second time."""
        return self._read_async(None)

    def result(self, timeout: timedelta | float | None = None) -> list[R]:
        """All results, in the order of the reading. `timeout` in seconds bounds it, as the one that was given to `map`."""
        return list(self._read(timeout))

    async def async_result(self, timeout: timedelta | float | None = None) -> list[R]:  # noqa: ASYNC109 - the public face
        """The same for coroutines."""
        return [result async for result in self._read_async(timeout)]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.async_result().__await__()

    # -- leaving -------------------------------------------------------------------------------------------------------

    def cancel(self) -> int:
        """Cancel the calls in flight and consume nothing more; for any thread. Returns how many calls that were.

        Whoever reads on, or begins to, gets CallCancelledError.
        """
        count = self._window.cancel()
        self._inputs, self._rows = (), None
        feeder = self._feeder
        if feeder is not None and not feeder.done():
            loop = feeder.get_loop()
            if running_loop() is loop:
                feeder.cancel()
            else:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(feeder.cancel)
        return count

    def close(self) -> None:
        """`cancel`; nothing where everything was read."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        if self._feeder is not None:  # the input may have something to tidy up
            await asyncio.wait([self._feeder])

    # -- inside --------------------------------------------------------------------------------------------------------

    def _begin(self, timeout: timedelta | float | None) -> None:
        if self._begun:
            raise RuntimeError("the results of one map can be read once; call map again to send the calls again")
        self._begun = True
        given = [seconds for seconds in (self._seconds, seconds_of(timeout)) if seconds is not None]
        self._seconds = min(given, default=None)
        self._until = moment_after(self._seconds)
        if self._progress:
            self._bar = counting_bar(True, _length(self._inputs))

    def _read(self, timeout: timedelta | float | None) -> Iterator[R]:
        if not all(isinstance(each, Iterable) or not isinstance(each, AsyncIterable) for each in self._inputs):
            raise TypeError("an async iterable has to be awaited: read this map with `async for`, or `await` it, in a coroutine")
        self._begin(timeout)
        self._open_rows()
        return self._results()

    def _results(self) -> Iterator[R]:
        try:
            if running_loop() is not None:
                raise RuntimeError("plain `for` inside the running event loop would never end: use `async for`, or `await`")
            while True:
                self._consume()
                self._window.wait(self._until)
                if self._window.over:
                    return
                yield self._hand_out()
        finally:
            self._finish()

    def _read_async(self, timeout: timedelta | float | None) -> AsyncIterator[R]:
        self._begin(timeout)
        if not any(isinstance(each, AsyncIterable) for each in self._inputs):
            self._open_rows()
        return _AsyncResults(self)

    async def _next(self) -> R:
        if self._inputs:
            inputs, self._inputs, self._space = self._inputs, (), asyncio.Event()
            self._feeder = asyncio.create_task(self._feed(inputs, self._space), name="prpc-map")
        self._consume()
        await self._window.wait_async(self._until)
        if self._window.over:
            raise StopAsyncIteration
        return self._hand_out()

    def _hand_out(self) -> R:
        if self._window.cancelled:
            raise CallCancelledError(f"the map of {self._name}() was cancelled")
        taken = self._window.take()
        if taken is None:
            raise self._not_yet()
        outcome, collected = taken
        self._handed += 1
        self._bar.update(1)
        if self._space is not None:
            self._space.set()
        try:
            return cast("R", outcome.get_result())
        except Exception as exc:
            if not collected:
                raise
            return cast("R", exc)

    def _not_yet(self) -> ClientTimeOutError:
        seconds = self._seconds or 0.0
        text = (
            f"the map of {self._name}() did not end within {seconds:g} s: {self._handed} results were handed out, "
            f"{self._window.held} calls were in flight and are cancelled"
        )
        return ClientTimeOutError(text, timeout=seconds)

    def _finish(self) -> None:
        self.cancel()
        self._bar.close()

    # -- consuming -----------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> bool:
        """Whether another item may be consumed."""
        return self._window.room and (self._until is None or time.monotonic() < self._until)

    def _open_rows(self) -> None:
        inputs, self._inputs = cast("Sequence[Iterable[Any]]", self._inputs), ()
        self._rows = zip(*inputs, strict=False)

    def _consume(self) -> None:
        """Send one more call where there is room, and others as long as there is no result to hand out."""
        rows = self._rows
        while rows is not None and self._open:
            try:
                row = next(rows)
            except StopIteration:
                self._window.end()
                return
            except Exception as exc:
                self._window.end(exc)
                return
            self._send(row)
            if self._window.there:
                return

    async def _feed(self, inputs: Sequence[Input], space: asyncio.Event) -> None:
        try:
            sources = [aiter(each) if isinstance(each, AsyncIterable) else iter(each) for each in inputs]
            while True:
                while not self._open:
                    space.clear()
                    await space.wait()
                row = []
                for source in sources:  # a comprehension would make a RuntimeError of StopIteration
                    row.append(await anext(source) if isinstance(source, AsyncIterator) else next(source))  # noqa: PERF401
                self._send(row)
        except (StopIteration, StopAsyncIteration):
            self._window.end()
        except BaseException as exc:
            self._window.end(exc)
            if not isinstance(exc, Exception):
                raise

    def _send(self, row: Sequence[Any]) -> None:
        try:
            task = self._call(*row)
        except EncodeError as exc:
            self._window.refuse(exc)
        else:
            self._window.add(task)


class _AsyncResults(Generic[R]):
    """What `async for` reads; once nobody holds it any more, the map is over. (An async generator would end somewhat later.)"""

    def __init__(self, mapped: Mapped[R]) -> None:
        self._mapped: Mapped[R] | None = mapped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        if self._mapped is None:
            raise StopAsyncIteration
        try:
            return await self._mapped._next()
        except BaseException:
            self._leave()
            raise

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            mapped._finish()


def _check_limit(limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"max_in_flight={limit!r} cannot be used: allowed is a whole number")
    if limit < 1:
        raise ValueError(f"max_in_flight={limit} cannot be used: allowed is a whole number from 1 up")


def _check_inputs(inputs: Sequence[object]) -> None:
    if not inputs:
        raise TypeError("map needs at least one iterable")
    for each in inputs:
        if not any(hasattr(each, name) for name in ("__iter__", "__aiter__", "__getitem__")):
            raise TypeError(f"map needs iterables, and {type(each).__name__} is none")


def _length(inputs: Sequence[object]) -> int | None:
    """How many calls there will be, where all inputs know."""
    known = [len(each) for each in inputs if isinstance(each, Sized)]
    return min(known) if len(known) == len(inputs) else None
