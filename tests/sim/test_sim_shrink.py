"""The shrinker: what is left still breaks the rule, and is small."""

from __future__ import annotations

from tests.sim.campaign import rules_of
from tests.sim.measure import known
from tests.sim.mutants import applied
from tests.sim.options import Options, read_options
from tests.sim.run import prepared, run_once
from tests.sim.shrink import shrink


def test_only_what_matters_is_left() -> None:
    given = Options(
        faults=("kill", "cut", "pause"),
        noise={"slow": 0.1, "cut_after": 0.1},
        servers=3,
        clients=2,
        calls=12,
        kinds=("work", "safe"),
    )

    def breaks(options: Options) -> bool:
        return (
            1 not in options.skipped and options.noise.get("slow", 0.0) > 0 and (not options.planned or len(options.planned) >= 2)
        )

    small, runs = shrink(given, "any", breaks=breaks)
    assert small.skipped == (0, 2) and list(small.noise) == ["slow"] and len(small.planned) == 2 and small.servers == 1
    assert all(plan[3] == "value" and plan[5] is None for plan in small.planned)
    assert runs <= 300


def test_a_bound_of_runs() -> None:
    _, runs = shrink(Options(calls=16), "any", most=7, breaks=lambda options: True)
    assert runs == 7


def test_a_mutant_is_made_small() -> None:
    options = read_options(known()["plain_calls_run_again"][0])
    with prepared(), applied("plain_calls_run_again"):
        assert "at most once" in rules_of(run_once(options).violations)
        small, _ = shrink(options, "at most once", most=40)
        assert "at most once" in rules_of(run_once(small).violations)
    assert len(small.planned) < options.calls
