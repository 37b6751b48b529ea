"""The runs that every `make test` makes: so many seeds, in modules that several processes share, by turns in a few tests each."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.sim import reached
from tests.sim.campaign import run_all
from tests.sim.options import options_of
from tests.sim.run import prepared

__all__ = ["CHUNKS", "MODULES", "Gate"]

#: Modules that share the runs, and tests in each.
MODULES, CHUNKS = 4, 10
#: Runs in all; SIM_RUNS in the environment sets another number.
RUNS = 10_000


class Gate:
    """What one module has run so far. `number`: of the module, from 0."""

    def __init__(self, number: int) -> None:
        runs = int(os.environ.get("SIM_RUNS", RUNS)) // MODULES
        self._seeds = range(number * runs, (number + 1) * runs)
        self._counts: Counter[str] = Counter()
        self._runs = 0

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """For the module: each time costs seconds."""
        gc.collect()
        gc.freeze()  # what pytest holds is not looked through after every few runs
        with prepared():
            yield

    def run(self, chunk: int) -> None:
        """Every promise is kept in every run of this chunk."""
        found = run_all([options_of(seed) for seed in self._seeds[chunk::CHUNKS]])
        self._counts.update(found.counts)
        self._runs += found.runs
        told = [
            f'{", ".join(failure.violations[:3])}\n  python -m tests.sim --options "{failure.options.text()}"'
            for failure in found.failures
        ]
        assert not told, "\n".join(told[:5])

    def reached(self) -> None:
        """The runs came to what they are there for."""
        assert reached.missed(self._counts, self._runs) == []
