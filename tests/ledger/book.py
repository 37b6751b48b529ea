"""Everything that happened in one run, sorted by what it is about, in the order in which it happened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.ledger.causes import Faults
from tests.ledger.terms import EVENTS, Event

__all__ = ["Book", "Call", "Delivery"]

#: Kinds of events that are about one call, and about one delivery.
OF_CALLS = frozenset(kind for kind, fields in EVENTS.items() if "id" in fields) - {"call"}
OF_DELIVERIES = frozenset({"delivered", "ending", "ended"})


@dataclass(slots=True)
class Call:
    """One call and what became of it."""

    event: Event
    kinds: dict[str, list[Event]] = field(default_factory=dict)

    def of(self, kind: str) -> Sequence[Event]:
        return self.kinds.get(kind, ())

    @property
    def id(self) -> str:
        return str(self.event["id"])

    @property
    def starts(self) -> Sequence[Event]:
        return self.kinds.get("start", ())

    @property
    def outcomes(self) -> Sequence[Event]:
        return self.kinds.get("outcome", ())

    @property
    def idempotent(self) -> bool:
        return bool(self.event["idempotent"])

    @property
    def streams(self) -> bool:
        return bool(self.event.get("stream")) or "made" in self.kinds or "closed" in self.kinds

    @property
    def ended(self) -> float:
        """When its caller had the outcome; infinity where it has none."""
        return float(self.outcomes[0]["at"]) if self.outcomes else math.inf

    @property
    def due(self) -> float:
        """When its caller must have an outcome."""
        timeout = self.event["timeout"]
        return math.inf if timeout is None else float(self.event["at"] + timeout)

    @property
    def cancelled(self) -> bool:
        """Whether its caller cancelled it before it had another outcome."""
        return any(event["won"] for event in self.of("cancel"))

    @property
    def name(self) -> str:
        return f"call {self.event['id']} of {self.event['function']}() at {self.event['at']:.3f}"


@dataclass(slots=True)
class Delivery:
    """One entry in the hands of one server. `taken` is None where the broker never gave it to anybody."""

    name: str
    taken: Event | None = None
    delivered: list[Event] = field(default_factory=list)
    endings: list[Event] = field(default_factory=list)


class Book:
    """All events of one run. `history` holds, for each entry, who took it and what the broker then did with it."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.calls: dict[str, Call] = {}
        self.strangers: list[Event] = []
        self.deliveries: dict[str, Delivery] = {}
        self.history: dict[str, list[Event]] = {}
        self.renewals: dict[str, list[float]] = {}
        self.gone: dict[str, float] = {}
        self.calm = math.inf
        self.broken: list[str] = []
        self.leaks: list[Event] = []
        self.faults = Faults()
        ordered = sorted(events, key=lambda e: (e["event"] != "call", e["at"]))  # a call is known before what becomes of it
        for event in ordered:
            self._add(event)

    def _add(self, event: Event) -> None:
        kind = event["event"]
        if kind in OF_CALLS:
            self._add_to_call(kind, event)
        elif kind in OF_DELIVERIES:
            self._add_to_delivery(kind, event)
        elif kind == "renewed":
            self.renewals.setdefault(event["server"], []).append(event["at"])
        elif kind == "call":
            self.calls[event["id"]] = Call(event)
        else:
            self._add_to_world(kind, event)

    def _add_to_world(self, kind: str, event: Event) -> None:
        match kind:
            case "fault":
                self.faults.begin(event)
            case "mended":
                self.faults.end(event)
            case "gone":
                self.gone[event["client"]] = event["at"]
            case "calm":
                self.calm = event["at"]
            case "broken":
                self.broken.append(event["what"])
            case "left":
                self.leaks.append(event)
            case _:
                raise KeyError(kind)

    def _add_to_call(self, kind: str, event: Event) -> None:
        if kind == "taken":
            self._delivery(event["delivery"]).taken = event
            self.history.setdefault(event["entry"], []).append(event)
        call = self.calls.get(event["id"])
        if call is not None:
            call.kinds.setdefault(kind, []).append(event)
        elif event["id"] or kind not in ("entered", "taken", "dead"):
            self.strangers.append(event)

    def _add_to_delivery(self, kind: str, event: Event) -> None:
        delivery = self._delivery(event["delivery"])
        if kind == "delivered":
            delivery.delivered.append(event)
        elif kind == "ending":
            delivery.endings.append(event)
        elif delivery.taken is not None:
            self.history[delivery.taken["entry"]].append(event)

    def _delivery(self, name: str) -> Delivery:
        delivery = self.deliveries.get(name)
        if delivery is None:
            delivery = self.deliveries[name] = Delivery(name)
        return delivery

    def __iter__(self) -> Iterator[Call]:
        return iter(self.calls.values())

    def is_sure(self, call: Call) -> bool:
        """Whether it was sent to a whole world."""
        return bool(call.event.get("sure")) or call.event["at"] >= self.calm

    @property
    def sees_entries(self) -> bool:
        """Whether the broker's side tells of what it takes."""
        return bool(self.history)

    def name_of(self, delivery: Delivery) -> str:
        """The delivery for a reader: of which call, and on which server."""
        taken = delivery.taken
        if taken is None:
            return f"delivery {delivery.name}"
        call = self.calls.get(taken["id"])
        what = call.name if call is not None else f"call {taken['id']}" if taken["id"] else "an entry that cannot be read"
        return f"{what}, entry {taken['entry']}, given to {taken['server']} at {taken['at']:.3f} as {delivery.name}"
