"""Which calls run now, and whether a further one may start: the server's rules. No I/O, no clock, no asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar
from uuid import UUID

from prpc.exceptions import CallCancelledError, CallError, DeadlineExceededError, WorkerLostError

__all__ = ["CallTable", "remaining_time"]

T = TypeVar("T")


def remaining_time(*limits: float | None) -> float | None:
    """The shortest of several times in seconds; None counts as without end."""
    shortest = None
    for limit in limits:
        if limit is not None and (shortest is None or limit < shortest):
            shortest = limit
    return shortest


class CallTable(Generic[T]):
    """The calls that run in one server, by message id, and the cancellations of those that may still come.

    Memory is bounded: running calls by the server's slots, cancellations that are remembered by `max_early` and `early_seconds`.
    """

    def __init__(self, *, max_early: int = 10_000, early_seconds: float = 300.0, max_attempts: int = 5) -> None:
        #: By the ids' numbers, as an id itself is hashed and compared by slower means.
        self._running: dict[int, T] = {}
        #: Ids that were cancelled, with the moment (monotonic seconds) of forgetting; oldest first.
        self._early: dict[UUID, float] = {}
        self._max_early = max_early
        self._early_seconds = early_seconds
        self._max_attempts = max_attempts

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._running.values()))

    def running(self, message_id: UUID) -> T | None:
        """The run of this id that is under way; a second entry of the same id must not run beside it."""
        return self._running.get(message_id.int)

    def begin(self, message_id: UUID, run: T) -> None:
        """Note that the call runs from now on."""
        self._running[message_id.int] = run

    def end(self, message_id: UUID) -> None:
        """Note that the call has ended."""
        self._running.pop(message_id.int, None)

    def may_repeat(self, attempt: int) -> bool:
        """Whether an idempotent call whose worker was lost in this attempt is run again."""
        return attempt < self._max_attempts

    def refusal(
        self, message_id: UUID, function: str, *, timeout: float | None, queued: float, attempt: int, idempotent: bool, now: float
    ) -> CallError | None:
        """Why the call must not be started; None where it may.

        `timeout` is what was left of its deadline when it was sent, `queued` how long it waited since (both seconds),
        `now` is on the monotonic scale.
        """
        if self._early and self._was_cancelled(message_id, now):
            return CallCancelledError(f"{function}() was cancelled before it started", message_id=str(message_id))
        # Before its deadline is looked at: that it was not started would be a guess, as nobody knows what the lost server did.
        if attempt > 1 and not idempotent:
            text = f"the server that ran {function}() was lost; the call is not repeated because {function} is not idempotent"
            return WorkerLostError(text, function=function)
        if timeout is not None and queued >= timeout:
            started = "started again" if attempt > 1 else "started"
            text = f"{function}() was not {started}: its {timeout:g} s had passed after {queued:.3f} s in the queue"
            return DeadlineExceededError(text, function=function, timeout=timeout, queued=queued)
        if attempt > self._max_attempts:
            return WorkerLostError(f"{function}() lost its server {attempt - 1} times; it is given up", function=function)
        return None

    def cancel(self, message_ids: Iterable[UUID], now: float) -> list[T]:
        """The runs to stop. Every id is remembered: its call, or a further attempt of one that runs, may still come."""
        runs: list[T] = []
        for message_id in message_ids:
            run = self._running.get(message_id.int)
            if run is not None:
                runs.append(run)
            self._early.pop(message_id, None)
            self._early[message_id] = now + self._early_seconds
        self._forget(now)
        return runs

    def _was_cancelled(self, message_id: UUID, now: float) -> bool:
        self._forget(now)
        return message_id in self._early

    def _forget(self, now: float) -> None:
        early = self._early
        while early:
            oldest = next(iter(early))
            if len(early) <= self._max_early and early[oldest] > now:
                return
            del early[oldest]
