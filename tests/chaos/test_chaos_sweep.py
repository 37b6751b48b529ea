"""The sweep leaves no part of a conversation out."""

from __future__ import annotations

import itertools

from tests.chaos.sweep import cut_points


def test_cuts_lie_in_every_stretch_and_around_the_end_of_every_piece() -> None:
    points = list(cut_points([100, 3, 250], step=40))
    assert points == sorted(set(points)) and points[0] == 1 and points[-1] == 353
    assert {99, 100, 101, 102, 103, 104, 352, 353} <= set(points)
    assert max(later - earlier for earlier, later in itertools.pairwise(points)) <= 40


def test_nothing_that_was_said_gives_no_cuts() -> None:
    assert list(cut_points([], step=40)) == []
