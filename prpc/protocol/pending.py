"""Calls that wait for their outcome: which reply belongs to which call, and that the first outcome wins. No I/O, no asyncio.

Whoever *takes* a call from the table decides its outcome; everybody else comes too late and does nothing. Taking is one
step of a dict, so that the pump's thread and a thread that cancels may try at once.

The table holds its calls weakly: one whose every holder is gone has nobody left to tell, and leaves by itself.
"""

from __future__ import annotations

import weakref
from typing import Generic, Protocol, TypeVar
from uuid import UUID

__all__ = ["PendingCalls"]


class _Identified(Protocol):
    """A call, as far as this module looks into it. Must allow weak references."""

    @property
    def message_id(self) -> UUID: ...


C = TypeVar("C", bound=_Identified)


class _Entry(weakref.ref[C]):
    """A weak reference that knows under which id it stands."""

    __slots__ = ("key",)
    key: UUID


class PendingCalls(Generic[C]):
    """The calls of one client that have no outcome yet."""

    def __init__(self) -> None:
        #: By the ids' numbers, as an id itself is hashed and compared by slower means.
        self._entries: dict[int, _Entry[C]] = {}
        # Bound once: a bound method per call would cost as much as the entry.
        self._leave = self._forget

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, call: C) -> None:
        """Wait for the call's outcome. Raises ValueError where a call of this id waits already."""
        key = call.message_id
        entry: _Entry[C] = _Entry(call, self._leave)
        entry.key = key
        if self._entries.setdefault(key.int, entry) is not entry:
            raise ValueError(f"a call with the id {key} waits already")

    def take(self, message_id: UUID) -> C | None:
        """The call that waits under this id, once; None for a stranger, a duplicate or a call that ended otherwise."""
        entry = self._entries.pop(message_id.int, None)
        return None if entry is None else entry()

    def get(self, message_id: UUID) -> C | None:
        """The call that waits under this id, left where it is; None as for `take`."""
        entry = self._entries.get(message_id.int)
        return None if entry is None else entry()

    def waiting(self) -> list[UUID]:
        """Ids still waited for, oldest first: what to ask the broker for after a gap."""
        return [entry.key for entry in list(self._entries.values())]

    def calls(self) -> list[C]:
        """Every call that waits, oldest first, left where it is."""
        return [call for key in self.waiting() if (call := self.get(key)) is not None]

    def _forget(self, entry: _Entry[C]) -> None:
        if self._entries.get(entry.key.int) is entry:
            del self._entries[entry.key.int]
