"""The ledger sees every kind of broken promise, and none where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.ledger.causes import BROKER
from tests.ledger.ledger import Ledger, Promise

CALL = {"event": "call", "at": 1.0, "id": "a", "client": "c", "function": "f", "idempotent": False, "timeout": 5.0}
HARMLESS = {**CALL, "idempotent": True}
START = {"event": "start", "at": 2.0, "id": "a", "server": "s-7", "token": "t"}
END = {"event": "end", "at": 2.5, "id": "a", "token": "t"}
VALUE = {"event": "outcome", "at": 3.0, "id": "a", "how": "value", "token": "t"}
AGAIN = {**VALUE, "event": "again", "at": 9.0}
STORED = {"event": "stored", "at": 2.6, "id": "a", "content": "1"}
GONE = {"event": "gone", "at": 2.0, "client": "c"}
LOST = {"event": "outcome", "at": 3.0, "id": "a", "how": "WorkerLostError", "token": None}
TWICE = {**START, "at": 2.7, "server": "other", "token": "u"}
KILL = {"event": "fault", "at": 2.1, "number": 1, "name": "kill -9 s", "hits": ["s"], "kills": True}
CUT = {"event": "fault", "at": 1.5, "number": 2, "name": "a cut", "hits": [BROKER]}
MENDED = {"event": "mended", "at": 1.6, "number": 2}
DEAD = {"event": "dead", "at": 9.0, "id": "a", "reason": "attempts"}
OUT_OF_TIME = {**LOST, "how": "ClientTimeOutError", "at": 6.0}
UNSENT = {**LOST, "how": "BrokerUnavailableError"}

PROMISE = Promise(
    plain=frozenset({"WorkerLostError", "BrokerUnavailableError", "ClientTimeOutError"}),
    idempotent=frozenset({"WorkerLostError"}),
    slack=1.0,
    aftermath=1.0,
    told_within=1.5,
)


@pytest.mark.parametrize(
    "events",
    [
        [CALL, START, END, VALUE, AGAIN, STORED, {**STORED, "at": 4.0}],
        [HARMLESS, START, TWICE, END, VALUE],
        [CALL, GONE],
        [CALL, START, GONE],
        [CALL, START, KILL, GONE],
        [CALL, START, END, {**VALUE, "at": 6.9}],
        [START, END, VALUE, CALL],
        # a repeated call's further outcome, which comes when its caller has the first one
        [HARMLESS, START, END, STORED, VALUE, {**STORED, "at": 3.1, "content": "2"}],
        # errors that a fault explains
        [CALL, START, KILL, LOST],
        [CALL, START, KILL, {**LOST, "at": 3.6}],
        [CALL, START, CUT, LOST],
        [CALL, START, {**KILL, "hits": ["s-7"]}, LOST],
        [CALL, KILL, LOST],
        [CALL, START, KILL, LOST, {"event": "calm", "at": 2.0}],
        [CALL, START, {**KILL, "at": 1.2, "kills": False}, {**MENDED, "at": 1.3, "number": 1}, LOST],
        [CALL, CUT, MENDED, UNSENT],
        [CALL, {**CUT, "at": 0.1}, {**MENDED, "at": 0.5}, UNSENT],
        [CALL, {**CUT, "forgets": True}, MENDED, OUT_OF_TIME],
        [CALL, {**CUT, "hits": [], "calls": ["a"]}, MENDED, OUT_OF_TIME],
        [HARMLESS, START, LOST, DEAD],
        [HARMLESS, START, END, VALUE, DEAD],
        # another server had taken it over and was killed itself
        [CALL, START, KILL, {**KILL, "at": 3.5, "number": 3, "hits": ["u"]}, {**LOST, "at": 4.9}],
        # its outcome was there before the kill
        [CALL, START, END, VALUE, {**KILL, "at": 3.1}],
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
        ("one outcome", [CALL, START, END, VALUE, {**VALUE, "at": 3.1}]),
        ("deadline", [CALL, START, END, {**VALUE, "at": 7.1}]),
        ("at most once", [CALL, START, TWICE, END, VALUE]),
        ("at most once", [CALL, START, TWICE, GONE]),
        ("true outcome", [CALL, START, VALUE]),
        ("true outcome", [CALL, VALUE]),
        ("true outcome", [CALL, START, END, {**VALUE, "token": "of another call"}]),
        ("first outcome", [CALL, START, END, VALUE, {**AGAIN, "how": "WorkerLostError", "token": None}]),
        ("first outcome", [CALL, START, END, VALUE, STORED, {**STORED, "content": "2"}]),
        ("first outcome", [CALL, START, END, VALUE, STORED, {**STORED, "at": 3.1, "content": "2"}]),
        ("first outcome", [HARMLESS, START, END, VALUE, STORED, {**STORED, "content": "2"}]),
        ("allowed outcome", [HARMLESS, UNSENT]),
        ("allowed outcome", [CALL, {**LOST, "how": "QueueFullError"}]),
        ("allowed outcome", [CALL, CUT, LOST, {"event": "calm", "at": 0.5}]),
        ("allowed outcome", [{**CALL, "sure": True}, CUT, UNSENT]),
        # errors that no fault explains
        ("true error", [CALL, LOST]),
        ("true error", [CALL, START, LOST]),
        ("true error", [CALL, START, {**KILL, "hits": ["t"]}, LOST]),
        ("true error", [CALL, START, {**KILL, "hits": ["s-8"]}, LOST]),
        ("true error", [CALL, START, {**KILL, "at": 3.1}, LOST]),
        ("true error", [CALL, START, {**CUT, "at": 0.1}, {**MENDED, "at": 0.9}, LOST]),
        ("true error", [CALL, KILL, UNSENT]),
        ("true error", [CALL, {**CUT, "at": 3.1}, UNSENT]),
        ("true error", [CALL, CUT, OUT_OF_TIME]),
        ("true error", [CALL, {**CUT, "calls": ["b"]}, OUT_OF_TIME]),
        ("true error", [HARMLESS, START, KILL, LOST]),
        ("told in time", [CALL, START, KILL, {**LOST, "at": 3.7}]),
        ("told in time", [CALL, KILL, {**LOST, "at": 3.7}]),
        ("told in time", [CALL, START, KILL, {**KILL, "at": 3.7, "number": 3, "hits": ["u"]}, {**LOST, "at": 3.8}]),
        ("dead letter", [CALL, START, END, VALUE, DEAD]),
        ("dead letter", [HARMLESS, START, END, VALUE, {**DEAD, "reason": "internal error"}]),
        ("known calls", [START]),
        ("whole world", [{"event": "broken", "at": 1.0, "what": "it"}]),
    ],
)
def test_each_broken_promise_is_seen(rule: str, events: list[dict[str, Any]]) -> None:
    assert [violation.rule for violation in Ledger(events).violations(PROMISE)] == [rule]


def test_an_outcome_that_says_the_call_never_started_is_checked() -> None:
    expired = {**LOST, "how": "DeadlineExceededError"}
    promise = Promise(plain=frozenset({"DeadlineExceededError"}))
    assert Ledger([CALL, CUT, expired]).violations(promise) == []
    promise = replace(promise, idempotent=promise.plain)
    assert Ledger([HARMLESS, CUT, START, expired]).violations(promise) == []
    (violation,) = Ledger([CALL, CUT, START, expired]).violations(promise)
    assert violation.rule == "true outcome" and "yet it ran" in str(violation)


def test_where_other_faults_hold_up_the_news_of_a_lost_server_nobody_asks_when_it_came() -> None:
    events = [CALL, START, KILL, {**LOST, "at": 5.0}]
    assert [v.rule for v in Ledger(events).violations(PROMISE)] == ["told in time"]
    assert Ledger(events).violations(replace(PROMISE, told_within=None)) == []


def test_the_summary_counts() -> None:
    other = {**CALL, "id": "b"}
    ledger = Ledger([CALL, START, TWICE, VALUE, other, CUT, MENDED, {"event": "calm", "at": 1.0}])
    assert ledger.summary() == {"calls": 2, "executions": 2, "repeated": 1, "(none)": 1, "value": 1}
    assert len(ledger) == 2 and ledger.sure_calls == 2
    assert [(fault.name, fault.at, fault.until) for fault in ledger.faults] == [("a cut", 1.5, 1.6)]
