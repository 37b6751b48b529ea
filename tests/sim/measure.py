"""`python -m tests.sim --mutants`: who sees each mutant, after how many seeds, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random

from tests.sim.caller import drawn_plans
from tests.sim.campaign import Sum, begin, run_all
from tests.sim.mutants import MUTANTS, applied, limited, shows
from tests.sim.options import Options, options_of
from tests.sim.run import run_once
from tests.sim.sweep import CALLS, sweep

__all__ = ["KNOWN", "Seen", "known", "measure"]

#: What the last measurement found; the tests begin with these seeds.
KNOWN = Path(__file__).with_name("mutants.tsv")
#: Where a reader finds the table, and between which lines.
PAGE = Path(__file__).parents[2] / "docs/explanation/simulation.md"
MARKS = "<!-- mutants -->", "<!-- end of mutants -->"
#: Runs that are remembered for each.
MOST_SHOWN = 2
#: Runs that show a mutant after which its share is known well enough.
ENOUGH = 6


@dataclass(slots=True)
class Seen:
    """How a mutant was seen in so many runs: those that are clean without it, and are not with it."""

    name: str
    runs: int
    #: How many, and the first seed; None where it took the sweep.
    seen: int
    first: int | None
    rules: Counter[str]
    #: Some of those runs, written out so that they stay what they are whatever seeds come to mean.
    shown: list[str]


def measure(seeds: range, jobs: int, only: str) -> int:
    """All mutants, or those of `only`, by commas. 1 where one lives."""
    names = only.split(",") if only else list(MUTANTS)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin) as pool:
        dirty = {
            broker: frozenset().union(*pool.map(_dirty, [seeds[first::jobs] for first in range(jobs)], [broker] * jobs))
            for broker in sorted({MUTANTS[name].broker for name in names})
        }
        found: dict[str, Seen] = {}
        for future in as_completed([pool.submit(_see, name, seeds, dirty[MUTANTS[name].broker]) for name in names]):
            seen = future.result()
            found[seen.name] = seen
            print(_row(seen), flush=True)
    living = [name for name in names if not found[name].seen]
    _keep(found.values())
    print(f"{len(found)} mutants, {len(living)} of them live" + "".join(f"\n  {name}" for name in living))
    return 1 if living else 0


def _keep(found: Iterable[Seen]) -> None:
    """What was measured, beside what was before: the seeds for the tests, the table into the page, between its marks."""
    shown = known()
    text = PAGE.read_text()
    table = text[text.index(MARKS[0]) : text.index(MARKS[1])].splitlines()
    rows = {line.split("|")[1].strip(): line for line in table if line.startswith("| ") and not line.startswith("| mutant |")}
    for seen in found:
        rows[seen.name] = _row(seen)
        shown[seen.name] = seen.shown
    lines = [f"{name}\t{text}\n" for name in sorted(shown) if name in MUTANTS for text in shown[name]]
    KNOWN.write_text("".join(lines))
    begin, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    head = "| mutant | what it lacks | first seed | runs that show it | by |\n|---|---|---|---|---|\n"
    PAGE.write_text(
        f"{text[:begin]}\n{head}" + "\n".join(rows[name] for name in sorted(rows) if name in MUTANTS) + f"\n{text[end:]}"
    )


def _row(seen: Seen) -> str:
    first, share = f"{seen.first}", f"{seen.seen / seen.runs:.1%}"
    if seen.first is None:
        first, share = ("sweep", f"{seen.seen} of {seen.runs:,}") if seen.seen else ("never", "")
    rules = ", ".join(rule for rule, _ in seen.rules.most_common(3))
    return f"| {seen.name} | {MUTANTS[seen.name].about} | {first} | {share} | {rules} |"


def known() -> dict[str, list[str]]:
    """Mutant -> runs that are known to show it, as `Options.text` writes them."""
    found: dict[str, list[str]] = {}
    for line in KNOWN.read_text().splitlines():
        name, _, text = line.partition("\t")
        found.setdefault(name, []).append(text)
    return found


def _dirty(seeds: range, broker: str) -> frozenset[int]:
    """Seeds that fail without a mutant."""
    with limited():
        return frozenset(failure.options.seed for failure in run_all([options_of(seed, broker) for seed in seeds]).failures)


def _see(name: str, seeds: range, dirty: frozenset[int]) -> Seen:
    clean = [options_of(seed, MUTANTS[name].broker) for seed in seeds if seed not in dirty]
    found = Sum()
    with applied(name):
        while found.runs < len(clean) and len(found.failures) < ENOUGH:
            found.merge(run_all(clean[found.runs : found.runs + 20]))
        shown = [_written(failure.options) for failure in found.failures[:MOST_SHOWN]]
    if not shown:
        return _sweep(name)
    first = min(failure.options.seed for failure in found.failures)
    rules = Counter(rule for failure in found.failures for rule in failure.rules)
    return Seen(name, found.runs, len(found.failures), first, rules, shown)


def _sweep(name: str) -> Seen:
    """What no draw shows: every request of a call goes wrong."""
    found = Sum()
    with applied(name):
        for kind in CALLS:
            for verdict in sweep(MUTANTS[name].broker, kind):
                found.add(verdict)
    seen = [failure for failure in found.failures if shows(name, failure.options)]
    rules = Counter(rule for failure in seen for rule in failure.rules)
    return Seen(name, found.runs, len(seen), None, rules, [failure.options.text() for failure in seen[:MOST_SHOWN]])


def _written(options: Options) -> str:
    """With its calls written out, where that shows the mutant as well."""
    plans = drawn_plans(Random(f"{options.seed} workload"), options)
    planned = replace(options, planned=tuple(astuple(plan) for plan in plans))
    same = not options.planned and run_once(planned).violations
    return planned.text() if same else options.text()
