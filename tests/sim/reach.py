"""How much of PRPC the simulation alone reaches: runs schedules under branch coverage and prints what no schedule came to.

    python -m tests.sim.reach                     all scenes and a fixed range of seeds, in two processes
    python -m tests.sim.reach --seeds 0-300       others
    python -m tests.sim.reach --no-fail           the numbers alone

Fails where a folder stays under LEAST percent, where a run breaks a promise, or where a line of UNREACHABLE is none any more.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coverage import Coverage

if TYPE_CHECKING:
    from tests.sim.options import Options

ROOT = Path(__file__).parents[2]
FOLDERS = ("prpc/protocol", "prpc/server", "prpc/client")
LEAST = 95.0
PARTS = 2


def measure(seeds: range, scenes: int, part: int, data: Path) -> int:
    """Run these under coverage, which is saved at `data`; how many of them broke a promise. Imports PRPC only now."""
    coverage = _coverage(data)
    coverage.start()
    try:
        return sum(1 for _ in _broken(seeds, scenes, part))
    finally:
        coverage.stop()
        coverage.save()


def _coverage(data: Path) -> Coverage:
    folders = [str(ROOT / folder) for folder in FOLDERS]
    return Coverage(
        data_file=str(data),
        branch=True,
        source=folders,
        concurrency=["greenlet"],
        config_file=str(ROOT / "pyproject.toml"),
    )


def _broken(seeds: range, scenes: int, part: int) -> Iterator[None]:
    from tests.sim.run import prepared, run_once

    with prepared():
        for number, options in enumerate(_schedules(seeds, scenes, part)):
            verdict = run_once(options)
            if verdict.violations:
                print(options.text(), *verdict.violations[:3], sep="\n    ", flush=True)
                yield
            if number % 100 == 99:
                gc.collect()


def _schedules(seeds: range, scenes: int, part: int) -> Iterator[Options]:
    from tests.sim.options import options_of
    from tests.sim.scenes import SCENES, scene_options

    for seed in seeds:
        yield options_of(seed, "redis")
    for name in SCENES:
        for seed in range(part, scenes, PARTS):
            yield scene_options(name, seed)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.reach")
    parser.add_argument("--seeds", type=_range, default=range(1500), help="A-B, B excluded")
    parser.add_argument("--scenes", type=int, default=24, help="how often each scene is played")
    parser.add_argument("--no-fail", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None:
        number = int(args.part)
        return min(measure(args.seeds[number::PARTS], args.scenes, number, args.data), 1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        failed = _in_parts(args.seeds, args.scenes, Path(place))
        under = _report(Path(place))
    print(f"{len(args.seeds)} seeds in {time.monotonic() - began:.0f} s")
    return 0 if args.no_fail else int(failed or under)


def _in_parts(seeds: range, scenes: int, place: Path) -> bool:
    """Whether one of them failed."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.sim.reach", "--seeds", f"{seeds.start}-{seeds.stop}"]
    command += ["--scenes", str(scenes)]
    parts = [
        subprocess.Popen([*command, "--part", str(number), "--data", str(place / f".coverage.{number}")], cwd=ROOT)
        for number in range(PARTS)
    ]
    codes = [part.wait() for part in parts]  # all of them
    return any(codes)


def _report(place: Path) -> bool:
    """Print it; whether a folder is under LEAST."""
    coverage = _coverage(place / ".coverage")
    coverage.combine([str(place)])
    under = False
    for folder in FOLDERS:
        total = coverage.report(include=[str(ROOT / folder / "*")], show_missing=True, skip_covered=True)
        print(f"{folder}: {total:.1f} %\n")
        under |= total < LEAST
    return under


if __name__ == "__main__":
    sys.exit(main())
