"""Runs scenarios and counts what they called, over the whole session: the last test and the summary ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.clocks import redis_with_a_clock
from tests.chaos.scenarios import SCENARIOS, Report, run_scenario

#: Known to draw the faults that their scenario is for; `make chaos` draws new ones.
SEED = 20

REPORTS = pytest.StashKey[dict[str, Report]]()


@pytest.fixture
def reports(request: pytest.FixtureRequest) -> dict[str, Report]:
    """What came out of the scenarios of this session so far, by name."""
    return request.config.stash.setdefault(REPORTS, {})


@pytest.fixture
def keeps_its_promises(tmp_path: Path, request: pytest.FixtureRequest, reports: dict[str, Report]) -> Callable[[str], None]:
    """`keeps_its_promises("servers-killed")` runs the scenario once."""

    def run(name: str) -> None:
        if SCENARIOS[name].options.broker == "kafka":
            request.getfixturevalue("kafka_kit")  # skips where there is no real one
        else:
            request.getfixturevalue("private_redis")().close()  # so does this
        if SCENARIOS[name].options.redis_clock:
            try:
                redis_with_a_clock(tmp_path)
            except LookupError as exc:
                pytest.skip(str(exc))
        folder = tmp_path / name
        folder.mkdir()
        report = reports[name] = asyncio.run(run_scenario(name, SEED, folder))
        assert not report.violations, str(report)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.config.stash.get(REPORTS, {})
    if reports:
        terminalreporter.section("calls under faults")
        for report in reports.values():
            terminalreporter.line(report.headline)
        terminalreporter.line(f"{sum(len(r.ledger) for r in reports.values())} calls in {len(reports)} scenarios")
