"""Rules of pending calls."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from prpc.protocol.pending import PendingCalls


@dataclass(eq=False)
class Waiting:
    message_id: UUID = field(default_factory=uuid4)


def test_a_reply_finds_its_call_by_id() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    first, second = Waiting(), Waiting()
    table.add(first)
    table.add(second)
    assert table.take(second.message_id) is second
    assert table.take(first.message_id) is first
    assert len(table) == 0


def test_the_first_outcome_wins_and_duplicates_find_nobody() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    call = Waiting()
    table.add(call)
    assert table.take(call.message_id) is call
    assert table.take(call.message_id) is None


def test_a_stranger_finds_nobody() -> None:
    assert PendingCalls[Waiting]().take(uuid4()) is None


def test_an_id_cannot_wait_twice() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    call = Waiting()
    table.add(call)
    twin = Waiting(call.message_id)
    with pytest.raises(ValueError, match=str(call.message_id)):
        table.add(twin)
    del twin
    assert table.take(call.message_id) is call


def test_ids_still_waited_for_stand_in_order() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    calls = [Waiting() for _ in range(4)]
    for call in calls:
        table.add(call)
    table.take(calls[1].message_id)
    assert table.waiting() == [calls[0].message_id, calls[2].message_id, calls[3].message_id]


def test_looking_at_calls_takes_none() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    calls = [Waiting() for _ in range(3)]
    for call in calls:
        table.add(call)
    assert table.calls() == calls
    assert table.get(calls[1].message_id) is calls[1]
    assert table.get(uuid4()) is None
    assert len(table) == 3


def test_a_call_that_nobody_holds_leaves_by_itself() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    call: Waiting | None = Waiting()
    assert call is not None
    table.add(call)
    call = None
    assert len(table) == 0


def test_a_dead_call_does_not_take_its_successor_with_it() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    message_id = uuid4()
    first = Waiting(message_id)
    table.add(first)
    table.take(message_id)
    second = Waiting(message_id)
    table.add(second)
    del first
    assert table.take(message_id) is second


def test_of_many_threads_exactly_one_decides() -> None:
    table: PendingCalls[Waiting] = PendingCalls()
    calls = [Waiting() for _ in range(500)]
    for call in calls:
        table.add(call)
    start, wins = threading.Barrier(4), [0, 0, 0, 0]

    def decide(me: int) -> None:
        start.wait()
        for call in calls:
            wins[me] += table.take(call.message_id) is not None

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == len(calls)
