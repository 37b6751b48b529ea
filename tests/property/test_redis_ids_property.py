"""What Redis remembers of a message id tells ids apart."""

from __future__ import annotations

import random
from uuid import UUID, uuid1, uuid4

from hypothesis import given
from hypothesis import strategies as st

from prpc.brokers.redis_memory import remembered


@given(st.sets(st.integers(0, 2**64 - 1), max_size=200))
def test_ids_that_count_stay_apart(numbers: set[int]) -> None:
    assert len({remembered(UUID(int=number)) for number in numbers}) == len(numbers)


@given(st.uuids(), st.integers(0, 127))
def test_every_bit_counts(message_id: UUID, bit: int) -> None:
    assert remembered(message_id) != remembered(UUID(int=message_id.int ^ 1 << bit))
    assert len(remembered(message_id)) == 14


def test_ids_that_are_drawn_or_made_of_the_time_stay_apart() -> None:
    draw = random.Random(7)
    ids = {uuid4() for _ in range(20_000)} | {uuid1() for _ in range(20_000)}
    for start in (0, 1_796_000_000_000):  # version 7: milliseconds, and what is drawn
        ids |= {
            UUID(int=(start + n << 80) | 7 << 76 | draw.getrandbits(12) << 64 | 2 << 62 | draw.getrandbits(62)) for n in range(9)
        }
    assert len({remembered(each) for each in ids}) == len(ids)
