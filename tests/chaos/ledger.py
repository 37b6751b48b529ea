"""The ledger: what was called, what ran and how each call ended, and whether that is what PRPC promises.

Pure: events in, violations out. Who writes the events (programs on one machine, or a simulation) is no matter, as long as all
moments are of one clock. An event is a plain dict; the fields of each kind stand at `EVENTS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EVENTS", "Ledger", "Promise", "Violation"]

Event = Mapping[str, Any]

#: Kind of event -> its fields beside `event` and `at` (seconds).
EVENTS: dict[str, tuple[str, ...]] = {
    # A client sends a call, which must have its outcome `timeout` seconds later at most.
    "call": ("id", "client", "function", "idempotent", "timeout"),
    # A client learns an outcome: `how` is "value" or the error's class, `token` what the function returned.
    "outcome": ("id", "how", "token"),
    # The same client looks at the same call again, at its end.
    "again": ("id", "how", "token"),
    # Somebody else reads the outcome that the broker keeps; `content` stands for its bytes.
    "stored": ("id", "content"),
    # A function's body begins; `token` is of this execution alone. It ends having made its result.
    "start": ("id", "server", "token"),
    "end": ("id", "token"),
    # A client is killed: nobody hears the outcomes of its open calls.
    "gone": ("client",),
    # A fault begins.
    "fault": ("name",),
    # The broker forgets what it held.
    "forgotten": (),
    # From here on the world is whole, and what is called must succeed.
    "calm": (),
    # A program ended otherwise than it should, or something was left behind.
    "broken": ("what",),
}

#: Outcomes which say that the function was not started.
NOT_STARTED = frozenset(
    {"DeadlineExceededError", "QueueFullError", "NoServerError", "FunctionNotFoundError", "BadArgumentsError"}
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the callers of one run may see besides values, before the calm."""

    #: Errors of calls that are not idempotent.
    plain: frozenset[str] = frozenset()
    #: Errors of idempotent calls.
    idempotent: frozenset[str] = frozenset()
    #: Seconds that an outcome may be late: what a busy machine needs to run a timer.
    slack: float = 2.0


@dataclass(slots=True)
class _Call:
    event: Event
    outcomes: list[Event] = field(default_factory=list)
    again: list[Event] = field(default_factory=list)
    stored: list[Event] = field(default_factory=list)
    starts: list[Event] = field(default_factory=list)
    ends: list[Event] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"call {self.event['id']} of {self.event['function']}() at {self.event['at']:.3f}"


class Ledger:
    """All events of one run."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._calls: dict[str, _Call] = {}
        self._strangers: list[Event] = []
        self._gone: dict[str, float] = {}
        self._calm: float | None = None
        self._broken: list[str] = []
        self.faults: list[Event] = []
        ordered = sorted(events, key=lambda e: (e["event"] != "call", e["at"]))  # a call is known before what becomes of it
        for event in ordered:
            self._add(event)

    def _add(self, event: Event) -> None:
        kind = event["event"]
        if kind == "call":
            self._calls[event["id"]] = _Call(event)
        elif kind in ("fault", "forgotten"):
            self.faults.append(event)
        elif kind == "gone":
            self._gone[event["client"]] = event["at"]
        elif kind == "calm":
            self._calm = event["at"]
        elif kind == "broken":
            self._broken.append(event["what"])
        else:
            self._add_to_call(kind, event)

    def _add_to_call(self, kind: str, event: Event) -> None:
        call = self._calls.get(event["id"])
        if call is None:
            self._strangers.append(event)
            return
        lists = {
            "outcome": call.outcomes,
            "again": call.again,
            "stored": call.stored,
            "start": call.starts,
            "end": call.ends,
        }
        lists[kind].append(event)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def calm_calls(self) -> int:
        """Calls that were sent after the world was whole again."""
        return sum(self._is_calm(call) for call in self._calls.values())

    def summary(self) -> dict[str, int]:
        """Counts: calls, executions, calls that ran more than once, and each outcome."""
        calls = self._calls.values()
        how = Counter(call.outcomes[0]["how"] if call.outcomes else "(none)" for call in calls)
        return {
            "calls": len(calls),
            "executions": sum(len(call.starts) for call in calls),
            "repeated": sum(len(call.starts) > 1 for call in calls),
            **dict(sorted(how.items())),
        }

    # the rules

    def violations(self, promise: Promise) -> list[Violation]:
        """Every broken promise, rule by rule."""
        found = [Violation("whole world", what) for what in self._broken]
        for event in self._strangers:
            found.append(Violation("known calls", f"{event['event']} of {event['id']}, which nobody called"))
        for call in self._calls.values():
            found += self._of_outcomes(call, promise)
            found += self._of_executions(call)
            found += self._of_first_outcome(call)
            found += self._of_errors(call, promise)
        return found

    def _of_outcomes(self, call: _Call, promise: Promise) -> list[Violation]:
        """One outcome, and that by the deadline; a client that was killed has nobody to tell."""
        outcomes, due = call.outcomes, call.event["at"] + call.event["timeout"] + promise.slack
        if len(outcomes) > 1:
            return [Violation("one outcome", f"{call.name} ended {len(outcomes)} times: {[o['how'] for o in outcomes]}")]
        if not outcomes:
            silent = call.event["client"] not in self._gone or self._gone[call.event["client"]] > due
            return [Violation("no silence", f"{call.name} has no outcome")] if silent else []
        if outcomes[0]["at"] > due:
            late = outcomes[0]["at"] - due + promise.slack
            return [Violation("deadline", f"{call.name} ended {late:.3f} s after its deadline with {outcomes[0]['how']}")]
        return []

    def _of_executions(self, call: _Call) -> list[Violation]:
        starts = call.starts
        found = []
        if not call.event["idempotent"] and len(starts) > 1:
            where = ", ".join(f"{s['server']} at {s['at']:.3f}" for s in starts)
            found.append(Violation("at most once", f"{call.name} ran {len(starts)} times: {where}"))
        for outcome in call.outcomes:
            if outcome["how"] in NOT_STARTED and starts:
                found.append(Violation("true outcome", f"{call.name} ended with {outcome['how']}, yet it ran"))
            if outcome["how"] == "value" and outcome["token"] not in {end["token"] for end in call.ends}:
                found.append(Violation("true outcome", f"{call.name} got {outcome['token']!r}, which no execution of it made"))
        return found

    def _of_first_outcome(self, call: _Call) -> list[Violation]:
        found = []
        first = [(o["how"], o["token"]) for o in call.outcomes[:1]]
        for event in call.again:
            if first and (event["how"], event["token"]) != first[0]:
                found.append(Violation("first outcome", f"{call.name} had {first[0]}, later {(event['how'], event['token'])}"))
        stored = {event["content"] for event in call.stored}
        if len(stored) > 1:
            found.append(Violation("first outcome", f"{call.name}: the broker kept {len(stored)} outcomes one after the other"))
        return found

    def _of_errors(self, call: _Call, promise: Promise) -> list[Violation]:
        if not call.outcomes or call.outcomes[0]["how"] == "value":
            return []
        how, calm = call.outcomes[0]["how"], self._is_calm(call)
        allowed = promise.idempotent if call.event["idempotent"] else promise.plain
        if how in allowed and not calm:
            return []
        kind = "idempotent " if call.event["idempotent"] else ""
        when = "after the world was whole again" if calm else f"{len(call.starts)} executions"
        return [Violation("allowed outcome", f"{kind}{call.name} ended with {how} ({when})")]

    def _is_calm(self, call: _Call) -> bool:
        return self._calm is not None and call.event["at"] >= self._calm
