"""Rules of streams, cancels, exact timers, natural errors and leaks: what breaks each, and the nearest that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ledger.ledger import Promise
from tests.ledger.samples import CALL, END, KILL, START, VALUE, Events, event, rules

CLOSED = event("closed", 2.6, id="a", token="t")
LEAVE = event("leave", 2.4, id="a")
GONE = event("gone", 2.4, client="c")
DIED = event("worker", 2.1, id="a", server="s-1")
ENDLESS = {**CALL, "stream": True, "timeout": None}
CUT = event("fault", 2.3, number=2, name="a cut", hits=["broker"])
MENDED = event("mended", 2.5, number=2)
LATER = {**START, "at": 4.0, "token": "u"}
STREAMS = Promise(stream_end=1.0, aftermath=0.1)


def made(*indices: int, at: float = 2.1) -> Events:
    return [event("made", at, id="a", token="t", index=index) for index in indices]


def read(*indices: int, at: float = 2.2) -> Events:
    return [event("read", at, id="a", index=index) for index in indices]


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [*made(0, 1, 2), *read(0, 1, 2)]),
        ([], [*made(0, 1, 2), *read(0)]),
        ([], [*made(0, 1), *made(0, 1), *read(0, 1)]),
        ([], [*made(0, 1), *read(0, at=2.1)]),
        (["stream order"], [*made(0, 1, 2), *read(1)]),
        (["stream order"], [*made(0, 1, 2), *read(0, 2)]),
        (["stream order"], [*made(0, 1, 2), *read(0, 0)]),
        (["stream order"], [*made(0, 1, 2), *read(1, 0, 2)]),
        (["stream order"], [*made(0), *read(0, 1)]),
        (["stream order"], [*made(0, at=2.3), *read(0)]),
        (["known calls"], [{**made(0)[0], "id": "b"}]),
    ],
)
def test_items_come_in_order_and_complete(found: list[str], events: Events) -> None:
    assert rules([CALL, START, END, VALUE, CLOSED, *events], STREAMS) == found


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [CALL, START]),  # no stream at all
        ([], [ENDLESS, START, CLOSED]),
        ([], [ENDLESS, START, KILL]),
        ([], [ENDLESS, START, CLOSED, KILL]),
        ([], [ENDLESS, START, DIED]),
        (["finally once"], [ENDLESS, START]),
        (["finally once"], [CALL, START, *made(0)]),
        (["finally once"], [ENDLESS, START, {**KILL, "at": 1.9}]),
        (["finally once"], [ENDLESS, START, {**KILL, "kills": False}]),
        (["finally once"], [ENDLESS, START, {**DIED, "server": "u-1"}]),
        (["finally once"], [ENDLESS, START, CLOSED, CLOSED]),
        (["finally once"], [ENDLESS, START, CLOSED, CLOSED, KILL]),
        (["finally once"], [ENDLESS, START, CLOSED, {**CLOSED, "token": "of another"}]),
    ],
)
def test_each_execution_is_closed_once(found: list[str], events: Events) -> None:
    assert rules([*events, END, VALUE], STREAMS) == found


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [LEAVE, START, CLOSED]),
        ([], [GONE, START, CLOSED]),
        ([], [LEAVE, START, {**CLOSED, "at": 3.4}]),
        (["stream left"], [LEAVE, START, {**CLOSED, "at": 3.5}]),
        (["stream left"], [GONE, START, {**CLOSED, "at": 3.5}]),
        (["stream left"], [GONE, {**LEAVE, "at": 3.0}, START, {**CLOSED, "at": 3.5}]),
        (["stream left"], [LEAVE, START, {**KILL, "at": 9.0}]),
        (["finally once", "stream left"], [LEAVE, START]),
        # what starts after it was left
        ([], [LEAVE, START, CLOSED, LATER, {**CLOSED, "token": "u", "at": 5.0}]),
        (["stream left"], [LEAVE, START, CLOSED, LATER, {**CLOSED, "token": "u", "at": 5.1}]),
        # killed, or hit by a fault meanwhile
        ([], [LEAVE, START, {**KILL, "at": 3.4}]),
        ([], [LEAVE, START, {**DIED, "at": 3.4}]),
        ([], [LEAVE, START, CUT, MENDED, {**CLOSED, "at": 3.5}]),
        ([], [LEAVE, START, {**CUT, "hits": ["s"]}, MENDED, {**CLOSED, "at": 3.5}]),
        (["stream left"], [LEAVE, START, {**CUT, "hits": ["u"]}, MENDED, {**CLOSED, "at": 3.5}]),
        (["stream left"], [LEAVE, START, {**CUT, "at": 2.0}, {**MENDED, "at": 2.2}, {**CLOSED, "at": 3.5}]),
    ],
)
def test_what_nobody_reads_ends_soon(found: list[str], events: Events) -> None:
    call = {**ENDLESS, "idempotent": True}
    assert rules([call, *events], STREAMS) == found
    others = [rule for rule in found if rule != "stream left"]
    assert rules([call, *events], replace(STREAMS, stream_end=None)) == others


# cancels

CANCEL = event("cancel", 2.9, id="a", won=True)
TOO_LATE = {**CANCEL, "won": False}
CANCELLED = event("outcome", 2.9, id="a", how="CallCancelledError", token=None)
ALLOWED = Promise(plain=frozenset({"CallCancelledError"}), aftermath=0.1)


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [CANCEL, CANCELLED]),
        ([], [CANCEL, CANCELLED, START, END]),
        ([], [TOO_LATE, CANCEL, CANCELLED]),
        ([], [TOO_LATE, START, END, VALUE]),
        ([], [CANCEL, CANCELLED, event("calm", 0.5)]),
        ([], [CANCEL, GONE]),
        ([], [LEAVE, CANCELLED]),
        (["cancelled"], [CANCEL, START, END, VALUE]),
        (["cancelled", "one outcome"], [CANCEL, CANCELLED, START, END, VALUE]),
        (["one outcome"], [CANCEL, CANCELLED, CANCELLED]),
        (["no silence"], [CANCEL]),
        (["allowed outcome"], [CANCELLED]),
        (["allowed outcome"], [TOO_LATE, CANCELLED]),
        (["allowed outcome"], [CUT, CANCELLED]),
    ],
)
def test_a_cancelled_call_ends_as_such_and_no_other_does(found: list[str], events: Events) -> None:
    assert rules([CALL, *events], Promise()) == found


@pytest.mark.parametrize(
    ("found", "events"),
    [
        (["true error"], [CALL, CANCELLED]),
        (["true error"], [CALL, CUT, CANCELLED]),
        (["true error"], [CALL, TOO_LATE, CANCELLED]),
        # a reader that could not be heard
        ([], [ENDLESS, CUT, CANCELLED]),
        ([], [ENDLESS, {**CUT, "hits": ["c"]}, CANCELLED]),
        (["true error"], [ENDLESS, {**CUT, "hits": ["d"]}, CANCELLED]),
        (["true error"], [ENDLESS, CANCELLED]),
    ],
)
def test_a_call_that_nobody_cancelled(found: list[str], events: Events) -> None:
    assert rules(events, ALLOWED) == found


# timers and errors that need no fault

TIMED_OUT = event("outcome", 6.0, id="a", how="ClientTimeOutError", token=None)
FORGETS = {**CUT, "forgets": True}
EXACT = Promise(plain=frozenset({"ClientTimeOutError"}), slack=0.01, exact=True)


@pytest.mark.parametrize(("found", "at"), [([], 5.9995), ([], 6.0), (["early timeout"], 5.998), (["deadline"], 6.02)])
def test_a_timer_is_exact(found: list[str], at: float) -> None:
    assert rules([CALL, FORGETS, {**TIMED_OUT, "at": at}], EXACT) == found


def test_early_is_only_a_callers_own_timer_on_an_exact_clock() -> None:
    early = [CALL, FORGETS, {**TIMED_OUT, "at": 4.0}]
    assert rules(early, EXACT) == ["early timeout"]
    assert rules(early, replace(EXACT, exact=False)) == []
    assert rules([CALL, START, END, VALUE], EXACT) == []


def ended(how: str, at: float = 3.0) -> Events:
    return [CALL, event("outcome", at, id="a", how=how, token=None)]


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [*ended("WorkerTimeoutError"), START]),
        ([], [*ended("RemoteError"), START]),
        ([], [*ended("DeadlineExceededError"), event("entered", 1.0, id="a", entry="1", timeout=2.0)]),
        ([], ended("QueueFullError")),
        (["true error"], ended("WorkerTimeoutError")),
        (["true error"], [*ended("RemoteError"), {**START, "at": 3.1}]),
        (["true error"], ended("DeadlineExceededError")),
        (["true error"], [*ended("DeadlineExceededError"), event("entered", 1.0, id="a", entry="1", timeout=2.1)]),
        (["true error"], [*ended("DeadlineExceededError"), event("entered", 1.0, id="a", entry="1", timeout=None)]),
        (["true error"], ended("NoServerError")),
        (["true outcome"], [*ended("QueueFullError"), START]),
        (["allowed outcome"], ended("BadArgumentsError")),
    ],
)
def test_errors_without_a_fault(found: list[str], events: Events) -> None:
    names = {"WorkerTimeoutError", "RemoteError", "DeadlineExceededError", "QueueFullError", "NoServerError"}
    promise = Promise(plain=frozenset(names), natural=frozenset({"QueueFullError", "BadArgumentsError"}))
    assert rules(events, promise) == found


@pytest.mark.parametrize(("found", "between"), [(["true error", "at most once"], []), ([], [FORGETS])])
def test_a_call_that_began_once_more_after_its_error(found: list[str], between: Events) -> None:
    """A broker that forgets an end gives the call out once more."""
    lost = event("fault", 2.1, number=1, name="a loss", hits=["s-1"], calls=["a"])
    told = event("outcome", 2.2, id="a", how="WorkerLostError", token=None)
    again = event("start", 9.0, id="a", server="s-2", token="u")
    promise = Promise(plain=frozenset({"WorkerLostError"}))
    assert sorted(rules([CALL, START, lost, told, *between, again], promise)) == sorted(found)


@pytest.mark.parametrize(("forgets", "allowed"), [(1.5, True), (1.1, False)])
def test_a_call_that_its_first_server_begins_after_the_broker_forgot_whose_it_was(forgets: float, allowed: bool) -> None:
    """A server that stands still between the two has it all the same."""
    loss = [{**FORGETS, "at": forgets}, {**MENDED, "at": forgets + 0.05}]
    taken = [
        event("taken", at, id="a", entry="1-1", delivery=server, server=server) for at, server in ((1.2, "s-1"), (1.8, "s-2"))
    ]
    late = event("start", 2.5, id="a", server="s-1", token="u")
    events = sorted([CALL, *loss, *taken, {**START, "server": "s-2"}, late], key=lambda each: each["at"])
    assert ("at most once" not in rules(events, Promise())) == allowed


def test_what_is_left_is_a_leak() -> None:
    assert rules([CALL, START, END, VALUE, event("left", 9.0, what="a lease of s-1")], Promise()) == ["leak"]


@pytest.mark.parametrize(("found", "between"), [(["true error"], []), ([], [FORGETS])])
def test_a_cancelled_call_whose_server_was_said_to_be_lost(found: list[str], between: Events) -> None:
    """A broker that forgets may forget who was answered."""
    lost = event("fault", 2.1, number=1, name="a loss", hits=["s-1"])
    told = event("outcome", 2.2, id="a", how="WorkerLostError", token=None)
    kept = event("stored", 9.0, id="a", content="x", how="CallCancelledError")
    assert rules([CALL, START, lost, told, *between, kept], Promise(plain=frozenset({"WorkerLostError"}))) == found


@pytest.mark.parametrize(("silent", "events"), [(True, []), (False, made(0)), (False, [*made(0, 1), *read(0)])])
def test_a_reader_that_was_killed_over_an_item(silent: bool, events: Events) -> None:
    """It had not come to its outcome, which is over a second later at most."""
    call = {**CALL, "stream": True, "timeout": 2.0}
    broken = rules([call, START, *events, {**CLOSED, "at": 3.0}, {**GONE, "at": 3.8}], Promise(slack=0.1))
    assert ("no silence" in broken) == silent
