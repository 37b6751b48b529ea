"""Rules of the errors that callers see: which the run allows, and what explains each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.ledger.book import Book, Call
from tests.ledger.terms import Promise, Violation

__all__ = ["judge"]

#: Errors that a function brings about by running, with no fault: it raised, or ran longer than it may.
OF_RUNNING = frozenset({"RemoteError", "WorkerTimeoutError"})


def judge(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    if call.outcomes and call.outcomes[0]["how"] != "value":
        yield from _of_errors(call, book, promise)
    if promise.repeated_for is not None:
        yield from _of_repeats(call, promise.repeated_for)
    if promise.told_within is not None:
        yield from _of_losses(call, book, promise, promise.told_within)
    yield from _of_dead_letters(call, book, promise)


def _of_errors(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    """Only the errors that the run allows, and those only where something explains them."""
    how, sure = call.outcomes[0]["how"], book.is_sure(call)
    if how in call.event.get("expects", ()) or (how == "CallCancelledError" and (call.cancelled or call.of("leave"))):
        return
    allowed = promise.idempotent if call.idempotent else promise.plain
    kind = "idempotent " if call.idempotent else ""
    if how not in allowed or sure:
        when = "where no fault excuses it" if sure else f"{len(call.starts)} executions"
        yield Violation("allowed outcome", f"{kind}{call.name} ended with {how} ({when})")
    elif call.idempotent and how == "WorkerLostError":
        given_up = any(letter["reason"] == "attempts" for letter in call.of("dead"))
        if not given_up and not (call.streams and _lost_its_items(call, book, promise)):
            yield Violation("true error", f"{kind}{call.name} ended with {how}, yet nobody gave it up")
        lost = len(call.of("taken")) + len(call.of("worker"))
        if given_up and promise.attempts is not None and lost < promise.attempts:
            yield Violation(
                "true error", f"{kind}{call.name} was given up, yet it was taken or lost its worker {lost} times only"
            )
    elif how == "WorkerLostError" and _was_cancelled(call, book):
        yield Violation("true error", f"{kind}{call.name} ended with {how}, yet its outcome was CallCancelledError")
    elif how == "WorkerLostError" and _keeps_its_server(call) and not _lost_its_items(call, book, promise):
        yield Violation(
            "true error", f"{call.name} lost items of {call.starts[0]['server']}, yet nothing lasted long enough for that"
        )
    elif not (how in promise.natural or _of_itself(how, call, promise) or _by_fault(how, call, book, promise)):
        where = ", ".join(f"on {start['server']} from {start['at']:.3f}" for start in call.starts) or "nowhere"
        yield Violation("true error", f"{kind}{call.name}, run {where}, ended with {how} at {call.ended:.3f}, by no fault")


def _was_cancelled(call: Call, book: Book) -> bool:
    """Whether the broker kept that it was cancelled: not as what came in the place of an outcome that it has forgotten."""
    told = call.outcomes[0]["at"]
    cancelled = [kept["at"] for kept in call.of("stored") if kept.get("how") == "CallCancelledError"]
    return any(not book.faults.forgot_between(told, at) for at in cancelled)


def _keeps_its_server(call: Call) -> bool:
    """Whether it is a stream that nobody took over from the server that runs it."""
    starts = call.starts
    return call.streams and bool(starts) and not any(taken["at"] > starts[0]["at"] for taken in call.of("taken"))


def _lost_its_items(call: Call, book: Book, promise: Promise) -> bool:
    """Whether a fault kept the last items of a stream from its reader for so long that nobody has them any more: what one broken
    connection loses is sent again."""
    first, least = call.event["at"], promise.items_lost_after
    servers = [start["server"] for start in call.starts]
    return any(
        book.faults.hit(process, first, call.ended, promise.aftermath, least) for process in (call.event["client"], *servers)
    ) or any(book.faults.killed(start["server"], start["at"], call.ended) for start in call.starts)


def _of_itself(how: str, call: Call, promise: Promise) -> bool:
    """Whether what the call went through explains the error without a fault."""
    if how in OF_RUNNING:
        return any(start["at"] <= call.ended for start in call.starts)
    if how == "DeadlineExceededError":
        return any(e["timeout"] is not None and e["at"] + e["timeout"] - promise.skew <= call.ended for e in call.of("entered"))
    return False


def _by_fault(how: str, call: Call, book: Book, promise: Promise) -> bool:
    starts = [(start["server"], start["at"]) for start in call.starts]
    # What was given out once more by a broker that has forgotten its end began after it.
    starts = [(server, at) for server, at in starts if at <= call.ended or not book.faults.forgot_between(call.ended, at)]
    if how == "CallCancelledError":  # nobody cancelled it: a stream whose reader seemed to be gone, as it could not be heard
        client, first = call.event["client"], call.event["at"]
        return (call.streams or call.event.get("sends", False)) and book.faults.hit(client, first, call.ended, promise.aftermath)
    if how == "WorkerLostError" and (deaths := call.of("worker")):
        died = [(death["server"], death["at"]) for death in deaths]
        starts = [(server, at) for server, at in starts if not any(s == server and at <= t <= call.ended for s, t in died)]
        if not starts:
            return True
    return book.faults.explain(how, call.id, call.event["client"], starts, (call.event["at"], call.ended, promise.aftermath))


def _of_losses(call: Call, book: Book, promise: Promise, within: float) -> Iterator[Violation]:
    """The caller of a server that was killed knows it in time; an idempotent call runs again instead."""
    if call.idempotent or call.event["client"] in book.gone or call.of("leave"):
        return
    runs: list[tuple[str | None, float]] = [(start["server"], start["at"]) for start in call.starts]
    if not runs and call.outcomes and call.outcomes[0]["how"] == "WorkerLostError":
        runs = [(None, call.event["at"])]
    for server, at in runs:
        known = book.faults.loss_known_by(server, at, call.ended, within)
        if known is not None and call.ended > known[1]:
            ended = f"{call.ended - known[0]:.3f} s later" if call.outcomes else "never"
            text = f"{call.name}: its server {server or ''} was killed at {known[0]:.3f}, its caller knew it {ended}"
            yield Violation("told in time", text)
            return


def _of_repeats(call: Call, least: float) -> Iterator[Violation]:
    """A call that may run twice does not end with the first connection that breaks."""
    ended = call.outcomes[0] if call.outcomes else None
    repeats = call.idempotent and call.event.get("repeats", True)
    if repeats and ended is not None and ended["how"] == "BrokerUnavailableError":
        if ended["at"] - call.event["at"] < least:
            lasted = ended["at"] - call.event["at"]
            yield Violation("repeated", f"{call.name} was given up {lasted:.3f} s after it was sent, with {ended['how']}")


def _of_dead_letters(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    """Nothing but an idempotent call that lost its server or its worker too often is given up."""
    letters = call.of("dead")
    if {"DecodeError", "anything"} & set(call.event.get("expects", ())):  # its caller sent what no server reads
        return
    reasons = {letter["reason"] for letter in letters} - ({"attempts"} if call.idempotent else set())
    # What a fault held up on its way comes when its signature is too old, as a copy does that is made later.
    if "signature" in reasons:
        lasts = math.inf if call.event["timeout"] is None else max(promise.signed_for, call.event["timeout"])
        late = any(entered["at"] - call.event["at"] > lasts - promise.skew for entered in call.of("entered"))
        if late or book.faults.hit(call.event["client"], call.event["at"], letters[0]["at"], promise.aftermath):
            reasons.discard("signature")
    if reasons:
        yield Violation("dead letter", f"{call.name} is a dead letter: {', '.join(sorted(reasons))}")
