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


def test_a_call_that_never_arrived_does_not_wait_for_its_deadline() -> None:
    other = [
        event("entered", 1.1, id="b", entry="2", timeout=5.0),
        event("taken", 1.2, id="b", entry="2", delivery="e", server="s-1"),
    ]
    second = [{**CALL, "id": "b"}, *other, event("outcome", 3.0, id="b", how="CallCancelledError", token=None)]
    assert "lost outcome" in rules([CALL, *second, LATE], PROMISE)


def test_a_call_that_may_run_twice_is_sent_again() -> None:
    promise = Promise(
        idempotent=frozenset({"BrokerUnavailableError"}), natural=frozenset({"BrokerUnavailableError"}), repeated_for=2.5
    )
    away = event("outcome", 3.0, id="a", how="BrokerUnavailableError", token=None)
    assert rules([{**CALL, "idempotent": True}, away], promise) == ["repeated"]
    assert rules([{**CALL, "idempotent": True}, {**away, "at": 3.6}], promise) == []
    assert rules([CALL, away], Promise(plain=promise.idempotent, natural=promise.natural, repeated_for=2.5)) == []


def test_a_call_is_given_up_only_after_all_its_attempts() -> None:
    promise = Promise(idempotent=frozenset({"WorkerLostError"}), attempts=2)
    lost = event("outcome", 3.0, id="a", how="WorkerLostError", token=None)
    given_up = [{**CALL, "idempotent": True}, *TAKEN, START, *SETTLED, lost, event("dead", 2.9, id="a", reason="attempts")]
    assert rules(given_up, promise) == ["true error"]
    assert rules([*given_up, event("worker", 2.2, id="a", server="s-1")], promise) == []


def test_a_server_that_stops_in_order_loses_no_call() -> None:
    promise = Promise(plain=frozenset({"WorkerLostError", "ServerShutdownError"}), aftermath=4.0)
    stop = event("fault", 2.1, number=1, name="stop", hits=["s-1"], orderly=True)
    lost = event("outcome", 3.0, id="a", how="WorkerLostError", token=None)
    assert rules([CALL, START, stop, lost], promise) == ["true error"]
    assert rules([CALL, START, stop, {**lost, "how": "ServerShutdownError"}], promise) == []
    assert rules([CALL, START, {**stop, "orderly": False}, lost], promise) == []


def test_a_copy_that_is_made_too_late_for_its_signature_is_a_dead_letter() -> None:
    first = event("entered", 1.1, id="a", entry="1", timeout=5.0)
    copy = event("entered", 6.1, id="a", entry="2", timeout=5.0)
    dead = event("dead", 6.5, id="a", reason="signature")
    outcome = event("outcome", 3.0, id="a", how="value", token="t")
    assert rules([CALL, first, START, END, outcome, copy, dead], PROMISE) == []
    assert rules([CALL, first, START, END, outcome, {**copy, "at": 5.9}, dead], PROMISE) == ["dead letter"]
    for timeout in (5.5, None):
        assert rules([{**CALL, "timeout": timeout}, first, START, END, outcome, copy, dead], PROMISE) == ["dead letter"]
