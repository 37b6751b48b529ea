"""The ledger sees every kind of broken promise, and none where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.ledger import Ledger, Promise

CALL = {"event": "call", "at": 1.0, "id": "a", "client": "c", "function": "f", "idempotent": False, "timeout": 5.0}
START = {"event": "start", "at": 2.0, "id": "a", "server": "s", "token": "t"}
END = {"event": "end", "at": 2.5, "id": "a", "token": "t"}
VALUE = {"event": "outcome", "at": 3.0, "id": "a", "how": "value", "token": "t"}
AGAIN = {**VALUE, "event": "again", "at": 9.0}
STORED = {"event": "stored", "at": 2.6, "id": "a", "content": "1"}
GONE = {"event": "gone", "at": 2.0, "client": "c"}
LOST = {"event": "outcome", "at": 3.0, "id": "a", "how": "WorkerLostError", "token": None}
TWICE = {**START, "at": 2.7, "server": "other", "token": "u"}

PROMISE = Promise(plain=frozenset({"WorkerLostError"}), idempotent=frozenset({"ClientTimeOutError"}), slack=1.0)


@pytest.mark.parametrize(
    "events",
    [
        [CALL, START, END, VALUE, AGAIN, STORED, {**STORED, "at": 4.0}],
        [CALL, START, LOST],
        [CALL, LOST],
        [{**CALL, "idempotent": True}, START, TWICE, END, VALUE],
        [CALL, GONE],
        [CALL, START, GONE],
        [CALL, START, END, {**VALUE, "at": 6.9}],
        [CALL, {**LOST, "how": "WorkerLostError"}, {"event": "calm", "at": 2.0}],
        [START, END, VALUE, CALL],
    ],
)
def test_what_is_promised_is_no_violation(events: list[dict[str, Any]]) -> None:
    assert Ledger(events).violations(PROMISE) == []


@pytest.mark.parametrize(
    ("rule", "events"),
    [
        ("no silence", [CALL]),
        ("no silence", [CALL, START, END]),
        ("no silence", [CALL, {**GONE, "at": 8.0}]),
        ("one outcome", [CALL, START, END, VALUE, LOST]),
        ("deadline", [CALL, START, END, {**VALUE, "at": 7.1}]),
        ("at most once", [CALL, START, TWICE, END, VALUE]),
        ("at most once", [CALL, START, TWICE, GONE]),
        ("true outcome", [CALL, START, VALUE]),
        ("true outcome", [CALL, VALUE]),
        ("true outcome", [CALL, START, END, {**VALUE, "token": "of another call"}]),
        ("first outcome", [CALL, START, END, VALUE, {**AGAIN, "how": "WorkerLostError", "token": None}]),
        ("first outcome", [CALL, START, END, VALUE, STORED, {**STORED, "content": "2"}]),
        ("allowed outcome", [{**CALL, "idempotent": True}, LOST]),
        ("allowed outcome", [CALL, {**LOST, "how": "ClientTimeOutError"}]),
        ("allowed outcome", [CALL, LOST, {"event": "calm", "at": 0.5}]),
        ("known calls", [START]),
        ("whole world", [{"event": "broken", "at": 1.0, "what": "it"}]),
    ],
)
def test_each_broken_promise_is_seen(rule: str, events: list[dict[str, Any]]) -> None:
    assert [violation.rule for violation in Ledger(events).violations(PROMISE)] == [rule]


def test_an_outcome_that_says_the_call_never_started_is_checked() -> None:
    expired = {**LOST, "how": "DeadlineExceededError"}
    promise = Promise(plain=frozenset({"DeadlineExceededError"}))
    assert Ledger([CALL, expired]).violations(promise) == []
    (violation,) = Ledger([CALL, START, expired]).violations(promise)
    assert violation.rule == "true outcome" and "yet it ran" in str(violation)


def test_the_summary_counts() -> None:
    other = {**CALL, "id": "b"}
    ledger = Ledger([CALL, START, TWICE, VALUE, other, {"event": "calm", "at": 1.0}])
    assert ledger.summary() == {"calls": 2, "executions": 2, "repeated": 1, "(none)": 1, "value": 1}
    assert len(ledger) == 2 and ledger.calm_calls == 2
