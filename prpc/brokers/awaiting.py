"""Futures of the adapters: work that belongs to a connection, and answers that are known at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["answered", "background"]

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
