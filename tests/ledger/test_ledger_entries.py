"""Rules of entries, deliveries and leases: what breaks each, and the nearest that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ledger.ledger import Ledger, Promise
from tests.ledger.samples import CALL, END, KILL, START, VALUE, Events, event, rules

RAN = [CALL, START, END, VALUE]
ENTERED = event("entered", 1.1, id="a", entry="1", timeout=4.9)
TAKEN = event("taken", 1.5, id="a", entry="1", delivery="d", server="s-1")
GOT = event("delivered", 1.6, delivery="d", server="s-1")
ENDING = event("ending", 2.6, delivery="d", how="settle")
ENDED = event("ended", 2.7, delivery="d", how="settle", done=True)
REFUSED = {**ENDED, "done": False}
GIVEN_BACK = {**ENDED, "how": "release", "at": 1.8}
AGAIN = event("taken", 2.6, id="a", entry="1", delivery="e", server="u-1")
AGAIN_ENDED = event("ended", 2.8, delivery="e", how="settle", done=True)
UNREADABLE = [event("entered", 1.0, id="", entry="9", timeout=None), {**TAKEN, "id": "", "entry": "9", "delivery": "x"}]
PROMISE = Promise(skew=0.1)


@pytest.mark.parametrize(
    "events",
    [
        [ENTERED, TAKEN, GOT, ENDING, ENDED],
        [ENTERED, TAKEN, GOT, ENDING],
        UNREADABLE,
        # the consumer itself gives back what came as it stopped
        [ENTERED, TAKEN, {**ENDED, "how": "release"}],
        # killed while it had it
        [TAKEN, GOT, KILL],
        [TAKEN, GOT, {**KILL, "hits": ["s-1"], "at": 1.6}],
        # taken over, so that the first owner is refused
        [TAKEN, GOT, ENDING, AGAIN, REFUSED],
        [TAKEN, GOT, ENDING, AGAIN, REFUSED, AGAIN_ENDED],
        [TAKEN, GOT, ENDING, ENDED, {**AGAIN, "at": 2.8}],
        # given back and taken again
        [TAKEN, GOT, {**ENDING, "how": "release", "at": 1.7}, GIVEN_BACK, AGAIN, AGAIN_ENDED],
        [TAKEN, GIVEN_BACK, {**AGAIN, "at": 1.8}, AGAIN_ENDED],
        # two entries of one call
        [TAKEN, ENDED, {**AGAIN, "entry": "2"}, {**AGAIN_ENDED, "how": "claim"}],
    ],
)
def test_deliveries_that_end_as_they_should(events: Events) -> None:
    assert rules([*RAN, *events], PROMISE) == []


@pytest.mark.parametrize(
    ("rule", "events"),
    [
        ("one end", [TAKEN, GOT]),
        ("one end", [TAKEN, GOT, ENDED]),
        ("one end", [TAKEN, GOT, {**KILL, "at": 1.5}]),
        ("one end", [TAKEN, GOT, {**KILL, "kills": False}]),
        ("one end", [TAKEN, GOT, {**KILL, "hits": ["s-2", "u", "broker"]}]),
        ("one end", [TAKEN, GOT, ENDING, {**ENDING, "how": "release"}]),
        ("one end", [TAKEN, GOT, KILL, ENDING, ENDING]),
        ("one end", [TAKEN, GOT, GOT, ENDING]),
        ("known deliveries", [GOT, ENDING]),
        ("known deliveries", [ENDED]),
        ("known deliveries", [TAKEN, ENDING]),
        ("known calls", [{**ENTERED, "id": "b"}]),
        ("known calls", [{**TAKEN, "id": "b"}]),
        ("known calls", [event("worker", 2.0, id="", server="s-1")]),
        ("superseded", [TAKEN, AGAIN, ENDED]),
        ("superseded", [TAKEN, AGAIN, {**ENDED, "how": "release"}]),
        ("superseded", [TAKEN, ENDED, ENDED]),
        ("superseded", [TAKEN, {**ENDED, "how": "bury"}, {**AGAIN, "at": 2.8}, AGAIN_ENDED]),
        ("superseded", [TAKEN, {**ENDED, "how": "claim"}, {**ENDED, "how": "release"}]),
        ("superseded", [TAKEN, GIVEN_BACK, ENDED]),
        ("superseded", [TAKEN, GIVEN_BACK, AGAIN, ENDED]),
    ],
)
def test_deliveries_that_end_otherwise(rule: str, events: Events) -> None:
    assert rules([*RAN, *events], PROMISE) == [rule]


def test_a_violation_names_the_call_its_moments_and_its_server() -> None:
    (violation,) = Ledger([*RAN, TAKEN, AGAIN, ENDED]).violations(PROMISE)
    assert str(violation) == (
        "superseded: call a of f() at 1.000, entry 1, given to s-1 at 1.500 as d: "
        "its settle was carried out at 2.700, yet e had it"
    )


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([], [ENTERED]),
        ([], [{**ENTERED, "timeout": 0.8}]),
        (["late start"], [{**ENTERED, "timeout": 0.7}]),
        ([], [{**ENTERED, "timeout": 0.7}, {**ENTERED, "entry": "2", "timeout": 2.0}]),
        ([], [{**ENTERED, "timeout": 0.7}, {**ENTERED, "entry": "2", "timeout": None}]),
        # an entry that came later is not the one that started
        (["late start"], [{**ENTERED, "timeout": 0.7}, {**ENTERED, "at": 2.1, "entry": "2", "timeout": 9.0}]),
        ([], [{**ENTERED, "at": 2.1, "timeout": 0.1}]),
    ],
)
def test_starts_after_the_time_of_the_entry(found: list[str], events: Events) -> None:
    assert rules([*RAN, *events], PROMISE) == found


# who lost the call

LOST = event("outcome", 5.0, id="a", how="WorkerLostError", token=None)
HARMLESS = {**CALL, "idempotent": True}
DEAD = event("dead", 5.0, id="a", reason="attempts")
DIED = event("worker", 4.0, id="a", server="s-1")
#: Explains every error, so that only the lease is in question.
FAULT = event("fault", 1.0, number=9, name="trouble", hits=["broker"])
LEASES = Promise(plain=frozenset({"WorkerLostError"}), idempotent=frozenset({"WorkerLostError"}), lease=1.0)


def renewed(server: str, *moments: float) -> Events:
    return [event("renewed", at, server=server) for at in moments]


ALIVE = [*renewed("s-1", 0.5, 1.4, 2.3, 3.2, 4.1, 4.9), *renewed("u-1", 0.5, 1.4, 2.3, 3.2, 4.1, 4.9)]
SILENT = [*renewed("s-1", 0.5, 1.4, 2.3), *renewed("u-1", 0.5, 1.4, 2.3, 3.2, 4.1, 4.9)]
ELSEWHERE = {**START, "at": 2.8, "server": "u-1", "token": "u"}
TOOK = [event("taken", 1.5, id="a", entry="1", delivery="d", server="s-1")]


@pytest.mark.parametrize(
    "events",
    [
        [CALL, START, LOST, KILL, *ALIVE],
        [CALL, START, LOST, DIED, *ALIVE],
        [CALL, START, LOST, *SILENT],
        [CALL, START, LOST, *SILENT, *renewed("s-1", 3.3)],
        [CALL, START, {**LOST, "at": 3.3}, *SILENT],
        [CALL, START, {**LOST, "at": 2.6}, *renewed("s-1", 0.9, 2.1)],
        # silent between its taking and its start
        [CALL, *TOOK, {**START, "at": 2.9}, LOST, *renewed("s-1", 0.5, 1.4, 2.8, 3.3, 4.1, 4.9)],
        # nobody started it
        [CALL, *TOOK, LOST, KILL, *ALIVE],
        [CALL, *TOOK, LOST, DIED, *ALIVE],
        [CALL, *TOOK, LOST, *SILENT],
        [CALL, *TOOK, {**START, "at": 5.1}, LOST, *SILENT],
        # each attempt was lost
        [HARMLESS, START, ELSEWHERE, DEAD, LOST, KILL, {**DIED, "server": "u-1"}, *ALIVE],
        # ... or given back
        [HARMLESS, *TOOK, {**GIVEN_BACK, "at": 2.7}, START, ELSEWHERE, DEAD, LOST, {**DIED, "server": "u-1"}, *ALIVE],
        # ... or is one of another entry, which still runs
        [HARMLESS, *TOOK, {**AGAIN, "entry": "2"}, START, ELSEWHERE, DEAD, LOST, {**DIED, "server": "u-1"}, *ALIVE],
    ],
)
def test_calls_that_were_lost(events: Events) -> None:
    assert rules([FAULT, *events], LEASES) == []


@pytest.mark.parametrize(
    "events",
    [
        [CALL, START, LOST, *ALIVE],
        [CALL, START, LOST, {**KILL, "at": 1.9}, *ALIVE],
        [CALL, START, LOST, {**KILL, "at": 5.1}, *ALIVE],
        [CALL, START, LOST, {**KILL, "hits": ["u"]}, *ALIVE],
        [CALL, START, LOST, {**KILL, "kills": False}, *ALIVE],
        [CALL, START, LOST, {**DIED, "at": 1.9}, *ALIVE],
        [CALL, START, LOST, {**DIED, "server": "u-1"}, *ALIVE],
        # told before the lease had run out
        [CALL, START, {**LOST, "at": 3.2}, *SILENT],
        # a gap that was over before
        [CALL, START, {**LOST, "at": 2.6}, *renewed("s-1", 0.9, 1.99)],
        [CALL, LOST, *SILENT],
        [CALL, *TOOK, LOST, *ALIVE],
        [CALL, *TOOK, LOST, {**KILL, "at": 1.4}, *ALIVE],
        [CALL, *TOOK, LOST, {**KILL, "hits": ["u"]}, *ALIVE],
        [CALL, *TOOK, {**START, "at": 5.1}, LOST, *ALIVE],
        [HARMLESS, START, ELSEWHERE, DEAD, LOST, KILL, *ALIVE],
        [HARMLESS, *TOOK, AGAIN, START, ELSEWHERE, DEAD, LOST, KILL, *ALIVE],
        [HARMLESS, *TOOK, {**AGAIN, "entry": "2"}, START, ELSEWHERE, DEAD, LOST, *ALIVE],
    ],
)
def test_calls_that_were_not_lost(events: Events) -> None:
    assert rules([FAULT, *events], LEASES) == ["true loss"]
    assert rules([FAULT, *events], replace(LEASES, lease=None)) == []


def test_a_worker_that_died_explains_a_lost_call_without_a_fault() -> None:
    assert rules([CALL, START, LOST, DIED, *ALIVE], LEASES) == []
    assert rules([CALL, *TOOK, LOST, DIED, *ALIVE], LEASES) == []
    assert rules([CALL, START, LOST, {**DIED, "server": "u-1"}, *ALIVE], LEASES) == ["true error", "true loss"]


def test_a_silent_server_must_have_a_reason_to_be_silent() -> None:
    assert rules([CALL, START, LOST, *SILENT], LEASES) == ["true error"]


def test_an_idempotent_call_is_given_up_only_with_a_dead_letter() -> None:
    assert rules([HARMLESS, START, LOST, KILL, *ALIVE], LEASES) == ["true error"]
