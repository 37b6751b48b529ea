"""Futures of the adapters: work that belongs to a connection, and answers that are known at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["Turn", "Turns", "answered", "background"]

T = TypeVar("T")


def answered(value: T) -> asyncio.Future[T]:
    """A future that has ended already and needs not be awaited."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def background(work: Coroutine[Any, Any, T], name: str | None = None, *, context: Context | None = None) -> asyncio.Task[T]:
    """A task that belongs to a connection: it ends when its owner closes it, not when `asyncio.run` cancels what is left.

    `asyncio.run` ends by cancelling every task that the loop knows of, all at once; a connection whose tasks die there can
    neither flush nor close in order. This one is not among them, so whoever starts it must end it. Without a `context` it runs
    in an empty one: it outlives the call that happened to start it.
    """
    task = asyncio.get_running_loop().create_task(work, name=name, context=Context() if context is None else context)
    asyncio.tasks._unregister_task(task)  # a documented hook for task implementations (asyncio, "Extending")
    return task


class Turn:
    """One future for all that is begun in one turn of the loop: it ends with the last of them. See `Turns`."""

    __slots__ = ("_left", "done", "open")

    def __init__(self, done: asyncio.Future[Any]) -> None:
        #: Ends as True.
        self.done = done
        #: Whether more may join.
        self.open = True
        self._left = 0

    def join(self) -> None:
        """One more is begun."""
        self._left += 1

    def leave(self) -> None:
        """One has ended."""
        self._left -= 1
        self._look()

    def close(self) -> None:
        """The turn is over."""
        self.open = False
        self._look()

    def _look(self) -> None:
        if not self.open and not self._left and not self.done.done():
            self.done.set_result(True)


class Turns:
    """A future of its own, with what follows on it, would cost each call as much as a tenth of its way."""

    def __init__(self) -> None:
        self._turn: Turn | None = None

    def now(self) -> Turn:
        """The running turn of the loop."""
        turn = self._turn
        if turn is None or not turn.open:
            loop = asyncio.get_running_loop()
            turn = self._turn = Turn(loop.create_future())
            loop.call_soon(turn.close)
        return turn
