"""What a person reads of a run that failed: how it is repeated, what was broken, and the events that matter."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.sim.campaign import Failure
from tests.sim.run import Verdict, run_once

__all__ = ["report"]

#: Events that are shown, the last ones.
MOST_EVENTS = 40
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Events that are shown whatever call is in question.
ALWAYS = frozenset({"fault", "mended", "gone", "calm", "left", "broken"})


def report(failure: Failure) -> str:
    """Runs it once more, within `prepared`, with what a look into it needs."""
    verdict = run_once(failure.options, watched=True)
    lines = [
        f"seed {failure.options.seed} failed: {failure.options.text()}",
        f"commit {_commit()}, Python {platform.python_version()}, trace {failure.trace & 0xFFFFFFFFFFFFFFFF:016x}",
        *(f"  {text}" for text in failure.violations),
    ]
    if verdict.trace != failure.trace:
        lines.append("  IT DOES NOT REPLAY: run once more, it went another way. Mend that first.")
    lines += ["events:", *(f"  {_line(event)}" for event in events_that_matter(verdict))]
    if verdict.dump:
        lines += ["hosts:", *(f"  {line}" for line in verdict.dump.splitlines())]
    lines.append(f'replay: python -m tests.sim --options "{failure.options.text()}"')
    return "\n".join(lines)


def events_that_matter(verdict: Verdict) -> list[dict[str, Any]]:
    """Of the calls in question, and faults: the last ones, and where each of those calls began."""
    ids = {found for text in verdict.violations for found in _ID.findall(text)}
    deliveries = {event["delivery"] for event in verdict.events if event["event"] == "taken" and event["id"] in ids}
    servers = {event["server"] for event in verdict.events if event.get("delivery") in deliveries and "server" in event}
    shown = []
    for event in verdict.events:
        mine = event.get("id") in ids or event.get("delivery") in deliveries or event["event"] in ALWAYS
        if (
            mine
            or not ids
            or (event["event"] == "renewed" and event["server"] in servers and "WorkerLost" in str(verdict.violations))
        ):
            shown.append(event)
    return shown[-MOST_EVENTS:]


def _line(event: dict[str, Any]) -> str:
    fields = ", ".join(f"{name}={value}" for name, value in event.items() if name not in ("event", "at"))
    return f"{event['at']:10.4f}  {event['event']:10} {fields}"


def _commit() -> str:
    """Of the working copy, where it is one."""
    try:
        asked = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        found = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
