"""A tiny model of PRPC that writes down right runs: calls with all that may become of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tests.ledger.ledger import Promise
from tests.ledger.samples import Events, event

__all__ = ["FATES", "PROMISE", "Fate", "Plan", "run_of"]

Fate = Literal["value", "killed", "silent", "worker", "released", "refused", "cancelled", "expired", "streamed", "left"]
FATES: tuple[Fate, ...] = (
    *("value", "killed", "silent", "worker", "released", "refused", "cancelled", "expired", "streamed", "left"),
)

LEASE, BEAT = 1.0, 0.5
PROMISE = Promise(
    plain=frozenset({"WorkerLostError", "DeadlineExceededError"}),
    idempotent=frozenset({"WorkerLostError"}),
    slack=0.01,
    aftermath=0.5,
    told_within=LEASE + 1.0,
    lease=LEASE,
    skew=0.01,
    stream_end=1.0,
    exact=True,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One call: when it is sent, what becomes of it, and how many items its stream has."""

    at: float
    fate: Fate
    items: int = 0


class _Call:
    """Writes down one call, moment by moment from when it was sent."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.events: Events = []
        self._id, self._at, self._plan = f"c{number}", plan.at, plan
        #: The first owner has its own name, so that what is done to it is done to no other call.
        self._first, self._next = f"s{number}-1", "healthy-1"

    def _say(self, kind: str, after: float, **fields: Any) -> None:
        self.events.append(event(kind, self._at + after, **fields))

    def _of_call(self, kind: str, after: float, **fields: Any) -> None:
        self._say(kind, after, id=self._id, **fields)

    def _send(self, *, idempotent: bool = False, timeout: float = 8.0) -> None:
        stream = self._plan.fate in ("streamed", "left")
        fields = {"client": "k", "function": self._plan.fate, "idempotent": idempotent, "timeout": timeout, "stream": stream}
        self._of_call("call", 0.0, **fields)
        self._of_call("entered", 0.1, entry=self._id, timeout=timeout - 0.1)

    def _take(self, after: float, server: str, number: int = 1) -> str:
        delivery = f"{self._id}/{number}"
        self._of_call("taken", after, entry=self._id, delivery=delivery, server=server)
        self._say("delivered", after + 0.05, delivery=delivery, server=server)
        return delivery

    def _end(self, after: float, delivery: str, how: str = "settle", *, done: bool = True) -> None:
        self._say("ending", after, delivery=delivery, how=how)
        self._say("ended", after + 0.05, delivery=delivery, how=how, done=done)

    def _outcome(self, after: float, how: str, token: str | None = None) -> None:
        self._of_call("outcome", after, how=how, token=token)

    def _beats(self, first: float, last: float, server: str | None = None) -> None:
        beats = int((last - first) / BEAT)
        for beat in range(beats + 1):
            self._say("renewed", first + beat * BEAT, server=server or self._first)

    def write(self) -> Events:
        """The whole call."""
        getattr(self, f"_{self._plan.fate}")()
        return self.events

    def _run(self, after: float, server: str, delivery: str, token: str = "t") -> None:
        self._of_call("start", after, server=server, token=self._id + token)
        self._of_call("end", after + 0.3, token=self._id + token)
        self._end(after + 0.3, delivery)
        self._outcome(after + 0.4, "value", self._id + token)

    def _value(self) -> None:
        self._send()
        self._run(0.3, self._next, self._take(0.2, self._next))

    def _killed(self) -> None:
        self._send()
        self._beats(0.0, 0.5)
        self._take(0.2, self._first)
        self._of_call("start", 0.3, server=self._first, token=self._id)
        self._say("fault", 0.6, number=self._id, name="kill -9", hits=[self._first], kills=True)
        self._end(1.6, self._take(1.5, self._next, 2))
        self._outcome(1.7, "WorkerLostError")

    def _silent(self) -> None:
        self._send()
        self._beats(0.0, 0.5)
        late = self._take(0.2, self._first)
        self._say("fault", 0.4, number=self._id, name="pause", hits=[self._first])
        self._end(1.7, self._take(1.6, self._next, 2))
        self._outcome(1.8, "WorkerLostError")
        self._say("mended", 2.0, number=self._id)
        self._beats(2.0, 3.0)
        self._of_call("start", 2.1, server=self._first, token=self._id)
        self._of_call("end", 2.4, token=self._id)
        self._end(2.4, late, done=False)

    def _worker(self) -> None:
        self._send()
        delivery = self._take(0.2, self._next)
        self._of_call("start", 0.3, server=self._next, token=self._id)
        self._of_call("worker", 0.5, server=self._next)
        self._end(0.5, delivery)
        self._outcome(0.6, "WorkerLostError")

    def _released(self) -> None:
        self._send(idempotent=True)
        self._beats(0.0, 0.5)
        given = self._take(0.2, self._first)
        self._of_call("start", 0.3, server=self._first, token=self._id)
        self._end(0.5, given, "release")
        self._run(0.8, self._next, self._take(0.7, self._next, 2))

    def _refused(self) -> None:
        self._send()
        double = f"{self._id}/double"
        self._run(0.3, self._next, self._take(0.2, self._next))
        self._of_call("taken", 0.25, entry=double, delivery=double, server=self._next)
        self._say("delivered", 0.3, delivery=double, server=self._next)
        self._end(0.4, double, "claim")

    def _cancelled(self) -> None:
        self._send()
        delivery = self._take(0.2, self._next)
        self._of_call("start", 0.3, server=self._next, token=self._id)
        self._of_call("cancel", 0.5, won=True)
        self._outcome(0.5, "CallCancelledError")
        self._end(0.6, delivery)

    def _expired(self) -> None:
        self._send(timeout=1.0)
        self._end(1.0, self._take(0.95, self._next))
        self._outcome(1.005, "DeadlineExceededError")

    def _streamed(self) -> None:
        self._send()
        self._items()
        self._run(0.3, self._next, self._take(0.2, self._next))
        self._of_call("closed", 0.6, token=f"{self._id}t")

    def _left(self) -> None:
        self._send()
        delivery = self._take(0.2, self._next)
        self._of_call("start", 0.3, server=self._next, token=f"{self._id}t")
        self._items()
        self._of_call("leave", 0.6)
        self._of_call("closed", 0.9, token=f"{self._id}t")
        self._end(0.9, delivery)

    def _items(self) -> None:
        for index in range(self._plan.items):
            self._of_call("made", 0.4 + index / 1000, token=f"{self._id}t", index=index)
            self._of_call("read", 0.5 + index / 1000, index=index)


def run_of(plans: list[Plan]) -> Events:
    """All events of a run, in their order."""
    events = [event("renewed", beat * BEAT, server="healthy-1") for beat in range(60)]
    for number, plan in enumerate(plans):
        events += _Call(number, plan).write()
    return sorted(events, key=lambda e: e["at"])
