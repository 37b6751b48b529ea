"""An event runs once, however often it is heard."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from prpc.protocol.heard import HeardEvents


def test_an_id_is_new_once() -> None:
    heard, one, other = HeardEvents(300), uuid4(), uuid4()
    assert [heard.is_new(i, 5.0, 5.0) for i in (one, other, one, other)] == [True, True, False, False]


def test_what_was_forgotten_is_not_new_again() -> None:
    heard = HeardEvents(300, most=3)
    ids = [UUID(int=number) for number in range(5)]
    assert all(heard.is_new(i, 100.0 + i.int, 105.0) for i in ids)
    assert not any(heard.is_new(i, 100.0 + i.int, 105.0) for i in ids)
    assert not heard.is_new(uuid4(), 101.0, 105.0)  # sent before one that was forgotten: who knows
    assert heard.is_new(uuid4(), 105.0, 105.0)


def test_a_flood_from_the_future_silences_nobody() -> None:
    heard = HeardEvents(300, most=10)
    assert all(heard.is_new(uuid4(), 350.0, 100.0) for _ in range(50))
    assert heard.is_new(uuid4(), 100.5, 100.5)


def test_ids_are_forgotten_with_time_too() -> None:
    heard = HeardEvents(60)
    for number in range(1000):
        assert heard.is_new(uuid4(), float(number), float(number))
    assert len(heard._sent) == 61


@pytest.mark.parametrize(
    ("sent", "age"), [(100.0, 0.0), (95.0, 5.0), (40.0, 60.0), (39.0, None), (103.0, 0.0), (160.0, 0.0), (161.0, None)]
)
def test_the_age_of_an_event(sent: float, age: float | None) -> None:
    assert HeardEvents(60).age(sent, 100.0) == age
