"""The ledger: what was called, what ran and how each call ended, and whether that is what PRPC promises.

Pure: events in, violations out. Who writes the events (programs on one machine, or a simulation) is no matter, as long as all
moments are of one clock. An event is a plain dict; the fields of each kind stand at `EVENTS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.causes import Fault, Faults

__all__ = ["EVENTS", "Ledger", "Promise", "Violation"]

Event = Mapping[str, Any]

#: Kind of event -> its fields beside `event` and `at` (seconds).
EVENTS: dict[str, tuple[str, ...]] = {
    # A client sends a call, which must have its outcome `timeout` seconds later at most. `sure`: no fault excuses an error of it.
    "call": ("id", "client", "function", "idempotent", "timeout", "sure"),
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
    # A fault begins: what it hits and does stands at `causes.Fault`. It is mended.
    "fault": ("number", "name", "hits", "kills", "forgets", "calls"),
    "mended": ("number",),
    # The broker holds a dead letter of this call.
    "dead": ("id", "reason"),
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
    #: Seconds for which a fault that is mended may still cost a call: a server that went on learns only then that its lease ran
    #: out, a client that its connection broke.
    aftermath: float = 2.0
    #: Seconds within which the callers of a server that was killed know it; None where other faults may hold that up.
    told_within: float | None = None


@dataclass(slots=True)
class _Call:
    event: Event
    outcomes: list[Event] = field(default_factory=list)
    again: list[Event] = field(default_factory=list)
    stored: list[Event] = field(default_factory=list)
    starts: list[Event] = field(default_factory=list)
    ends: list[Event] = field(default_factory=list)
    dead: list[Event] = field(default_factory=list)

    @property
    def ended(self) -> float:
        """When its caller had the outcome; infinity where it has none."""
        return float(self.outcomes[0]["at"]) if self.outcomes else math.inf

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
        self._faults = Faults()
        ordered = sorted(events, key=lambda e: (e["event"] != "call", e["at"]))  # a call is known before what becomes of it
        for event in ordered:
            self._add(event)

    def _add(self, event: Event) -> None:
        kind = event["event"]
        if kind == "call":
            self._calls[event["id"]] = _Call(event)
        elif kind == "fault":
            self._faults.begin(event)
        elif kind == "mended":
            self._faults.end(event)
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
            "dead": call.dead,
        }
        lists[kind].append(event)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def sure_calls(self) -> int:
        """Calls that no fault excuses, as the world was whole when they were sent."""
        return sum(self._is_sure(call) for call in self._calls.values())

    @property
    def faults(self) -> list[Fault]:
        return list(self._faults)

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
            found += self._of_losses(call, promise)
            found += self._of_dead_letters(call)
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
            # Of an idempotent call it is the last attempt that was not started.
            further = call.event["idempotent"] and outcome["how"] == "DeadlineExceededError"
            if outcome["how"] in NOT_STARTED and starts and not further:
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
        # Once the caller of a repeated call has its outcome, the broker may hold that of a further attempt until it is removed.
        until = call.ended if call.event["idempotent"] else math.inf
        stored = {event["content"] for event in call.stored if event["at"] <= until}
        if len(stored) > 1:
            found.append(Violation("first outcome", f"{call.name}: the broker kept {len(stored)} outcomes one after the other"))
        return found

    def _of_errors(self, call: _Call, promise: Promise) -> list[Violation]:
        """Only the errors that the run allows, and those only where a fault explains them."""
        if not call.outcomes or call.outcomes[0]["how"] == "value":
            return []
        how, sure = call.outcomes[0]["how"], self._is_sure(call)
        allowed = promise.idempotent if call.event["idempotent"] else promise.plain
        kind = "idempotent " if call.event["idempotent"] else ""
        if how not in allowed or sure:
            when = "where no fault excuses it" if sure else f"{len(call.starts)} executions"
            return [Violation("allowed outcome", f"{kind}{call.name} ended with {how} ({when})")]
        if call.event["idempotent"] and how == "WorkerLostError":
            given_up = any(letter["reason"] == "attempts" for letter in call.dead)
            return [] if given_up else [Violation("true error", f"{kind}{call.name} ended with {how}, yet nobody gave it up")]
        starts = [(start["server"], start["at"]) for start in call.starts]
        if self._faults.explain(how, call.event["id"], starts, (call.event["at"], call.ended, promise.aftermath)):
            return []
        where = ", ".join(f"on {server} from {at:.3f}" for server, at in starts) or "nowhere"
        return [Violation("true error", f"{kind}{call.name}, run {where}, ended with {how} at {call.ended:.3f}, by no fault")]

    def _of_losses(self, call: _Call, promise: Promise) -> list[Violation]:
        """The caller of a server that was killed knows it in time; an idempotent call runs again instead."""
        if promise.told_within is None or call.event["idempotent"] or call.event["client"] in self._gone:
            return []
        runs: list[tuple[str | None, float]] = [(start["server"], start["at"]) for start in call.starts]
        if not runs and call.outcomes and call.outcomes[0]["how"] == "WorkerLostError":
            runs = [(None, call.event["at"])]
        for server, at in runs:
            known = self._faults.loss_known_by(server, at, call.ended, promise.told_within)
            if known is not None and call.ended > known[1]:
                ended = f"{call.ended - known[0]:.3f} s later" if call.outcomes else "never"
                text = f"{call.name}: its server {server or ''} was killed at {known[0]:.3f}, its caller knew it {ended}"
                return [Violation("told in time", text)]
        return []

    def _of_dead_letters(self, call: _Call) -> list[Violation]:
        """Nothing but an idempotent call that lost its server or its worker too often is given up."""
        reasons = {letter["reason"] for letter in call.dead} - ({"attempts"} if call.event["idempotent"] else set())
        return [Violation("dead letter", f"{call.name} is a dead letter: {', '.join(sorted(reasons))}")] if reasons else []

    def _is_sure(self, call: _Call) -> bool:
        """Whether it was sent to a whole world."""
        return bool(call.event.get("sure")) or (self._calm is not None and call.event["at"] >= self._calm)
