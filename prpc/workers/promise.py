"""A result that comes once, and is told at once: in the step that brings it, without a turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, cast

__all__ = ["Coming", "Promise"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Coming(Protocol[T_co]):
    """What a Promise and a future have in common."""

    def done(self) -> bool: ...

    def result(self) -> T_co:
        """Once it is done."""
        ...

    def add_done_callback(self, told: Callable[[Any], object], /) -> object:
        """Have `told(self)` called once it is done."""
        ...

    def __await__(self) -> Generator[Any, None, T_co]: ...


class Promise(Generic[T]):
    """Holds no exception and knows no cancelling. Whoever awaits it may be cancelled without harm to it.

    Who waits is told right then, in the context of whoever brings the result: functions end many thousand times a second, and
    a future of asyncio costs each of them a turn of the loop.
    """

    __slots__ = ("_done", "_result", "_told")

    def __init__(self) -> None:
        self._done = False
        self._result: T | None = None
        self._told: list[Callable[[Promise[T]], object]] | None = None

    def done(self) -> bool:
        """Whether the result is there."""
        return self._done

    def result(self) -> T:
        """The result. Raises InvalidStateError where it is not there."""
        if not self._done:
            raise asyncio.InvalidStateError("the result is not there yet")
        return cast("T", self._result)

    def set_result(self, result: T) -> None:
        """Once; raises InvalidStateError a second time."""
        if self._done:
            raise asyncio.InvalidStateError("the result was there already")
        self._result, self._done = result, True
        told, self._told = self._told, None
        for function in told or ():
            self._tell(function)

    def add_done_callback(self, told: Callable[[Promise[T]], object], /) -> None:
        """Have `told(self)` called once the result is there; where it is, in the next turn of the loop, so that what ends as it
        begins does not pile up on the stack."""
        if self._done:
            asyncio.get_running_loop().call_soon(told, self)
        elif self._told is None:
            self._told = [told]
        else:
            self._told.append(told)

    def _tell(self, function: Callable[[Promise[T]], object]) -> None:
        try:
            function(self)
        except Exception as exc:  # one's fault keeps nobody else from being told
            asyncio.get_running_loop().call_exception_handler({"message": f"{function!r} failed", "exception": exc})

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
            yield from waiter
        return self.result()
