"""Rules of repeats."""

from __future__ import annotations

import pytest

from prpc.exceptions import DecodeError
from prpc.protocol.facts import CallFacts
from prpc.protocol.repeats import RepeatPolicy, Repeats, Step

POLICY = RepeatPolicy(retries=2, attempt_timeout=10.0, backoff=1.0, longest=3.0)


def test_pauses_double_up_to_the_longest_and_are_scattered() -> None:
    assert [POLICY.pause(attempt, 1.0) for attempt in (1, 2, 3, 4, 5000)] == [1.0, 2.0, 3.0, 3.0, 3.0]
    assert [POLICY.pause(attempt, 0.0) for attempt in (1, 2, 3)] == [0.5, 1.0, 1.5]


def test_an_attempts_time_runs_from_its_acceptance() -> None:
    call = Repeats(POLICY, None)
    assert call.moment is None and call.begin() == 1 and call.moment is None
    call.accepted(1, 100.0, 1.0)
    assert call.moment == 111.0
    assert (call.due(110.9), call.due(111.0)) == (Step.WAIT, Step.SEND)
    call.begin()
    call.accepted(2, 120.0, 1.0)
    assert call.moment == 132.0


def test_after_the_last_attempt_only_the_deadline_is_left() -> None:
    call = Repeats(POLICY, 500.0)
    for attempt in (1, 2, 3):
        assert call.begin() == attempt
        call.accepted(attempt, attempt * 100.0, 0.0)
    assert call.moment == 500.0
    assert (call.due(499.0), call.due(500.0)) == (Step.WAIT, Step.EXPIRE)


def test_the_deadline_comes_before_an_attempt_of_the_same_moment() -> None:
    call = Repeats(POLICY, 111.0)
    call.accepted(call.begin(), 100.0, 1.0)
    assert call.moment == 111.0 and call.due(111.0) is Step.EXPIRE


def test_an_error_is_the_outcome_when_no_attempt_was_accepted_and_none_is_left() -> None:
    call = Repeats(POLICY, None)
    assert call.failed(call.begin(), 0.0, 1.0, passing=True)
    assert call.moment == 1.0 and call.unsent
    assert call.failed(call.begin(), 1.0, 1.0, passing=True)
    assert not call.failed(call.begin(), 3.0, 1.0, passing=True)
    assert not call.unsent


def test_an_error_that_stays_is_the_outcome_at_once() -> None:
    call = Repeats(POLICY, None)
    assert not call.failed(call.begin(), 0.0, 1.0, passing=False)


@pytest.mark.parametrize("passing", [True, False])
def test_no_error_ends_a_call_of_which_an_attempt_was_accepted(passing: bool) -> None:
    call = Repeats(POLICY, None)
    call.accepted(call.begin(), 0.0, 0.0)
    for _ in range(2):
        assert call.failed(call.begin(), 50.0, 0.0, passing=passing)
    assert call.moment is None and not call.unsent


def test_what_became_of_an_attempt_stays_in_doubt() -> None:
    repeats = Repeats(POLICY, None)
    repeats.begin()
    assert not repeats.in_doubt
    assert repeats.failed(1, 0.0, 0.0, passing=True) and repeats.in_doubt
    repeats.begin()
    assert repeats.failed(2, 1.0, 0.0, passing=False) and repeats.moment is not None


def test_what_was_never_sent_is_not_in_doubt() -> None:
    repeats = Repeats(POLICY, None)
    repeats.begin()
    assert repeats.failed(1, 0.0, 0.0, passing=True, sent=False) and not repeats.in_doubt
    repeats.begin()
    assert repeats.lost(1.0, 0.0, passing=True, sent=False) and not repeats.in_doubt
    repeats.begin()
    assert not repeats.failed(3, 2.0, 0.0, passing=False)


def test_a_call_whose_reply_address_was_lost_is_in_doubt() -> None:
    repeats = Repeats(POLICY, None)
    repeats.begin()
    repeats.accepted(1, 0.0, 0.0)
    assert repeats.lost(1.0, 0.0, passing=True) and repeats.in_doubt


def test_what_is_said_of_an_earlier_attempt_changes_nothing() -> None:
    call = Repeats(POLICY, None)
    call.begin()
    assert call.lost(0.0, 1.0, passing=True)
    assert call.failed(1, 0.5, 1.0, passing=False)
    call.accepted(1, 0.5, 1.0)
    assert call.moment == 1.0
    call.begin()
    call.accepted(1, 1.5, 1.0)
    assert call.moment is None


def test_a_lost_reply_address_ends_what_has_no_attempt_left() -> None:
    call = Repeats(RepeatPolicy(1, 10.0, 1.0, 3.0), None)
    call.accepted(call.begin(), 0.0, 1.0)
    assert call.lost(1.0, 1.0, passing=True)
    assert call.unsent and call.moment == 2.0
    call.accepted(call.begin(), 2.0, 1.0)
    assert not call.lost(3.0, 1.0, passing=True)


def test_the_attempt_travels_from_the_second_on() -> None:
    assert CallFacts(attempt=1).to_fields() == {}
    assert CallFacts(attempt=3).to_fields() == {"attempt": "3"}
    assert CallFacts.from_fields({"attempt": "3"}).attempt == 3
    assert CallFacts.from_fields({}).attempt == 1


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "9" * 16])
def test_an_attempt_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="attempt"):
        CallFacts.from_fields({"attempt": text})


def test_what_a_server_answers_is_accepted_whatever_becomes_of_the_brokers_own_answer() -> None:
    call = Repeats(POLICY, 500.0)
    call.begin()
    call.answered()
    assert call.failed(1, 100.0, 0.0, passing=True)
    assert call.moment == 500.0
