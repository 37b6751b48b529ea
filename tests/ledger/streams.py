"""Rules of streams: items come in order and complete, and each execution is closed, once and in time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.ledger.book import Book, Call
from tests.ledger.terms import Event, Promise, Violation

__all__ = ["judge"]


def judge(call: Call, book: Book, promise: Promise) -> Iterator[Violation]:
    yield from _of_reads(call)
    yield from _of_window(call)
    if not call.streams:
        return
    closed: dict[str, list[float]] = {start["token"]: [] for start in call.starts}
    for event in call.of("closed"):
        if event["token"] not in closed:
            text = f"{call.name}: an execution {event['token']!r}, which never started, was closed at {event['at']:.3f}"
            yield Violation("finally once", text)
        else:
            closed[event["token"]].append(event["at"])
    for start in call.starts:
        yield from _of_finally(call, start, closed[start["token"]], book)
        if promise.stream_end is not None:
            yield from _of_the_left(call, start, closed[start["token"]], book, promise)


def _of_reads(call: Call) -> Iterator[Violation]:
    """Each item once, one after the other, and none that was not made."""
    reads = call.of("read")
    if not reads:
        return
    made: dict[int, float] = {}
    for event in call.of("made"):
        made.setdefault(event["index"], event["at"])
    for expected, event in enumerate(reads):
        index, at = event["index"], event["at"]
        if index != expected:
            yield Violation("stream order", f"{call.name}: item {index} was read at {at:.3f}, where item {expected} comes next")
            return
        if made.get(index, math.inf) > at:
            yield Violation("stream order", f"{call.name}: item {index} was read at {at:.3f}, yet nothing had made it")
            return


def _of_window(call: Call) -> Iterator[Violation]:
    """The function is ahead of its reader by no more than the window, and the one item that is being read."""
    window, over = call.event.get("window"), min(call.ended, *(event["at"] for event in call.of("leave")), math.inf)
    if window is None or not call.of("made"):
        return
    reads = [event["at"] for event in call.of("read")]
    for event in call.of("made"):
        read = sum(at <= event["at"] for at in reads)
        if event["at"] < over and event["index"] > read + window:
            text = f"{call.name}: item {event['index']} was made at {event['at']:.3f}, with {read} read and a window of {window}"
            yield Violation("stream window", text)
            return


def _of_finally(call: Call, start: Event, closed: list[float], book: Book) -> Iterator[Violation]:
    """The function's `finally` runs once; where its process is killed, it may not."""
    run = f"{call.name}, run on {start['server']} from {start['at']:.3f}"
    if len(closed) > 1:
        yield Violation("finally once", f"{run}, was closed {len(closed)} times: {', '.join(f'{at:.3f}' for at in closed)}")
    elif not closed and not _is_killed(call, start, math.inf, book):
        yield Violation("finally once", f"{run}, was never closed")


def _of_the_left(call: Call, start: Event, closed: list[float], book: Book, promise: Promise) -> Iterator[Violation]:
    """A stream that nobody reads ends soon, unless something happened to its server meanwhile."""
    left, gone = min((event["at"] for event in call.of("leave")), default=math.inf), book.gone.get(call.event["client"], math.inf)
    # Who came later has not heard of it, and learns it from the silence, as of one that was dropped without a word.
    said = not any(event.get("silent") for event in call.of("leave"))
    lives = gone == math.inf and said and promise.stream_left is not None and left > start["at"]
    within = promise.stream_left if lives else promise.stream_end
    assert within is not None
    left = min(left, gone)
    begin = max(left, start["at"])
    due = begin + within
    if left == math.inf or (closed and closed[0] <= due):
        return
    if _is_killed(call, start, due, book) or book.faults.hit(start["server"], begin, due, promise.aftermath):
        return
    when = f"{closed[0] - begin:.3f} s later" if closed else "never"
    run = f"{call.name}, run on {start['server']} from {start['at']:.3f}"
    yield Violation("stream left", f"{run}: its reader was gone at {left:.3f}, its function was closed {when}")


def _is_killed(call: Call, start: Event, until: float, book: Book) -> bool:
    """Whether the server of this execution, or the worker that ran it, died by this moment."""
    server, at = start["server"], start["at"]
    if book.faults.killed(server, at, until):
        return True
    return any(event["server"] == server and at <= event["at"] <= until for event in call.of("worker"))
