"""How much of PRPC the simulation alone reaches: runs schedules under branch coverage and prints what no schedule came to.

    python -m tests.sim.reach                     all scenes and a fixed range of seeds, in two processes
    python -m tests.sim.reach --seeds 0-300       others
    python -m tests.sim.reach --no-fail           the numbers alone

Fails where a folder stays under LEAST percent, or where a run breaks a promise.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coverage import Coverage

if TYPE_CHECKING:
    from tests.sim.options import Options

ROOT = Path(__file__).parents[2]
FOLDERS = ("prpc/protocol", "prpc/server", "prpc/client")
LEAST = 95.0
#: How often each fault and each outcome must occur.
OFTEN = 10
PARTS = 2
#: What no schedule can come to, and why; it does not count.
UNREACHABLE = {
    "prpc/server/alone.py": "takes a real process over: chooses its loop, takes its signals, sets its garbage collector",
    "prpc/server/reloading.py": "supervises real processes: starts a command, watches files, takes signals",
}


def measure(seeds: range, scenes: int, part: int, data: Path) -> int:
    """Run these under coverage, which is saved at `data`; how many of them broke a promise. Imports PRPC only now."""
    coverage, counts = _coverage(data), Counter[str]()
    coverage.start()
    try:
        return sum(1 for _ in _broken(seeds, scenes, part, counts))
    finally:
        coverage.stop()
        coverage.save()
        data.with_name(f"counts{part}.json").write_text(json.dumps(counts))


def _coverage(data: Path) -> Coverage:
    folders = [str(ROOT / folder) for folder in FOLDERS]
    return Coverage(
        data_file=str(data),
        branch=True,
        source=folders,
        omit=[str(ROOT / path) for path in UNREACHABLE],
        concurrency=["greenlet"],
        config_file=str(ROOT / "pyproject.toml"),
    )


def _broken(seeds: range, scenes: int, part: int, counts: Counter[str]) -> Iterator[None]:
    from tests.sim.run import prepared, run_once

    with prepared():
        for number, options in enumerate(_schedules(seeds, scenes, part)):
            verdict = run_once(options)
            counts.update(verdict.counts)
            if verdict.violations:
                print(options.text(), *verdict.violations[:3], sep="\n    ", flush=True)
                yield
            if number % 100 == 99:
                gc.collect()


def _schedules(seeds: range, scenes: int, part: int) -> Iterator[Options]:
    from tests.sim.options import options_of
    from tests.sim.scenes import SCENES, scene_options

    for seed in seeds:
        yield options_of(seed)
    for name in SCENES:
        for seed in range(part, scenes, PARTS):
            yield scene_options(name, seed)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.reach")
    parser.add_argument("--seeds", type=_range, default=range(600), help="A-B, B excluded")
    parser.add_argument("--scenes", type=int, default=16, help="how often each scene is played")
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
        under = _report(Path(place)) | _rare(Path(place))
    for path, why in UNREACHABLE.items():
        print(f"not counted: {path} ({why})")
    print(f"{len(args.seeds)} seeds, scenes {args.scenes} times each, in {time.monotonic() - began:.0f} s")
    return 0 if args.no_fail else int(failed or under)


def _in_parts(seeds: range, scenes: int, place: Path) -> bool:
    """Whether one of them failed."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.sim.reach", "--seeds", f"{seeds.start}-{seeds.stop}"]
    command += ["--scenes", str(scenes)]
    parts = [
        subprocess.Popen([*command, "--part", str(number), "--data", str(place / f".coverage.{number}")], cwd=ROOT)
        for number in range(PARTS)
    ]
    codes = [part.wait() for part in parts]
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


def _rare(place: Path) -> bool:
    """Print how often each fault and each outcome occurred; whether one did so seldom."""
    from tests.sim.outcomes import WANTED

    counts = Counter[str]()
    for file in place.glob("counts*.json"):
        counts.update(json.loads(file.read_text()))
    print(", ".join(f"{name}: {counts[name]}" for name in WANTED))
    seldom = [name for name in WANTED if counts[name] < OFTEN]
    if seldom:
        print(f"less than {OFTEN} times: {', '.join(seldom)}")
    return bool(seldom)


if __name__ == "__main__":
    sys.exit(main())
