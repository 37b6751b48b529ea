"""Rules of deliveries: each has one end, and only its owner may end an entry, once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tests.ledger.book import Book, Delivery
from tests.ledger.terms import Event, Violation

__all__ = ["judge"]


def judge(book: Book) -> Iterator[Violation]:
    for delivery in book.deliveries.values():
        yield from _of_delivery(delivery, book)
    for history in book.history.values():
        yield from _of_entry(history, book)


def _of_delivery(delivery: Delivery, book: Book) -> Iterator[Violation]:
    """What a dispatcher got it ends, once, unless it is killed before."""
    if delivery.taken is None:
        yield Violation("known deliveries", f"{book.name_of(delivery)}, which the broker gave to nobody")
    if not delivery.delivered:
        if delivery.endings:
            when = _moments(delivery.endings)
            yield Violation("known deliveries", f"{book.name_of(delivery)}, was ended ({when}), yet no dispatcher had got it")
        return
    got = delivery.delivered[0]
    if len(delivery.delivered) > 1:
        yield Violation("one end", f"{book.name_of(delivery)}, came to its dispatcher {len(delivery.delivered)} times")
    if len(delivery.endings) > 1:
        yield Violation(
            "one end", f"{book.name_of(delivery)}, was ended {len(delivery.endings)} times: {_moments(delivery.endings)}"
        )
    elif not delivery.endings and not book.faults.killed(got["server"], got["at"], math.inf):
        yield Violation("one end", f"{book.name_of(delivery)}, has no end, and {got['server']} lived on")


def _of_entry(history: Sequence[Event], book: Book) -> Iterator[Violation]:
    """An entry is ended by whoever has it, and then it is over."""
    owner: str | None = None
    over: Event | None = None
    since = 0.0
    for event in history:
        if event["event"] == "taken":
            owner, since = event["delivery"], event["at"]
            continue
        if not event["done"]:
            continue
        why = None
        if over is not None and not book.faults.forgot_between(over["at"], event["at"]):
            why = f"the entry was over since {over['at']:.3f} ({over['how']})"
        elif over is None and event["delivery"] != owner and not book.faults.forgot_between(since, event["at"]):
            why = f"{owner} had it" if owner else "it had been given back"
        if why is not None:
            name = book.name_of(book.deliveries[event["delivery"]])
            yield Violation("superseded", f"{name}: its {event['how']} was carried out at {event['at']:.3f}, yet {why}")
        if event["how"] == "release":
            owner = None
        else:
            over = over or event


def _moments(endings: Sequence[Event]) -> str:
    return ", ".join(f"{ending['how']} at {ending['at']:.3f}" for ending in endings)
