"""Every scene runs clean, alone and among others, and the simulation knows every fault and every outcome that a caller can see.

How many branches of PRPC it reaches is measured by `python -m tests.sim.reach`, which takes minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.sim.options import SCENES, options_of
from tests.sim.outcomes import WANTED
from tests.sim.run import prepared, run_once
from tests.sim.scenes import SCENES as ALL
from tests.sim.scenes import scene_options


@pytest.fixture(scope="module", autouse=True)
def the_simulation() -> Iterator[None]:
    with prepared():
        yield


@pytest.mark.parametrize("name", ALL)
def test_a_scene_runs_clean(name: str) -> None:
    for seed in range(8):
        options = scene_options(name, seed)
        verdict = run_once(options)
        assert verdict.violations == [], options.text()


def test_every_fault_and_every_outcome_occurs() -> None:
    counts = Counter[str]()
    for options in [*(scene_options(name, seed) for name in ALL for seed in range(4)), *map(options_of, range(240))]:
        counts.update(run_once(options).counts)
    assert {name for name in WANTED if not counts[name]} == set()


def test_the_scenes_that_are_drawn_exist() -> None:
    assert set(SCENES) <= set(ALL)
