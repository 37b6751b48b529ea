"""Whether a campaign reached what it is there for: each kind of fault fired, each outcome was seen by some caller."""

from __future__ import annotations

from collections import Counter

from tests.sim.options import FAULTS, NOISE, ON_KAFKA

__all__ = ["OUTCOMES", "missed", "table"]

#: Outcomes that callers can see, errors by their classes (prpc/exceptions.py). Not those of a wrong configuration or of a wrong
#: call, which no fault brings about.
OUTCOMES = (
    *("value", "left", "ValueError", "RemoteException", "EncodeError", "ClientTimeOutError", "WorkerTimeoutError"),
    *("DeadlineExceededError", "WorkerLostError", "ServerShutdownError", "BrokerUnavailableError", "CallCancelledError"),
    *("QueueFullError",),
)
#: Of so many runs each kind of fault and each outcome is seen once, at least, and in ten times as many ten times.
RUNS_FOR_ONE = 1_000
#: Faults that a broker does not know.
NOT_ON = {"kafka": tuple(ON_KAFKA), "redis": ("rebalance",)}


def missed(counts: Counter[str], runs: int, broker: str | None = None) -> list[str]:
    """What was reached too seldom in so many runs; nothing where they are too few to tell. `broker`: all runs were on it."""
    least = runs // RUNS_FOR_ONE
    never = {f"fault {name}" for name in NOT_ON.get(broker or "", ())}
    return [
        f"{name}: {number} times, expected at least {least}"
        for name, number in _all(counts)
        if number < least and name not in never
    ]


def table(counts: Counter[str]) -> str:
    """How often each was reached."""
    found = _all(counts)
    known = {name for name, _ in found}
    found += sorted((name, number) for name, number in counts.items() if name not in known)
    return "\n".join(f"  {name:32} {number:8,}" for name, number in found)


def _all(counts: Counter[str]) -> list[tuple[str, int]]:
    names = [f"fault {name}" for name in FAULTS] + [*NOISE] + [f"outcome {name}" for name in OUTCOMES]
    return [(name, counts[name]) for name in names]
