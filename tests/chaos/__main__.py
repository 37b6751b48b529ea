"""`python -m tests.chaos [SCENARIO ...] [--seed N] [--minutes M]`: runs under faults, with a seed that repeats them."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.scenarios import SCENARIOS, Report, run_scenario


def main() -> int:
    """Each scenario once, or over and over for some minutes. 1 where a promise was broken; its files are kept then."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--seed", type=int, help="repeats a run (default: a new one)")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long, with a further seed each time")
    parser.add_argument("--seconds", type=float, help="seconds of faults in each run")
    parser.add_argument("--story", action="store_true", help="print what was done to each world, also where all was well")
    given = parser.parse_args()
    names = given.scenarios or list(SCENARIOS)
    for name in names:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}")
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    end, failed, calls = time.monotonic() + given.minutes * 60, 0, 0
    while True:
        for name in names:
            report = one_run(name, seed, given.seconds, story=given.story)
            failed += bool(report.violations)
            calls += len(report.ledger)
            if given.minutes and time.monotonic() > end:
                break
        seed += 1
        if time.monotonic() >= end:
            break
    print(f"{calls} calls, {failed} runs with violations")
    return 1 if failed else 0


def one_run(name: str, seed: int, seconds: float | None, *, story: bool) -> Report:
    folder = Path(tempfile.mkdtemp(prefix="prpc-chaos-"))
    report = asyncio.run(run_scenario(name, seed, folder, seconds=seconds))
    if report.violations:
        print(f"{report}\nits files: {folder}\n", flush=True)
    else:
        print(report if story else report.headline, flush=True)
        shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    sys.exit(main())
