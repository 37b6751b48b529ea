"""Rule of leases: a call is lost only with whoever had it, and that is a server which died, was silent, or lost its worker."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tests.ledger.book import Book, Call
from tests.ledger.terms import Event, Promise, Violation

__all__ = ["Gaps", "judge"]

#: Seconds that are nothing but the rounding of a sum.
ROUNDING = 1e-6


class Gaps:
    """When servers did not renew their leases for as long as these last."""

    def __init__(self, renewals: Mapping[str, Sequence[float]], lease: float) -> None:
        self._renewals, self._lease = renewals, lease
        self._found: dict[str, list[tuple[float, float]]] = {}

    def lost(self, server: str, first: float, last: float) -> bool:
        """Whether its lease had run out at some moment of this time."""
        gaps = self._of(server)
        at = bisect_left(gaps, first, key=lambda gap: gap[1])
        return at < len(gaps) and gaps[at][0] + self._lease <= last + ROUNDING

    def _of(self, server: str) -> list[tuple[float, float]]:
        """From one renewal to the next, in order."""
        gaps = self._found.get(server)
        if gaps is None:
            times = [-math.inf, *self._renewals.get(server, ()), math.inf]
            gaps = self._found[server] = [(a, b) for a, b in pairwise(times) if b - a >= self._lease - ROUNDING]
        return gaps


def judge(call: Call, book: Book, promise: Promise, gaps: Gaps) -> Iterator[Violation]:
    if not call.outcomes or call.outcomes[0]["how"] != "WorkerLostError":
        return
    runs = [start for start in call.starts if start["at"] <= call.ended]
    if not runs:
        taken = call.of("taken")
        if not any(_is_lost(call, event["server"], event["at"], event["at"], book, gaps) for event in taken):
            where = ", ".join(f"{event['server']} at {event['at']:.3f}" for event in taken) or "nobody"
            text = f"{call.name} ended with WorkerLostError at {call.ended:.3f}, yet {where}, who had taken it, was not lost"
            yield Violation("true loss", text)
        return
    alive = [start for start in runs if not _is_given_up(call, start, book, gaps)]
    # Each attempt of a caller is an entry, lost by itself: that of one ends the call while another still runs it.
    several = call.idempotent and len({event["entry"] for kind in ("entered", "taken") for event in call.of(kind)}) > 1
    if alive and not (several and len(alive) < len(runs)):
        where = ", ".join(f"{start['server']} from {start['at']:.3f}" for start in alive)
        text = f"{call.name} ended with WorkerLostError at {call.ended:.3f}, yet {where} ran it and was not lost"
        yield Violation("true loss", text)


def _is_given_up(call: Call, start: Event, book: Book, gaps: Gaps) -> bool:
    """Whether this execution's server lost the call, or gave it back, as a server that stops does with one that may run twice."""
    server, at = start["server"], start["at"]
    taken = [event for event in call.of("taken") if event["server"] == server and event["at"] <= at]
    since = taken[-1]["at"] if taken else at  # a server that was silent before it starts the call has lost it, too
    if _is_lost(call, server, at, since, book, gaps):
        return True
    if not call.idempotent or not taken:
        return False
    delivery = taken[-1]["delivery"]
    history = book.history[taken[-1]["entry"]]
    return any(e["event"] == "ended" and e["done"] and e["how"] == "release" and e["delivery"] == delivery for e in history)


def _is_lost(call: Call, server: str, start: float, since: float, book: Book, gaps: Gaps) -> bool:
    """Killed or its worker dead from `start` on, or silent from `since` on, before the call ended."""
    if book.faults.killed(server, start, call.ended) or gaps.lost(server, since, call.ended):
        return True
    return any(event["server"] == server and start <= event["at"] <= call.ended for event in call.of("worker"))
