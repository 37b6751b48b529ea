"""The same seed makes the same run: twice in one process, in other processes, and whatever hashes and addresses are."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys

import pytest

from tests.sim.options import Options, options_of, read_options
from tests.sim.run import Verdict, prepared, run_once

SEEDS = range(20)
#: Runs in a process of its own, whose memory is strewn with rubbish first.
PROGRAM = "from tests.sim.test_sim_replay import tell_all; tell_all()"


def of(seed: int, policy: str) -> Options:
    given = options_of(seed, "redis")
    return Options(**{**vars(given), "policy": policy, "demotions": 5 if policy == "pct" else 0})


def mark(verdict: Verdict) -> str:
    """Stands for everything that happened, ids included."""
    text = json.dumps([verdict.events, verdict.trace, verdict.steps, verdict.violations], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def marks(rubbish: int) -> dict[str, str]:
    draw, kept = random.Random(rubbish), []
    found = {}
    with prepared():
        for policy in ("fifo", "pct"):
            for seed in SEEDS:
                kept.append([bytearray(draw.randrange(1, 2000)) for _ in range(draw.randrange(500))])
                found[f"{seed} {policy}"] = mark(run_once(of(seed, policy)))
    return found


def tell_all() -> None:
    print(json.dumps(marks(int(os.environ["PYTHONHASHSEED"]))))


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return marks(0)


def test_twice_in_one_process(here: dict[str, str]) -> None:
    assert marks(1) == here


@pytest.mark.parametrize("hash_seed", ["1", "2", "3"])
def test_in_another_process(here: dict[str, str], hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == here


@pytest.mark.parametrize("seed", range(50))
def test_options_are_read_as_they_are_written(seed: int) -> None:
    options = options_of(seed)
    assert read_options(options.text()) == options


def test_another_seed_makes_another_run(here: dict[str, str]) -> None:
    assert len(set(here.values())) == len(here)
