"""Events to put together in tests: call "a" of client "c", which runs on process "s-1" from 2.0 on and ends at 3.0."""

from __future__ import annotations

from typing import Any

__all__ = ["CALL", "END", "KILL", "START", "VALUE", "Events", "event", "rules"]

from tests.ledger.ledger import Ledger, Promise

Events = list[dict[str, Any]]


def event(kind: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "at": at, **fields}


CALL = event("call", 1.0, id="a", client="c", function="f", idempotent=False, timeout=5.0)
START = event("start", 2.0, id="a", server="s-1", token="t")
END = event("end", 2.5, id="a", token="t")
VALUE = event("outcome", 3.0, id="a", how="value", token="t")
KILL = event("fault", 2.1, number=1, name="kill -9 s", hits=["s"], kills=True)


def rules(events: Events, promise: Promise) -> list[str]:
    """Which rules these events break."""
    return [violation.rule for violation in Ledger(events).violations(promise)]
