"""What a consumer has in its hands under one name."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Lease"]


@dataclass(slots=True, eq=False)
class Lease:
    """One consumer name and its key. A lost one never comes back: its owner takes a new name."""

    name: str
    key: str
    #: Monotonic seconds of the last renewal that Redis confirmed.
    renewed: float = float("-inf")
    lost: bool = False
    #: Entries under this lease that have not ended: (number of the stream, id).
    held: set[tuple[int, bytes]] = field(default_factory=set)
