"""The two ends of a stream: numbering, the bounded window, and repair of what mail lost. No I/O, no clock, no asyncio.

Items are numbered from 1. The reader says how many it has and up to which number the writer may go; the writer keeps what the
reader does not have yet and sends it again when it seems lost. So mail may be lost, doubled or late, and nothing comes of it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from prpc.exceptions import DecodeError

__all__ = ["LEFT", "MAX_WORDS", "Inbox", "Outbox", "Word", "read_words", "write_words"]

T = TypeVar("T")

#: Most bytes of items that were made and not read; with so many the writer waits, whatever the window says.
MAX_UNREAD_BYTES = 8 * 1024 * 1024
#: Bytes read after which the writer is told so, whatever the window says.
TELL_BYTES = MAX_UNREAD_BYTES // 8
#: Most items that a reader can ask for beyond those it has.
MAX_WINDOW = 65_536
#: Most bytes and items of one mail; a single item may be larger.
MAX_MAIL_BYTES, MAX_MAIL_ITEMS = 256 * 1024, 1024
#: What a reader has that wants no more: everything there could be. One that reads another run of the call has read nothing of it.
LEFT = 2**62
#: Longest address and name of a parameter, in characters.
MAX_NAME = 500
#: Most words in one mail, and its most bytes: a name may take two thousand.
MAX_WORDS, MAX_WORDS_BYTES = 1000, 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Word:
    """What a reader says of one stream."""

    message_id: UUID
    #: Parameter that the stream feeds; empty for what the function yields.
    parameter: str
    #: The run that it reads.
    run: int
    #: How many items it has, without a hole.
    have: int
    #: Number up to which the writer may go.
    limit: int
    #: How many items were read.
    read: int
    #: Whether it misses what should be there: send everything behind `have` again.
    again: bool = False


class Outbox:
    """The writer's end: items as texts."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many items the reader takes before it has said a word."""
        #: Items put so far.
        self.count = 0
        self._limit = min(limit, MAX_WINDOW)
        #: Items that the reader does not have, oldest first; the first one's number is `_have + 1`.
        self._held: deque[bytes] = deque()
        self._have = 0
        #: Bytes of each item that was not read, oldest first; the first one's number is `_read + 1`.
        self._unread: deque[int] = deque()
        self._bytes = 0
        self._read = 0
        #: Items that were sent, the last time.
        self._sent = 0
        #: What the reader had at the last beat.
        self._had = 0

    def allows(self, count: int, pending: int = 0) -> bool:
        """Whether one more item may be made, with `count` made and `pending` bytes of them not put yet. From any thread."""
        return count < self._limit and (self._bytes + pending < MAX_UNREAD_BYTES or count < self._have)

    @property
    def is_empty(self) -> bool:
        """Whether the reader has everything."""
        return not self._held

    def put(self, text: bytes) -> None:
        """The next item. One that the reader has already, from an earlier run, is not kept."""
        self.count += 1
        if self.count > self._have:
            self._held.append(text)
        if self.count > self._read:
            self._unread.append(len(text))
            self._bytes += len(text)

    def take(self) -> tuple[int, list[bytes]]:
        """Number of the first and texts of the next items to send in one mail; none where all were sent."""
        sent = max(self._sent, self._have)
        start, texts, size = sent - self._have, list[bytes](), 0
        for index in range(start, min(len(self._held), start + MAX_MAIL_ITEMS)):
            size += len(self._held[index])
            if texts and size > MAX_MAIL_BYTES:
                break
            texts.append(self._held[index])
        self._sent = sent + len(texts)
        return sent + 1, texts

    def hear(self, have: int, limit: int, read: int, *, again: bool = False) -> None:
        """A reader's word; one that is older than what was heard changes nothing."""
        self._limit = max(self._limit, min(limit, max(have, self._have) + MAX_WINDOW))
        while self._have < have and self._held:
            self._have += 1
            self._held.popleft()
        self._have = max(self._have, have)
        while self._read < read and self._unread:
            self._read += 1
            self._bytes -= self._unread.popleft()
        self._read = max(self._read, read)
        if again:
            self._sent = self._have

    def beat(self) -> bool:
        """Once in a while: whether the reader got no further since the last beat though it was sent more.

        It may have lost that, or be slow: a mail without items tells it how much was sent, and it asks for what it misses.
        Sending again unasked would bury a slow reader.
        """
        stuck = self._had == self._have and self._sent > self._have and bool(self._held)
        self._had = self._have
        return stuck


class Inbox(Generic[T]):
    """The reader's end: items in their order, each once."""

    def __init__(self, window: int) -> None:
        self._window = window
        #: Items and their bytes, about.
        self._items: deque[tuple[T, int]] = deque()
        #: Bytes that were read since the writer was told.
        self._bytes = 0
        #: Items that arrived without a hole before them.
        self.have = 0
        #: The run whose items are read.
        self.run = 0
        #: Number up to which the writer was told that it may go.
        self._told = window

    def __len__(self) -> int:
        return len(self._items)

    @property
    def limit(self) -> int:
        """Number up to which the writer may go."""
        return self.read + self._window

    @property
    def read(self) -> int:
        """Items that were taken."""
        return self.have - len(self._items)

    @property
    def wants_more(self) -> bool:
        """Whether it is time to tell the writer that there is room."""
        return self._bytes >= TELL_BYTES or self.limit - self._told >= max(1, self._window // 2)

    def told(self) -> None:
        """The writer is told now."""
        self._told, self._bytes = self.limit, 0

    def arrive(self, run: int, first: int, values: Sequence[T], size: int = 0) -> bool:
        """Items came, of `size` bytes together. False: there is a hole before them, so they are not taken; ask for them again."""
        if run < self.run:
            return True
        self.run = run
        if first > self.have + 1:
            return False
        new = values[self.have + 1 - first :]
        room = self.limit - self.have
        each = size // max(1, len(values))
        self._items.extend([(value, each) for value in new[:room]])  # a writer that goes beyond the limit sends the rest again
        self.have += min(len(new), room)
        return True

    def take(self) -> T:
        """The next item. Raises IndexError where there is none."""
        item, size = self._items.popleft()
        self._bytes += size
        return item

    def clear(self) -> None:
        """Drop what was not taken."""
        self._items.clear()


def write_words(reader: str, words: Iterable[Word]) -> bytes:
    """The mail that says these words. `reader`: whose they are, a mailbox."""
    rows = [[w.message_id.hex, w.parameter, w.run, w.have, w.limit, w.read, int(w.again)] for w in words]
    return json.dumps({"prpc_mail": "words", "reader": reader, "words": rows}).encode()


def read_words(body: bytes) -> tuple[str, list[Word]]:
    """Whose words they are, a mailbox, and the words. Raises DecodeError."""
    if len(body) > MAX_WORDS_BYTES:
        raise DecodeError(f"words about streams have {len(body)} bytes; {MAX_WORDS_BYTES} are allowed", reason="size")
    try:
        tree = json.loads(body)
        reader, rows = tree["reader"], tree["words"]
        if type(reader) is not str or len(reader) > MAX_NAME or type(rows) is not list or len(rows) > MAX_WORDS:
            raise ValueError
        return reader, [_word(row) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise DecodeError("words about streams cannot be read", reason="form") from exc


def _word(row: object) -> Word:
    if type(row) is not list or len(row) != 7:
        raise ValueError
    hexed, parameter, *numbers = row
    if type(hexed) is not str or type(parameter) is not str or len(parameter) > MAX_NAME:
        raise ValueError
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError
    run, have, limit, read, again = numbers
    return Word(UUID(hexed), parameter, run, have, limit, read, bool(again))
