"""Every request of one call, and every way in which it can go wrong, one after the other: exhaustive, not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.sim.armed import DEEDS
from tests.sim.options import Options
from tests.sim.run import Verdict, run_once

__all__ = ["CALLS", "PROCESSES", "sweep"]

#: One call of each kind, or two: moment, kind, seconds, end, timeout, when its caller leaves, items.
CALLS = {
    "work": ((0.5, "work", 0.3, "value", 30.0, None, 1),),
    "safe": ((0.5, "safe", 0.3, "value", 30.0, None, 1),),
    "process": ((0.5, "process", 0.3, "progress", 30.0, None, 1),),
    "process_safe": ((0.5, "process_safe", 0.3, "raise", 30.0, None, 1),),
    "stream": ((0.5, "stream", 0.4, "value", 30.0, None, 5),),
    "safe_stream": ((0.5, "safe_stream", 0.4, "value", 30.0, None, 5),),
    "left stream": ((0.5, "stream", 0.4, "value", 30.0, 0.1, 5),),
    "feed": ((0.5, "feed", 0.4, "value", 30.0, None, 4),),
    "nested": ((0.5, "nested", 0.4, "value", 30.0, None, 1),),
    "short": ((0.5, "work", 0.1, "value", 1.0, None, 1),),
    "short in line": ((0.5, "capped", 0.8, "value", 30.0, None, 1), (0.55, "capped", 0.1, "value", 0.5, None, 1)),
    "quick stream": ((0.5, "stream", 0.0, "value", 30.0, None, 3),),
    "cancelled": ((0.5, "work", 2.0, "value", 30.0, 0.3, 1),),
    "long safe": ((0.5, "safe", 2.0, "value", 30.0, None, 1),),
    "long safe_stream": ((0.5, "safe_stream", 2.0, "value", 30.0, None, 5),),
    "busy": ((0.5, "work", 7.0, "value", 30.0, None, 1), (0.52, "work", 7.0, "value", 30.0, None, 1)),
}
#: Calls that one server runs at once, where it is not all of them.
SLOTS = {"busy": 1}
#: Whose requests go wrong: the server's, which is alone at first, or the client's.
PROCESSES = ("s1-1", "c1")


def sweep(broker: str, kind: str) -> Iterator[Verdict]:
    """All runs for one kind of call."""
    # Everybody is there before the call comes, so that the first requests are those of the start.
    slots = SLOTS.get(kind, len(CALLS[kind]))
    plain = Options(broker=broker, servers=2, clients=1, slots=slots, span=2.0, kinds=(), planned=CALLS[kind])
    for process in PROCESSES:
        counted = run_once(replace(plain, armed=(process, 0, "")))
        yield counted
        for number in range(1, counted.counts["requests"] + 1):
            for deed in DEEDS:
                yield run_once(replace(plain, armed=(process, number, deed)))
