"""What a ledger is told, what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["EVENTS", "Event", "Promise", "Violation"]

Event = Mapping[str, Any]

#: Kind of event -> its fields beside `event` and `at` (seconds).
EVENTS: dict[str, tuple[str, ...]] = {
    # A client sends a call, which must have its outcome `timeout` seconds later at most (None: it has all the time). `sure`: no
    # fault excuses an error of it. `stream`: its function yields items. `sends`: it is sent one. `expects`: errors that it may
    # end with by itself, as its function raises them. `stops`: its function ends where it is cancelled. `window`: items that its
    # stream may be ahead of its reader. `repeats`: whether the client repeats it. All but the first five may be missing.
    "call": (
        "id",
        "client",
        "function",
        "idempotent",
        "timeout",
        "sure",
        "stream",
        "sends",
        "expects",
        "stops",
        "window",
        "repeats",
    ),
    # A client learns an outcome: `how` is "value" or the error's class, `token` what the function returned.
    "outcome": ("id", "how", "token"),
    # The same client looks at the same call again, at its end.
    "again": ("id", "how", "token"),
    # Somebody else reads the outcome that the broker keeps; `content` stands for its bytes, `how` is the error that they name, if
    # that is one of PRPC's own.
    "stored": ("id", "content", "how"),
    # A function's body begins; `token` is of this execution alone. It ends having made its result.
    "start": ("id", "server", "token"),
    "end": ("id", "token"),
    # The worker process that ran this call on this server died.
    "worker": ("id", "server"),
    # The caller cancelled its call; `won`: whether the call was still open, so that this is its outcome.
    "cancel": ("id", "won"),
    # The broker took an entry of this call; `timeout`: seconds left to it that the entry itself names (None: no limit).
    "entered": ("id", "entry", "timeout"),
    # The broker gave the entry to this server, its owner until it is given to the next one. The id of `entered` and `taken` is
    # empty where the entry cannot be read.
    "taken": ("id", "entry", "delivery", "server"),
    # The server's dispatcher got it.
    "delivered": ("delivery", "server"),
    # The dispatcher ended it: `how` is "settle", "release", "bury", or "claim" for a claim that was answered with False.
    "ending": ("delivery", "how"),
    # The broker carried that out (`done`) or refused it.
    "ended": ("delivery", "how", "done"),
    # The broker renewed this server's lease, or gave it the first one.
    "renewed": ("server",),
    # A stream's function yields an item; `token` as in "start". Its reader gets it. The function's `finally` runs.
    "made": ("id", "token", "index"),
    "read": ("id", "index"),
    "closed": ("id", "token"),
    # The reader of a stream leaves it early, of its own will; `silent`: without a word, as it is dropped or its process forks.
    "leave": ("id", "silent"),
    # A client is killed: nobody hears the outcomes of its open calls.
    "gone": ("client",),
    # A fault begins: what it hits and does stands at `causes.Fault`. It is mended.
    "fault": ("number", "name", "hits", "kills", "forgets", "stops", "calls", "orderly"),
    "mended": ("number",),
    # The broker holds a dead letter of this call.
    "dead": ("id", "reason"),
    # From here on the world is whole, and what is called must succeed.
    "calm": (),
    # A program ended otherwise than it should, or something was left behind.
    "broken": ("what",),
    # Something leaked: a lease, a pending entry, a key without an end, a future, a task.
    "left": ("what",),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the callers of one run may see besides values, before the calm, and what else is judged."""

    #: Errors of calls that are not idempotent.
    plain: frozenset[str] = frozenset()
    #: Errors of idempotent calls.
    idempotent: frozenset[str] = frozenset()
    #: Those among them which need no fault, as the load or the functions themselves bring them about.
    natural: frozenset[str] = frozenset()
    #: Seconds that an outcome may be late: what a busy machine needs to run a timer.
    slack: float = 2.0
    #: Seconds for which a fault that is mended may still cost a call: a server that went on learns only then that its lease ran
    #: out, a client that its connection broke.
    aftermath: float = 2.0
    #: Seconds within which the callers of a server that was killed know it; None where other faults may hold that up.
    told_within: float | None = None
    #: Seconds after which a lease that is not renewed is lost; None where nobody writes down renewals.
    lease: float | None = None
    #: Seconds that a call may start after its entry's time is over: by how much clocks and their readings differ.
    skew: float = 0.0
    #: Seconds within which a stream's function is closed once nobody reads; None where that is not judged.
    stream_end: float | None = None
    #: The same for a reader that leaves and lives on, which says so; None: as `stream_end`.
    stream_left: float | None = None
    #: Seconds within which a call that was cancelled ends where it runs, and from which on it does not start; None where that is
    #: not judged.
    cancelled_within: float | None = None
    #: Seconds within which the caller has an outcome that the broker took, faults having ended; None where that is not judged.
    outcome_within: float | None = None
    #: Seconds for which a call that may run twice is sent again, at least, before the broker counts as away; None: not judged.
    repeated_for: float | None = None
    #: How often a call that may run twice is taken, or loses its worker, before it is given up; None: not judged.
    attempts: int | None = None
    #: Seconds that a fault must last for the items of a stream to be lost, on a server that lives on.
    items_lost_after: float = 0.0
    #: Seconds after a call, or its timeout where that is longer, after which an entry of it may be refused for its signature.
    signed_for: float = 5.0
    #: Whether the clock of the events is the one that timers run by, so that no caller runs out of time early.
    exact: bool = False
