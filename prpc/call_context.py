"""The call that the running code belongs to: `prpc.current_call()`."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from prpc.deadline import Clock, Deadline, SystemClock
from prpc.progress import Progress

__all__ = ["CurrentCall", "ProgressSink", "bind_current_call", "current_call", "inherited_timeout"]


class ProgressSink(Protocol):
    """Where calls say how far they are."""

    def report(self, message_id: str, progress: Progress) -> None:
        """Tell the caller, soon; a newer one takes the place of one that was not sent yet. From any thread, without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """Facts about the call that a function is serving."""

    #: Dashed uuid of the call.
    message_id: str
    #: Registered name of the function.
    function: str
    #: Headers that the caller set with `options(headers=...)`.
    headers: Mapping[str, str]
    #: When the call ends at the latest.
    deadline: Deadline
    #: 1 for the first run.
    attempt: int = 1
    clock: Clock = field(default_factory=SystemClock, repr=False)
    _sink: ProgressSink | None = field(default=None, repr=False, compare=False)
    # Filled once cancelled: nobody waits for it, and a list costs a tenth of an event.
    _cancelled: list[bool] = field(default_factory=list, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer wants the result. A thread function may look and stop by itself."""
        return bool(self._cancelled)

    def remaining(self) -> float | None:
        """Seconds left before the call is ended; None without a deadline."""
        return self.deadline.remaining(self.clock)

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far the call is: `done` of `total`, in any unit, and a word for people.

        As cheap as it is often called: at most ten a second travel, of those in between the last one does, and the very last
        one arrives before the outcome. From any thread. Raises ValueError for a number that is negative, infinite or none,
        TypeError for what is no number or no text. A message is cut to 500 characters.
        """
        progress = Progress(done, total, message)
        if self._sink is not None and not self._cancelled:
            self._sink.report(self.message_id, progress)

    def mark_cancelled(self) -> None:
        """For workers: make `cancelled` true."""
        self._cancelled.append(True)


_current: ContextVar[CurrentCall | None] = ContextVar("prpc_current_call", default=None)


def current_call() -> CurrentCall:
    """The call being served. Raises LookupError outside of a function that a PRPC server runs."""
    call = _current.get()
    if call is None:
        raise LookupError("current_call() works only inside a function that a PRPC server runs")
    return call


def bind_current_call(call: CurrentCall) -> None:
    """For servers and workers: make `call` the current one in this context."""
    _current.set(call)


def inherited_timeout() -> float | None:
    """For clients: seconds left of the call being served; None outside of one or where it has no deadline."""
    call = _current.get()
    return None if call is None else call.remaining()
