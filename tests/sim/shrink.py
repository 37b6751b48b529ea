"""From a run that breaks a rule to a smaller one that still does: calls and faults left out one by one, then everything plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from random import Random
from typing import Any

from tests.sim.caller import drawn_plans
from tests.sim.campaign import rules_of
from tests.sim.options import Options
from tests.sim.run import run_once

__all__ = ["MOST_RUNS", "shrink"]

#: Most runs of one shrinking.
MOST_RUNS = 300
#: What is tried for each setting, the plainest first.
PLAINER: tuple[dict[str, Any], ...] = (
    {"noise": {}},
    {"skew": 0.0},
    {"drift": 0.0},
    {"secret": ""},
    {"max_queue": 0},
    {"policy": "fifo", "demotions": 0},
    {"armed": ()},
    {"servers": 1},
    {"servers": 2},
    {"clients": 1},
    {"latency": 0.001},
    {"slots": 3},
    {"window": 8},
)
#: The same for the fields of a call (caller.Plan): place and value.
PLAINER_CALLS = ((5, None), (3, "value"), (4, 30.0), (6, 1), (2, 0.0), (2, 0.1))


def shrink(
    options: Options, rule: str, *, most: int = MOST_RUNS, breaks: Callable[[Options], bool] | None = None
) -> tuple[Options, int]:
    """The smallest that was found, and how many runs that took. Within `prepared`. `breaks`: whether a run still does it."""
    if breaks is None:
        breaks = lambda each: rule in rules_of(run_once(each).violations)  # noqa: E731
    runs, tried = 0, {options.text()}
    going = True
    while going:
        going = False
        for smaller in _smaller(options):
            if smaller.text() in tried:
                continue
            if runs >= most:
                return options, runs
            runs += 1
            tried.add(smaller.text())
            if breaks(smaller):
                options, going = smaller, True
                break
    return _without_skipped(options), runs


def _smaller(options: Options) -> Iterator[Options]:
    """Large steps first."""
    if not options.planned:
        plans = drawn_plans(Random(f"{options.seed} workload"), options)
        yield replace(options, planned=tuple(astuple(plan) for plan in plans))
        return
    yield from _fewer_calls(options)
    left = [number for number in range(len(options.faults)) if number not in options.skipped]
    if len(left) > 1:
        yield replace(options, skipped=tuple(range(len(options.faults))))
    for number in left:
        yield replace(options, skipped=tuple(sorted({*options.skipped, number})))
    for kind in options.noise if len(options.noise) > 1 else ():
        yield replace(options, noise={name: rate for name, rate in options.noise.items() if name != kind})
    for changes in PLAINER:
        if changes.get("servers", 0) <= options.servers:
            yield replace(options, **changes)
    for number, plan in enumerate(options.planned):
        for place, value in PLAINER_CALLS:
            if plan[place] != value and not (place == 2 and plan[2] == 0.0):
                changed = (*plan[:place], value, *plan[place + 1 :])
                yield replace(options, planned=(*options.planned[:number], changed, *options.planned[number + 1 :]))


def _fewer_calls(options: Options) -> Iterator[Options]:
    """Half of them, a quarter, ..., one."""
    plans = options.planned
    size = len(plans) // 2
    while size:
        for first in range(0, len(plans), size):
            kept = (*plans[:first], *plans[first + size :])
            if kept:
                yield replace(options, planned=kept)
        size //= 2


def _without_skipped(options: Options) -> Options:
    """Where no fault is left nothing needs to be skipped."""
    if len(options.skipped) == len(options.faults):
        return replace(options, faults=(), skipped=())
    return options
