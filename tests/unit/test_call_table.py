"""The server's rules about calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from prpc.exceptions import CallCancelledError, CallError, DeadlineExceededError, WorkerLostError
from prpc.protocol.call_table import CallTable, remaining_time


def refusal(table: CallTable[Any], message_id: UUID, **given: Any) -> CallError | None:
    facts: dict[str, Any] = {"timeout": None, "queued": 0.0, "attempt": 1, "idempotent": False, "now": 0.0}
    return table.refusal(message_id, "job", **{**facts, **given})


def test_a_fresh_call_may_start() -> None:
    assert refusal(CallTable(), uuid4(), timeout=5.0, queued=4.9) is None


def test_a_call_runs_from_begin_to_end() -> None:
    table: CallTable[str] = CallTable()
    message_id = uuid4()
    table.begin(message_id, "run")
    assert table.running(message_id) == "run"
    assert len(table) == 1 and list(table) == ["run"]
    table.end(message_id)
    table.end(message_id)
    assert table.running(message_id) is None and len(table) == 0


def test_an_expired_call_is_refused_with_its_times() -> None:
    error = refusal(CallTable(), uuid4(), timeout=2.0, queued=2.5)
    assert isinstance(error, DeadlineExceededError)
    assert (error.function, error.timeout, error.queued) == ("job", 2.0, 2.5)
    assert "not started" in str(error)


def test_a_lost_call_that_has_expired_is_not_said_to_have_never_started() -> None:
    assert isinstance(refusal(CallTable(), uuid4(), timeout=2.0, queued=2.5, attempt=2), WorkerLostError)
    again = refusal(CallTable(), uuid4(), timeout=2.0, queued=2.5, attempt=2, idempotent=True)
    assert isinstance(again, DeadlineExceededError) and "not started again" in str(again)


@pytest.mark.parametrize(
    ("attempt", "idempotent", "lost"), [(1, False, False), (2, False, True), (5, True, False), (6, True, True)]
)
def test_a_lost_call_runs_again_only_when_it_is_idempotent_and_not_for_ever(attempt: int, idempotent: bool, lost: bool) -> None:
    error = refusal(CallTable(), uuid4(), attempt=attempt, idempotent=idempotent)
    assert isinstance(error, WorkerLostError) == lost


def test_cancel_names_the_runs_to_stop() -> None:
    table: CallTable[str] = CallTable()
    first, second = uuid4(), uuid4()
    table.begin(first, "first")
    assert table.cancel([first, second], 0.0) == ["first"]


def test_a_cancel_that_overtakes_its_call_still_works() -> None:
    table: CallTable[str] = CallTable(early_seconds=60.0)
    message_id = uuid4()
    assert table.cancel([message_id], 100.0) == []
    error = refusal(table, message_id, now=159.0)
    assert isinstance(error, CallCancelledError)
    assert error.message_id == str(message_id)
    assert refusal(table, uuid4(), now=159.0) is None


def test_a_further_attempt_of_a_call_that_was_cancelled_as_it_ran_does_not_start() -> None:
    table: CallTable[str] = CallTable()
    message_id = uuid4()
    table.begin(message_id, "run")
    assert table.cancel([message_id], 100.0) == ["run"]
    table.end(message_id)
    assert isinstance(refusal(table, message_id, now=101.0), CallCancelledError)


def test_early_cancels_are_forgotten_in_time() -> None:
    table: CallTable[str] = CallTable(early_seconds=60.0)
    message_id = uuid4()
    table.cancel([message_id], 100.0)
    assert refusal(table, message_id, now=160.0) is None


def test_early_cancels_are_bounded_and_the_oldest_go_first() -> None:
    table: CallTable[str] = CallTable(max_early=2)
    ids = [uuid4() for _ in range(3)]
    table.cancel([ids[0]], 0.0)
    table.cancel([ids[1]], 1.0)
    table.cancel([ids[0]], 2.0)  # said again: now the younger one
    table.cancel([ids[2]], 3.0)
    assert [refusal(table, i, now=4.0) is None for i in ids] == [False, True, False]


def test_remaining_time_is_the_shortest() -> None:
    assert remaining_time(None, 3.0, 2.0) == 2.0
    assert remaining_time(None, None) is None
