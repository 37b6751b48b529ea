"""The runs under faults prove something by their number only: counted here, after all of them."""

from __future__ import annotations

import pytest

from tests.chaos import test_chaos_broker, test_chaos_kafka, test_chaos_network, test_chaos_programs
from tests.chaos.scenarios import KAFKA, SCENARIOS, Report

#: As issue 3 asks for.
FEWEST_CALLS = 20_000


def test_each_scenario_is_run_by_one_test() -> None:
    modules = (test_chaos_programs, test_chaos_broker, test_chaos_network, test_chaos_kafka)
    assert sorted(name for module in modules for name in module.NAMES) == sorted(SCENARIOS)


@pytest.mark.chaos
def test_there_were_enough_calls(reports: dict[str, Report]) -> None:
    missing = SCENARIOS.keys() - reports.keys() - {"redis-clock-jumps", *KAFKA}  # which need more than every machine has
    if missing:
        pytest.skip(f"this session did not run {', '.join(sorted(missing))}")
    assert sum(len(report.ledger) for report in reports.values()) >= FEWEST_CALLS
    assert all(report.ledger.faults and report.ledger.sure_calls for report in reports.values())
