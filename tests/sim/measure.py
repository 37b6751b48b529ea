"""`python -m tests.sim --mutants`: who sees each mutant, after how many seeds, and how often."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.sim.campaign import _begin, rules_of, run_all
from tests.sim.mutants import MUTANTS, applied
from tests.sim.options import options_of

__all__ = ["KNOWN", "Seen", "known", "measure"]

#: What the last measurement found; the tests begin with these seeds.
KNOWN = Path(__file__).with_name("mutants.tsv")
#: Seeds that are remembered for each.
MOST_SEEDS = 3


@dataclass(slots=True)
class Seen:
    """How a mutant was seen in so many runs: the seeds whose intact run is clean and whose run with the mutant is not."""

    name: str
    runs: int
    seeds: list[int]
    rules: Counter[str]


def measure(seeds: range, jobs: int, only: str) -> int:
    """1 where a mutant lives."""
    names = [only] if only else list(MUTANTS)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin) as pool:
        dirty = frozenset().union(*pool.map(_dirty, [seeds[first::jobs] for first in range(jobs)]))
        found = []
        for seen in pool.map(_see, names, [seeds] * len(names), [dirty] * len(names)):
            found.append(seen)
            print(_row(seen), flush=True)
    if not only:
        KNOWN.write_text("".join(f"{seen.name}\t{' '.join(map(str, seen.seeds[:MOST_SEEDS]))}\n" for seen in found if seen.seeds))
    living = [seen.name for seen in found if not seen.seeds]
    print(f"{len(found)} mutants, {len(living)} of them live" + "".join(f"\n  {name}" for name in living))
    return 1 if living else 0


def _row(seen: Seen) -> str:
    first = f"{seen.seeds[0]}" if seen.seeds else "never"
    rules = ", ".join(rule for rule, _ in seen.rules.most_common(3))
    return f"| {seen.name} | {MUTANTS[seen.name].about} | {first} | {len(seen.seeds) / seen.runs:.1%} | {rules} |"


def known() -> dict[str, list[int]]:
    """Mutant -> seeds that are known to show it."""
    lines = [line.split("\t") for line in KNOWN.read_text().splitlines()]
    return {name: [int(seed) for seed in seeds.split()] for name, seeds in lines}


def _dirty(seeds: range) -> frozenset[int]:
    """Seeds that fail without a mutant."""
    return frozenset(failure.options.seed for failure in run_all([options_of(seed, "redis") for seed in seeds]).failures)


def _see(name: str, seeds: range, dirty: frozenset[int]) -> Seen:
    clean = [options_of(seed, "redis") for seed in seeds if seed not in dirty]
    with applied(name):
        found = run_all(clean)
    rules = Counter(rule for failure in found.failures for rule in rules_of(failure.violations))
    return Seen(name, len(clean), sorted(failure.options.seed for failure in found.failures), rules)
