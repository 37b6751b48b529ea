"""Rules of one call: its outcomes, its executions, and when they may come."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.ledger.book import Book, Call
from tests.ledger.terms import Promise, Violation

__all__ = ["judge"]

#: Outcomes which say that the function was not started.
NOT_STARTED = frozenset(
    {"DeadlineExceededError", "QueueFullError", "NoServerError", "FunctionNotFoundError", "BadArgumentsError"}
)
#: Seconds that a timer may be early, as it rounds.
ROUNDING = 0.001
#: Seconds that a reader takes for one item at most.
SLOWEST_READ = 1.0


def judge(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    yield from _of_outcomes(call, book, promise)
    yield from _of_executions(call, book)
    yield from _of_late_starts(call, book, promise)
    yield from _of_first_outcome(call, book)
    if promise.cancelled_within is not None:
        yield from _of_cancellations(call, book, promise.cancelled_within)
    if promise.outcome_within is not None:
        yield from _of_lost_outcomes(call, book, promise.outcome_within)


def _of_outcomes(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    """One outcome, and that by the deadline; a client that was killed has nobody to tell, a reader that left does not listen."""
    # Who reads a stream slowly hears of its end when the items before it are read.
    due = max([call.due, *(read["at"] for read in call.of("read")[-1:])]) + promise.slack
    outcomes = call.outcomes
    if call.cancelled and any(outcome["how"] != "CallCancelledError" for outcome in outcomes):
        won = next(event["at"] for event in call.of("cancel") if event["won"])
        how = ", ".join(f"{outcome['how']} at {outcome['at']:.3f}" for outcome in outcomes)
        yield Violation("cancelled", f"{call.name} was cancelled at {won:.3f}, yet it ended with {how}")
    if len(outcomes) > 1:
        yield Violation("one outcome", f"{call.name} ended {len(outcomes)} times: {[o['how'] for o in outcomes]}")
    elif not outcomes:
        # A slow reader that was killed had not come to the end yet, perhaps not even of the first item.
        reading = SLOWEST_READ if call.of("made") else 0.0
        awake = max(due, book.faults.stood_still(call.event["client"], call.event["at"], due) + promise.slack)
        heard = call.event["client"] not in book.gone or book.gone[call.event["client"]] > awake + reading
        if heard and not call.of("leave"):
            yield Violation("no silence", f"{call.name} has no outcome")
    elif outcomes[0]["at"] > max(due, book.faults.stood_still(call.event["client"], call.event["at"], due) + promise.slack):
        late = outcomes[0]["at"] - call.due
        yield Violation("deadline", f"{call.name} ended {late:.3f} s after its deadline with {outcomes[0]['how']}")
    elif promise.exact and outcomes[0]["how"] == "ClientTimeOutError" and outcomes[0]["at"] < call.due - ROUNDING:
        yield Violation(
            "early timeout", f"{call.name} ran out of time at {outcomes[0]['at']:.3f}, which it had until {call.due:.3f}"
        )


def _of_executions(call: Call, book: Book) -> Iterator[Violation]:
    starts = call.starts
    # A broker that has forgotten who had a call gives it out once more, which the documentation says; whoever was given it
    # first may begin it after that.
    first = min((event["at"] for event in [*call.of("taken"), *starts]), default=0.0)
    last = starts[-1]["at"] if starts else 0.0
    if not call.idempotent and len(starts) > 1 and not book.faults.forgot_between(first, last):
        where = ", ".join(f"{s['server']} at {s['at']:.3f}" for s in starts)
        yield Violation("at most once", f"{call.name} ran {len(starts)} times: {where}")
    for outcome in call.outcomes:
        # Of an idempotent call it is the last attempt that was not started.
        further = call.idempotent and outcome["how"] == "DeadlineExceededError"
        if outcome["how"] in NOT_STARTED and starts and not further and not book.faults.forgot_between(first, outcome["at"]):
            yield Violation("true outcome", f"{call.name} ended with {outcome['how']}, yet it ran")
        if outcome["how"] == "value" and outcome["token"] not in {end["token"] for end in call.of("end")}:
            yield Violation("true outcome", f"{call.name} got {outcome['token']!r}, which no execution of it made")


def _of_cancellations(call: Call, book: Book, within: float) -> Iterator[Violation]:
    """A call that was cancelled runs no more, soon, and does not start any more, where all who are to know it hear it."""
    won = next((event["at"] for event in call.of("cancel") if event["won"]), math.inf)
    for start in call.starts:
        server, end = start["server"], next((e["at"] for e in call.of("end") if e["token"] == start["token"]), -math.inf)
        last = max(start["at"], end)
        if last <= won + within or min(book.renewals.get(server, ()), default=math.inf) > won:
            continue
        if book.faults.hit(server, won, last, within) or book.faults.hit(call.event["client"], won, last, within):
            continue
        if book.gone.get(call.event["client"], math.inf) <= won + within:  # it was killed before it could say so
            continue
        if start["at"] > won + within:
            yield Violation(
                "cancelled", f"{call.name} was cancelled at {won:.3f}, yet it started on {server} at {start['at']:.3f}"
            )
        elif call.event.get("stops"):
            yield Violation(
                "cancelled", f"{call.name} was cancelled at {won:.3f}, yet it ran on {server} to its end at {end:.3f}"
            )


def _of_lost_outcomes(call: Call, book: Book, within: float) -> Iterator[Violation]:
    """A caller runs out of time only where the broker did not take an outcome in time."""
    if not call.outcomes or call.outcomes[0]["how"] != "ClientTimeOutError":
        return
    quiet = not book.faults.any_between(call.due - within, call.due)
    if not call.of("entered") and quiet and call.due - call.event["at"] > within and book.sees_entries:
        yield Violation("lost outcome", f"{call.name} ran out of time, yet it never arrived, which its caller was to be told")
    deliveries = {event["delivery"]: event["entry"] for event in call.of("taken")}
    for entry in dict.fromkeys(deliveries.values()):
        for event in book.history[entry]:
            done = event["event"] == "ended" and event["done"] and event["how"] in ("settle", "bury")
            if not done or event["at"] + within > call.due or book.faults.forgot_between(call.event["at"], call.due):
                continue
            if quiet:
                yield Violation("lost outcome", f"{call.name} ran out of time, yet its outcome was there at {event['at']:.3f}")
                return


def _of_late_starts(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    """Nothing starts once the time that its entries name is over, but for a step that a server had begun and stood still in."""
    entered = call.of("entered")
    if not entered:
        return
    for start in call.starts:
        ends = [math.inf if e["timeout"] is None else e["at"] + e["timeout"] for e in entered if e["at"] <= start["at"]]
        if not ends:
            continue
        still = book.faults.stood_still(start["server"], max(ends), start["at"])
        if start["at"] > max([*ends, still]) + promise.skew:
            text = f"{call.name} started on {start['server']} at {start['at']:.3f}; its entries had time until {max(ends):.3f}"
            yield Violation("late start", text)


def _of_first_outcome(call: Call, book: Book) -> Iterator[Violation]:
    first = [(o["how"], o["token"]) for o in call.outcomes[:1]]
    for event in call.of("again"):
        if first and (event["how"], event["token"]) != first[0]:
            yield Violation("first outcome", f"{call.name} had {first[0]}, later {(event['how'], event['token'])}")
    # The client of a stream has its outcome, and removes what is kept, before its reader comes to the end.
    if (call.idempotent and call.streams) or len(call.of("stored")) < 2 or "anything" in call.event.get("expects", ()):
        return
    # Once the caller of a repeated call has its outcome, or is gone, the broker may hold that of a further attempt until it is
    # removed.
    left = call.of("leave")
    until = (left[0]["at"] if left else call.ended) if call.idempotent else math.inf
    if call.idempotent:
        until = min(until, book.gone.get(call.event["client"], math.inf))
    kept = [event for event in call.of("stored") if event["at"] <= until]
    stored = {event["content"] for event in kept}
    if len(stored) > 1 and not book.faults.forgot_between(kept[0]["at"], kept[-1]["at"]):
        yield Violation("first outcome", f"{call.name}: the broker kept {len(stored)} outcomes one after the other")
