"""What the simulation once found stays mended: the runs of regressions.txt, each with its options written out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.options import Options, read_options
from tests.sim.run import prepared, run_once

LINES = Path(__file__).with_name("regressions.txt").read_text().splitlines()


@pytest.fixture(scope="module", autouse=True)
def the_simulation() -> Iterator[None]:
    with prepared():
        yield


def cases() -> Iterator[tuple[str, Options]]:
    """What each found, and the run."""
    found = ""
    for line in filter(None, LINES):
        if line.startswith("#"):
            found = line.removeprefix("#").strip()
        else:
            yield found, read_options(line)


@pytest.mark.parametrize("options", [pytest.param(options, id=found) for found, options in cases()])
def test_it_stays_mended(options: Options) -> None:
    assert run_once(options).violations == []
