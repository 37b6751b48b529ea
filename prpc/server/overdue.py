"""Calls whose time is over by a clock that no timer follows: one that a test moves by hand."""

from __future__ import annotations

from collections.abc import Iterable

from prpc.call_context import CurrentCall
from prpc.deadline import Clock
from prpc.exceptions import WorkerTimeoutError
from prpc.workers.base import Execution

__all__ = ["end_overdue"]


def end_overdue(running: Iterable[tuple[CurrentCall, Execution]], clock: Clock) -> None:
    """End those of the running calls whose deadline has come, as the timer of their pool would."""
    for call, execution in running:
        if call.deadline.expired(clock):
            call.mark_cancelled()
            text = f"{call.function} ran longer than it may: its deadline came when the clock was moved"
            execution.cancel(WorkerTimeoutError(text, function=call.function, running=execution.running))
