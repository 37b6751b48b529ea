"""Many runs: seeds in chunks, over processes that stand outside the walls, added up."""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

from tests.sim.options import Options, options_of
from tests.sim.run import Verdict, prepared, run_once

__all__ = ["Failure", "Sum", "begin", "campaign", "run_all", "rules_of"]

#: Runs between two collections: more would only make the process larger, fewer cost time.
RUNS_PER_COLLECTION = 100
#: Runs after which a process is replaced: what a killed program held is not always let go, some kilobytes a run.
RUNS_PER_PROCESS = 10_000
#: Seeds that a worker process takes at once: about a second.
CHUNK = 50
#: Runs after which what is there by then counts as there for ever, for the collector.
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that broke promises."""

    options: Options
    violations: tuple[str, ...]
    trace: int

    @property
    def rules(self) -> frozenset[str]:
        return rules_of(self.violations)


@dataclass(slots=True)
class Sum:
    """What came of some runs."""

    runs: int = 0
    steps: int = 0
    #: Virtual seconds.
    seconds: float = 0.0
    #: How often each fault fired and each outcome was reached: "fault kill", "outcome value".
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.steps += verdict.steps
        self.seconds += verdict.seconds
        self.counts.update(verdict.counts)
        if verdict.violations:
            self.failures.append(Failure(verdict.options, tuple(verdict.violations), verdict.trace))

    def merge(self, other: Sum) -> None:
        self.runs += other.runs
        self.steps += other.steps
        self.seconds += other.seconds
        self.counts.update(other.counts)
        self.failures += other.failures


def rules_of(violations: Sequence[str]) -> frozenset[str]:
    """The broken rules; a run that came to no end, or an error that nobody has, counts as one, too."""
    return frozenset("unhandled" if text.startswith("unhandled") else text.split(":")[0] for text in violations)


def run_all(given: Sequence[Options]) -> Sum:
    """These runs one after the other, here; within `prepared`."""
    found = Sum()
    for options in given:
        found.add(run_once(options))
        global _runs
        _runs += 1
        if _runs == WARM_UP:
            gc.collect()
            gc.freeze()
        elif _runs % RUNS_PER_COLLECTION == 0:
            gc.collect()
    return found


_runs = 0
#: Of a worker process: what it leaves only with its end.
_standing = ExitStack()


def begin() -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us says when to end
    _standing.enter_context(prepared())


def _chunk(seeds: range, broker: str | None, changes: dict[str, Any]) -> Sum:
    return run_all([replace(options_of(seed, broker), **changes) for seed in seeds])


def campaign(seeds: range, jobs: int, broker: str | None, changes: dict[str, Any]) -> Iterator[Sum]:
    """Runs these seeds, with `changes` to what each seed says, in so many processes; gives what each chunk brought.

    Close it to end early: what runs then is waited for, a second or two.
    """
    each = RUNS_PER_PROCESS * jobs
    for first in range(0, len(seeds), each):
        yield from _part(seeds[first : first + each], jobs, broker, changes)


def _part(seeds: range, jobs: int, broker: str | None, changes: dict[str, Any]) -> Iterator[Sum]:
    chunks = (seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin) as pool:
        running: set[Future[Sum]] = set()
        try:
            for chunk in chunks:
                running.add(pool.submit(_chunk, chunk, broker, changes))
                if len(running) >= 2 * jobs:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
