"""Whatever a right run holds is no violation; one event of it that is missing or doubled is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.ledger import EVENTS, Ledger
from tests.ledger.model import FATES, PROMISE, Plan, run_of
from tests.ledger.samples import Events, rules

PLANS = st.lists(
    st.builds(Plan, st.integers(0, 200).map(lambda tenths: tenths / 10), st.sampled_from(FATES), st.integers(0, 4)), max_size=12
)
#: Without it something is missing: a call its outcome, a value its execution, a delivery its end, an error its reason.
NEEDED = ("call", "outcome", "taken", "ending", "closed", "worker", "dead", "cancel", "made", "leave", "fault", "end")
#: It must not happen twice. (A call that is not idempotent does not start twice; its outcome comes once; and so on.)
ONCE = ("outcome", "delivered", "ending", "ended", "closed", "read", "start")


@settings(max_examples=60)
@given(PLANS)
def test_a_right_run_has_no_violation(plans: list[Plan]) -> None:
    assert [str(violation) for violation in Ledger(run_of(plans)).violations(PROMISE)] == []


def needed(events: Events) -> list[int]:
    """A result that nobody got is not missed."""
    got = {event["token"] for event in events if event["event"] == "outcome"}
    found = [number for number, event in enumerate(events) if event["event"] in NEEDED]
    return [number for number in found if events[number]["event"] != "end" or events[number]["token"] in got]


def once(events: Events) -> list[int]:
    """Being refused twice does no harm, nor does a second run of an idempotent call."""
    harmless = {event["id"] for event in events if event["event"] == "call" and event["idempotent"]}
    found = [number for number, event in enumerate(events) if event["event"] in ONCE and event.get("done", True)]
    return [number for number in found if not (events[number]["event"] == "start" and events[number]["id"] in harmless)]


@settings(max_examples=100)
@given(PLANS.filter(bool), st.data())
def test_an_event_that_is_missing_or_doubled_is_seen(plans: list[Plan], data: st.DataObject) -> None:
    events = run_of(plans)
    assert rules(without(events, data.draw(st.sampled_from(needed(events)))), PROMISE)
    assert rules(doubled(events, data.draw(st.sampled_from(once(events)))), PROMISE)


@pytest.mark.parametrize("fate", FATES)
def test_every_event_of_each_fate_counts(fate: Any) -> None:
    events = run_of([Plan(1.0, "value"), Plan(1.2, fate, items=3), Plan(1.4, fate, items=2)])
    assert not rules(events, PROMISE)
    for number in needed(events):
        assert rules(without(events, number), PROMISE), f"without {events[number]}"
    for number in once(events):
        assert rules(doubled(events, number), PROMISE), f"with two of {events[number]}"


def test_the_model_knows_every_kind_that_a_simulation_writes() -> None:
    known = {event["event"] for event in run_of([Plan(1.0, fate, items=1) for fate in FATES])}
    assert EVENTS.keys() - known == {"again", "stored", "gone", "dead", "calm", "broken", "left"}


def without(events: Events, number: int) -> Events:
    """A fault goes together with its mending."""
    gone = events[number]
    mended = [e for e in events if gone["event"] == "fault" and e["event"] == "mended" and e["number"] == gone["number"]]
    return [event for event in events if event is not gone and event not in mended]


def doubled(events: Events, number: int) -> Events:
    return [*events[: number + 1], events[number], *events[number + 1 :]]
