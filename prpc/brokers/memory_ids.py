"""What the memory broker remembers of a queue's message ids."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

__all__ = ["KnownIds", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a queue's servers set for all who call."""

    #: Seconds for which a message id is remembered.
    window: float
    #: Calls that may wait or run; 0 is without bound.
    length: int


class KnownIds:
    """Message ids of the last window: which entry may run."""

    def __init__(self) -> None:
        #: Number of the entry and the moment (monotonic seconds) of forgetting; oldest first.
        self._known: dict[UUID, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def owner(self, message_id: UUID, now: float) -> int | None:
        """Number of the entry of this id that may run; None where none is remembered."""
        known = self._known
        while known:
            oldest = next(iter(known))
            if known[oldest][1] > now:
                break
            del known[oldest]
        return known.get(message_id, (None, now))[0]

    def remember(self, message_id: UUID, number: int, until: float) -> None:
        """The entry `number` is the one that may run."""
        self._known.pop(message_id, None)
        self._known[message_id] = (number, until)
