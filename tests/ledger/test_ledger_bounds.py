"""The ledger on what takes too long: cancelled calls, outcomes that do not come, and streams that run ahead."""

from __future__ import annotations

from tests.ledger.ledger import Promise
from tests.ledger.samples import CALL, END, START, Events, event, rules

PROMISE = Promise(
    plain=frozenset({"ClientTimeOutError"}), natural=frozenset({"ClientTimeOutError"}), cancelled_within=0.2, outcome_within=1.0
)
STOPS = {**CALL, "stops": True}
RENEWED = event("renewed", 0.5, server="s-1")
CANCEL = event("cancel", 1.5, id="a", won=True)
CANCELLED = event("outcome", 1.5, id="a", how="CallCancelledError", token=None)
LATE = event("outcome", 6.0, id="a", how="ClientTimeOutError", token=None)
TAKEN = [
    event("entered", 1.1, id="a", entry="1", timeout=5.0),
    event("taken", 1.2, id="a", entry="1", delivery="d", server="s-1"),
    event("delivered", 1.3, delivery="d", server="s-1"),
]
SETTLED = [event("ending", 2.6, delivery="d", how="settle"), event("ended", 2.7, delivery="d", how="settle", done=True)]
CUT = event("fault", 1.6, number=1, name="a cut", hits=["s-1"])


def test_a_cancelled_call_does_not_start() -> None:
    assert rules([RENEWED, STOPS, CANCEL, CANCELLED, START], PROMISE) == ["cancelled"]
    assert rules([RENEWED, STOPS, CANCEL, CANCELLED, {**START, "at": 1.6}], PROMISE) == []


def test_a_cancelled_call_does_not_run_to_its_end() -> None:
    early = {**START, "at": 1.4}
    assert rules([RENEWED, STOPS, CANCEL, CANCELLED, early, END], PROMISE) == ["cancelled"]
    assert rules([RENEWED, CALL, CANCEL, CANCELLED, early, END], PROMISE) == []


def test_who_could_not_hear_of_it_may_run_a_cancelled_call() -> None:
    assert rules([{**RENEWED, "at": 1.7}, STOPS, CANCEL, CANCELLED, START], PROMISE) == []
    assert rules([RENEWED, STOPS, CANCEL, CANCELLED, START, CUT], PROMISE) == []


def test_an_outcome_that_the_broker_took_reaches_its_caller() -> None:
    assert rules([CALL, *TAKEN, START, END, *SETTLED, LATE], PROMISE) == ["lost outcome"]


def test_an_outcome_that_came_in_the_last_moment_may_not() -> None:
    late: Events = [{**each, "at": 5.5} for each in SETTLED]
    assert rules([CALL, *TAKEN, START, END, *late, LATE], PROMISE) == []


def test_an_outcome_that_the_broker_forgot_does_not() -> None:
    forgets = event("fault", 3.0, number=1, name="a loss", hits=["broker"], forgets=True)
    mended = event("mended", 3.1, number=1)
    assert rules([CALL, *TAKEN, START, END, *SETTLED, forgets, mended, LATE], PROMISE) == []


def test_a_stream_waits_for_its_reader() -> None:
    call = {**CALL, "stream": True, "window": 2}
    made = [event("made", 2.1 + index / 10, id="a", token="t", index=index) for index in range(4)]
    closed = event("closed", 3.0, id="a", token="t")
    assert "stream window" in rules([call, START, *made, closed], Promise())
    assert "stream window" not in rules([call, START, *made[:3], closed], Promise())
    reads = [event("read", 2.35, id="a", index=0)]
    assert "stream window" not in rules([call, START, *made, *reads, closed], Promise())
