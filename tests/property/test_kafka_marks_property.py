"""Marks and shares of the Kafka adapter, whatever the order in which calls start and end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prpc.brokers.kafka_assignor import Member, share_out
from prpc.brokers.kafka_marks import MOST_OPEN, Mark, Marks, Progress, read_marks, write_marks

OWNERS = ("0123456789ab", "ba9876543210", "cccccccccccc")


class OnePartition(RuleBasedStateMachine):
    """One owner after the other, against a plain model: offset -> attempts, or ended."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(Marks(7, 7))
        self.model: dict[int, int] = {}
        self.upcoming = 7

    @rule(gap=st.integers(0, 300))
    def take(self, gap: int) -> None:
        self.progress.take(self.upcoming + gap)
        self.model[self.upcoming + gap] = 0
        self.upcoming += gap + 1

    @rule(data=st.data(), owner=st.sampled_from(OWNERS))
    def start(self, data: st.DataObject, owner: str) -> None:
        if self.model:
            offset = data.draw(st.sampled_from(sorted(self.model)))
            self.model[offset] += 1
            assert self.progress.start(offset, owner) == self.model[offset]

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        started = sorted(offset for offset, attempts in self.model.items() if attempts)
        if started:
            offset = data.draw(st.sampled_from(started))
            self.model[offset] -= 1
            self.progress.give_back(offset)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.model:
            offset = data.draw(st.sampled_from(sorted(self.model)))
            del self.model[offset]
            self.progress.end(offset)
            self.progress.end(offset)

    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(7, self.upcoming + 3))
        self.progress.skip(offset)
        self.model = {each: attempts for each, attempts in self.model.items() if each >= offset}
        self.upcoming = max(self.upcoming, offset)

    @rule(owner=st.sampled_from(OWNERS))
    def another_owner(self, owner: str) -> None:
        marks = self.progress.marks
        self.progress = Progress(read_marks(marks.base, write_marks(marks, owner)))

    @invariant()
    def same_as_the_model(self) -> None:
        assert {offset: mark.attempts for offset, mark in self.progress.open.items()} == self.model
        assert self.progress.upcoming == self.upcoming
        assert self.progress.marks.base == min(self.model, default=self.upcoming)


TestOnePartition = OnePartition.TestCase


@pytest.mark.parametrize("distance", [1, 100, 1_000_000])
def test_as_many_as_may_be_open_fit_into_a_commit(distance: int) -> None:
    opened = {10 + number * distance: Mark(1, OWNERS[number % 3]) for number in range(MOST_OPEN)}
    marks = Marks(10, max(opened) + 1, opened)
    text = write_marks(marks, OWNERS[0])
    assert len(text) <= 4096
    assert read_marks(10, text) == marks


def test_names_of_starts_fit_beside_them() -> None:
    """A server takes another name whenever it gives a start up; calls that were started under many of them may run at once."""
    names = [f"{OWNERS[number % 3]}.{1000 + number}" for number in range(60)]
    opened = {number * 100: Mark(1, names[number % 60]) for number in range(MOST_OPEN)}
    marks = Marks(0, max(opened) + 1, opened)
    text = write_marks(marks, names[0])
    assert len(text) <= 4096
    assert read_marks(0, text) == marks


@given(st.one_of(st.text(max_size=60), st.text("0123456789abcdefABCDEF+/=", max_size=40).map(lambda text: f"1:a,b:{text}")))
def test_whatever_stands_there_is_read_or_left(metadata: str) -> None:
    marks = read_marks(5, metadata)
    assert marks.base == 5 and marks.upcoming >= 5
    assert all(5 <= offset < marks.upcoming for offset in marks.open)


ids = [f"id-{number}" for number in range(8)]
members = st.dictionaries(
    st.sampled_from(ids),
    st.builds(
        Member,
        st.uuids().map(str),
        st.just(frozenset({"a"})),
        st.sampled_from(["", *ids]),
        st.integers(0, 4),
        st.sets(st.integers(0, 20)),
    ),
    min_size=1,
)


@given(members, st.integers(0, 24))
def test_every_partition_has_one_owner_and_shares_are_even(members: dict[str, Member], partitions: int) -> None:
    shares = share_out(members, partitions)
    assert sorted(number for numbers in shares.values() for number in numbers) == list(range(partitions))
    lengths = [len(numbers) for numbers in shares.values()]
    assert max(lengths) - min(lengths) <= 1


@given(members, st.integers(1, 24))
def test_nothing_moves_without_need(members: dict[str, Member], partitions: int) -> None:
    first = share_out(members, partitions)
    again = {key: Member(m.name, m.topics, key, 1, first[key]) for key, m in members.items()}
    assert share_out(again, partitions) == first
