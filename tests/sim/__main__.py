"""`python -m tests.sim --seeds A-B [--jobs N]`, or `--options "{...}"` for one run: simulated systems under faults, judged."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import Any

from tests.sim import reached
from tests.sim.campaign import Failure, Sum, campaign, rules_of
from tests.sim.options import Options, read_options
from tests.sim.report import report
from tests.sim.run import prepared, run_once

#: Failures that are told in full; of the others only the seed and what was broken.
MOST_REPORTS = 5


def main() -> int:
    """0: every promise was kept, and everything was reached; 1: not so; 130: interrupted."""
    given = _arguments().parse_args()
    if given.mutants:
        from tests.sim.measure import measure

        return measure(given.seeds or range(300), given.jobs, given.mutants if isinstance(given.mutants, str) else "")
    if given.options is not None:
        return _one(read_options(given.options))
    changes: dict[str, Any] = {}
    if given.policy is not None:
        changes = {"policy": given.policy, "demotions": 5 if given.policy == "pct" else 0}
    found, interrupted = _many(given.seeds or range(1000), given.jobs, given.broker, changes, given.seconds)
    missed = [] if interrupted else reached.missed(found.counts, found.runs, given.broker)
    for text in missed:
        print(f"NOT REACHED: {text}")
    _tell(found.failures, shrinks=not given.no_shrink and not interrupted)
    return 130 if interrupted else 1 if found.failures or missed else 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, metavar="A-B", help="from A to B, both included (default: 0-999)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--broker", choices=("redis", "kafka"), help="only this one's rules (default: as each seed says)")
    parser.add_argument("--policy", choices=("fifo", "pct"), help="only this order (default: as each seed says)")
    parser.add_argument("--seconds", type=float, help="begin no more runs after so many seconds")
    parser.add_argument("--options", help="one run, as a report names it")
    parser.add_argument("--no-shrink", action="store_true", help="tell failures as they are")
    parser.add_argument(
        "--mutants", nargs="?", const=True, metavar="NAME", help="remove each safeguard (or NAME) in turn and count who sees it"
    )
    return parser


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _one(options: Options) -> int:
    with prepared():
        verdict = run_once(options)
        print(f"{verdict.steps} steps, {verdict.seconds:.1f} virtual s, trace {verdict.trace & 0xFFFFFFFFFFFFFFFF:016x}")
        print(", ".join(f"{name}: {number}" for name, number in sorted(verdict.counts.items())))
        if verdict.violations:
            print(report(Failure(options, tuple(verdict.violations), verdict.trace)))
    return 1 if verdict.violations else 0


def _many(seeds: range, jobs: int, broker: str | None, changes: dict[str, Any], seconds: float | None) -> tuple[Sum, bool]:
    """What came of them, and whether somebody pressed Ctrl-C."""
    found, began, interrupted = Sum(), time.monotonic(), False
    shown = began
    with closing(campaign(seeds, jobs, broker, changes)) as parts:
        try:
            for part in parts:
                found.merge(part)
                for failure in part.failures:
                    print(f"seed {failure.options.seed}: {', '.join(sorted(failure.rules))}", flush=True)
                now = time.monotonic()
                if now - shown > 30:
                    shown = now
                    print(f"{found.runs:,} runs, {len(found.failures)} failed, {now - began:.0f} s", flush=True)
                if seconds is not None and now - began > seconds:
                    break
        except KeyboardInterrupt:
            interrupted = True
    _sum_up(found, time.monotonic() - began, jobs)
    return found, interrupted


def _sum_up(found: Sum, took: float, jobs: int) -> None:
    if not found.runs:
        return
    print(reached.table(found.counts))
    print(
        f"{found.runs:,} runs in {took:.1f} s on {jobs} processes: {found.runs / took * 60:,.0f} a minute; "
        f"{found.steps:,} steps, {found.steps / took:,.0f}/s; "
        f"{found.seconds / 86400:,.1f} virtual days, {found.seconds / took:,.0f} times real time"
    )
    print(f"{len(found.failures)} failed")


def _tell(failures: list[Failure], *, shrinks: bool) -> None:
    """The first few in full, and the first of each rule made small."""
    if not failures:
        return
    failures.sort(key=lambda failure: failure.options.seed)
    first: dict[str, Failure] = {}
    for failure in failures:
        for rule in failure.rules:
            first.setdefault(rule, failure)
    with prepared():
        for failure in failures[:MOST_REPORTS]:
            print(f"\n{report(failure)}", flush=True)
        for rule, failure in first.items() if shrinks else ():
            from tests.sim.shrink import shrink

            small, runs = shrink(failure.options, rule)
            verdict = run_once(small)
            print(f"\n{rule!r}, made small in {runs} runs from seed {failure.options.seed}:")
            if rule in rules_of(verdict.violations):
                print(report(Failure(small, tuple(verdict.violations), verdict.trace)), flush=True)
    print(f"\nfailed: {', '.join(str(failure.options.seed) for failure in failures)}")


if __name__ == "__main__":
    sys.exit(main())
