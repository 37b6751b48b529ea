"""What an owner of a partition knows of its records: which have ended, which were started, by whom and how often. No I/O.

A committed offset says that everything before it has ended. Behind it calls end in any order, so the commit's metadata says what
of that has been started and what has ended: whoever owns the partition next neither runs a call again nor leaves one out.
Records that were never seen (offsets without a record, as compaction leaves them) count as ended.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["MOST_OPEN", "Mark", "Marks", "Progress", "read_marks", "write_marks"]

#: Records of one partition that may be open at once: so many fit into the 4,096 bytes that a broker takes by default.
MOST_OPEN = 600
#: First character of what we write; anything else was written by somebody else.
_VERSION = "1"
#: Longest varint that is read.
_MOST_BYTES = 9


@dataclass(frozen=True, slots=True)
class Mark:
    """One record that has not ended."""

    #: How often it was started; 0: it waits.
    attempts: int
    #: Who started it last; empty where nobody did.
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Marks:
    """A committed state."""

    #: The first record that has not ended.
    base: int
    #: The first record that nobody has taken.
    upcoming: int
    #: Those in between that have not ended, in order.
    open: Mapping[int, Mark] = field(default_factory=dict)


class Progress:
    """The records of one partition in one owner's hands."""

    __slots__ = ("_open", "_upcoming", "changes")

    def __init__(self, marks: Marks) -> None:
        self._open: dict[int, Mark] = dict(sorted(marks.open.items()))
        self._upcoming = marks.upcoming
        #: Counts the changes, so that whoever commits knows whether there is something to commit.
        self.changes = 0

    @property
    def open(self) -> Mapping[int, Mark]:
        """What has not ended, in order."""
        return self._open

    @property
    def upcoming(self) -> int:
        """The first record that was not taken."""
        return self._upcoming

    @property
    def marks(self) -> Marks:
        """The state to commit."""
        base = next(iter(self._open), self._upcoming)
        return Marks(base, self._upcoming, dict(self._open))

    def take(self, offset: int) -> None:
        """A record beyond those that were taken came."""
        if offset < self._upcoming:
            raise ValueError(f"record {offset} was taken before")
        self._open[offset] = Mark(0)
        self._upcoming = offset + 1
        self.changes += 1

    def skip(self, offset: int) -> None:
        """Nothing before this offset is there any more: what was open has ended."""
        for gone in [each for each in self._open if each < offset]:
            del self._open[gone]
        self._upcoming = max(self._upcoming, offset)
        self.changes += 1

    def start(self, offset: int, owner: str) -> int:
        """The record is about to be started; which attempt that is."""
        attempts = self._open[offset].attempts + 1
        self._open[offset] = Mark(attempts, owner)
        self.changes += 1
        return attempts

    def give_back(self, offset: int) -> None:
        """The record was not started after all."""
        mark = self._open[offset]
        self._open[offset] = Mark(max(0, mark.attempts - 1), "")
        self.changes += 1

    def end(self, offset: int) -> None:
        """The record has ended; nothing where it had before."""
        if self._open.pop(offset, None) is not None:
            self.changes += 1


def write_marks(marks: Marks, owner: str) -> str:
    """The commit's metadata. `owner`: whose records these are now."""
    owners = {name: number for number, name in enumerate(dict.fromkeys([owner, *(m.owner for m in marks.open.values())]))}
    data = bytearray()
    _put(data, marks.upcoming - marks.base)
    last = marks.base
    for offset, mark in marks.open.items():
        _put(data, offset - last)
        _put(data, mark.attempts)
        if mark.attempts:
            _put(data, owners[mark.owner])
        last = offset
    return ":".join((_VERSION, ",".join(owners), base64.b64encode(bytes(data)).decode()))


def read_marks(base: int, metadata: str) -> Marks:
    """The state behind a committed offset. What was not written by us says nothing: then all that follows is untaken."""
    version, _, rest = metadata.partition(":")
    names, _, text = rest.partition(":")
    if version != _VERSION:
        return Marks(base, base)
    try:
        numbers = _numbers(base64.b64decode(text, validate=True))
        return _marks(base, names.split(","), numbers)
    except (ValueError, IndexError, StopIteration):
        return Marks(base, base)


def _marks(base: int, owners: list[str], numbers: Iterable[int]) -> Marks:
    found = iter(numbers)
    upcoming, offset = base + next(found), base
    opened: dict[int, Mark] = {}
    for distance in found:
        offset += distance
        attempts = next(found)
        opened[offset] = Mark(attempts, owners[next(found)] if attempts else "")
    if opened and offset >= upcoming:
        raise ValueError("a record is open that was never taken")
    return Marks(base, upcoming, opened)


def _put(data: bytearray, number: int) -> None:
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)


def _numbers(data: bytes) -> list[int]:
    numbers: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
        elif shift >= 7 * _MOST_BYTES:
            raise ValueError("a number is too long")
    if shift:
        raise ValueError("a number ends too early")
    return numbers
