"""Workers: what runs the functions. `create_pool` makes a pool by its kind; base.py is the contract.

Nothing is imported before it is needed: process workers come through here too, and each starts the sooner for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from prpc.settings import Settings
    from prpc.workers.base import WorkerKind, WorkerPool

__all__ = ["create_pool", "create_stream_pool"]


def create_pool(kind: WorkerKind, slots: int, settings: Settings, *, functions: Sequence[Callable[..., Any]] = ()) -> WorkerPool:
    """A pool that runs `slots` jobs at once, not started yet.

    `functions` are those it will be given; process workers import them before they are ready. Raises RegistrationError
    where one of them cannot be found by a process worker.
    """
    if kind == "thread":
        from prpc.workers.thread import ThreadPool

        return ThreadPool(slots)
    if kind == "async":
        from prpc.workers.coroutine import CoroutinePool

        return CoroutinePool(slots)
    from prpc.workers.process import ProcessPool

    return ProcessPool(slots, settings, functions)


def create_stream_pool(kind: WorkerKind, slots: int) -> WorkerPool:
    """A pool that runs `slots` streaming functions of this kind at once, not started yet."""
    from prpc.workers.streaming import ThreadStreams, stream_items

    if kind == "thread":
        return ThreadStreams(slots)
    from prpc.workers.coroutine import CoroutinePool

    return CoroutinePool(slots, stream_items)
