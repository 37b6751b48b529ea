"""Each request of a call goes wrong in each way, one at a time: nothing is left to chance here."""

from __future__ import annotations

import pytest

from tests.sim.run import prepared
from tests.sim.sweep import CALLS, sweep


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("broker", ["redis", "kafka"])
def test_whatever_request_goes_wrong_the_promises_hold(broker: str, kind: str) -> None:
    with prepared():
        for verdict in sweep(broker, kind):
            assert not verdict.violations, f"{verdict.options.text()}\n" + "\n".join(verdict.violations)
