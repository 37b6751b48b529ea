"""The ledger: what was called, what ran and how each call ended, and whether that is what PRPC promises.

Pure: events in, violations out. Who writes the events (programs on one machine, or a simulation) is no matter, as long as all
moments are of one clock. An event is a plain dict; the fields of each kind stand at `EVENTS`. Events of one moment count in the
order in which they are given. A rule is judged where the events that it is about are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.ledger import calls, deliveries, errors, leases, streams
from tests.ledger.book import Book
from tests.ledger.causes import Fault
from tests.ledger.terms import EVENTS, Event, Promise, Violation

__all__ = ["EVENTS", "Ledger", "Promise", "Violation"]


class Ledger:
    """All events of one run."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._book = Book(events)

    def __len__(self) -> int:
        return len(self._book.calls)

    @property
    def sure_calls(self) -> int:
        """Calls that no fault excuses, as the world was whole when they were sent."""
        return sum(self._book.is_sure(call) for call in self._book)

    @property
    def faults(self) -> list[Fault]:
        return list(self._book.faults)

    def summary(self) -> dict[str, int]:
        """Counts: calls, executions, calls that ran more than once, and each outcome."""
        how = Counter(call.outcomes[0]["how"] if call.outcomes else "(none)" for call in self._book)
        return {
            "calls": len(self),
            "executions": sum(len(call.starts) for call in self._book),
            "repeated": sum(len(call.starts) > 1 for call in self._book),
            **dict(sorted(how.items())),
        }

    def violations(self, promise: Promise) -> list[Violation]:
        """Every broken promise: of the world, then call by call, then of the entries."""
        book = self._book
        found = [Violation("whole world", what) for what in book.broken]
        found += [Violation("leak", f"{event['what']} (at {event['at']:.3f})") for event in book.leaks]
        for event in book.strangers:
            found.append(Violation("known calls", f"{event['event']} of {event['id']}, which nobody called"))
        gaps = None if promise.lease is None else leases.Gaps(book.renewals, promise.lease)
        for call in book:
            found += calls.judge(call, book, promise)
            found += errors.judge(call, book, promise)
            if gaps is not None:
                found += leases.judge(call, book, promise, gaps)
            found += streams.judge(call, book, promise)
        found += deliveries.judge(book)
        return found
