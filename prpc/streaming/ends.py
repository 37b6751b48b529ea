"""One stream's two ends: a Writer, which is fed items and sends them, and a Reader, which takes them as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from prpc.codec.items import Items, write_items
from prpc.protocol.streams import LEFT, Inbox, Outbox, Word

__all__ = ["Key", "Office", "Reader", "Writer"]

#: Most writers of one stream that are known for those that are not read any more.
MAX_FORMER = 8
#: A stream: the call, and the parameter that it feeds (empty: it is what the function yields).
Key = tuple[UUID, str]


class Office(Protocol):
    """What an end needs of its surroundings."""

    @property
    def address(self) -> str:
        """This side's mailbox."""
        ...

    def encode(self, value: Any, root: str) -> bytes:
        """An item as text. From any thread. Raises EncodeError."""
        ...

    def post(self, address: str, body: bytes, message_id: UUID) -> None:
        """Send mail; it may be lost."""
        ...

    def soon(self, do: Callable[[], None]) -> None:
        """Call it once at the end of this tick."""
        ...


class Writer:
    """Sends the items of one stream. An ItemSink."""

    def __init__(self, office: Office, key: Key, run: int, address: str, limit: int, root: str) -> None:
        """`address`: the reader's mailbox, empty while it is not known. `limit`: items it takes before its first word. `root`:
        what an item is called in errors."""
        self._office, self._root = office, root
        self._items = Items(key[0], key[1], run, 1, "", ())
        self._flushing = False
        self._wake: Callable[[], object] | None = None
        self.key = key
        self.address = address
        self.outbox = Outbox(limit)
        #: Whether all items were put.
        self.ended = self._tells = False

    @property
    def count(self) -> int:
        """See ItemSink."""
        return self.outbox.count

    @property
    def run(self) -> int:
        """Which run of the call it is."""
        return self._items.run

    @property
    def is_done(self) -> bool:
        """Whether the reader has everything that there is. Not known of one that hears of the end by this writer alone."""
        return self.ended and not self._tells and self.outbox.is_empty

    def encode(self, value: Any) -> bytes:
        """See ItemSink."""
        return self._office.encode(value, self._root)

    def allows(self, count: int, pending: int = 0) -> bool:
        """See ItemSink."""
        return self.outbox.allows(count, pending)

    def put(self, text: bytes) -> None:
        """See ItemSink."""
        self.outbox.put(text)
        self.flush_soon()

    def on_room(self, wake: Callable[[], object]) -> None:
        """See ItemSink."""
        self._wake = wake

    def hear(self, word: Word, reader: str) -> None:
        """The reader's word, and its mailbox."""
        if word.run <= self.run:
            self.address = self.address or reader  # whoever is known already is not replaced by anybody's word
            self.outbox.hear(word.have, word.limit, word.read, again=word.again)
            if word.again:
                self.flush_soon()
            if self._wake is not None:
                self._wake()

    def end(self, *, tell: bool = False) -> None:
        """There are no more items. `tell`: say so to the reader, which hears of it in no other way."""
        self.ended, self._tells = True, tell
        if tell:
            self._items = replace(self._items, total=self.count)
        self.flush(greet=tell)

    def beat(self, *, greet: bool = False) -> None:
        """Once in a while: tell a reader that stands still how much was sent; with `greet` any reader."""
        if self.outbox.beat() or greet:
            self.flush(greet=True)

    def flush_soon(self) -> None:
        """Send at the end of this tick what is there."""
        if not self._flushing:
            self._flushing = True
            self._office.soon(self._flush_now)

    def _flush_now(self) -> None:
        if self._flushing:
            self.flush()

    def flush(self, *, greet: bool = False) -> None:
        """Send what is there; with `greet` at least one mail."""
        self._flushing = False
        if not self.address:
            return
        while True:
            first, texts = self.outbox.take()
            if not texts and not greet:
                return
            greet = False
            items = replace(self._items, first=first, writer=self._office.address)
            self._office.post(self.address, write_items(items, texts), self.key[0])


class Reader:
    """Takes the items of one stream."""

    def __init__(self, key: Key, window: int, writer: str = "") -> None:
        """`writer`: the writer's mailbox, and then nobody else is believed; empty while it is not known."""
        self.key = key
        self.window = window
        self.inbox: Inbox[Any] = Inbox(window)
        self.writer = writer
        self._only = writer
        #: Mailbox and run of a writer that the last mail showed to be one that is not read: it may stop.
        self.away: tuple[str, int] | None = None
        #: Whether the writer waits for its first word.
        self._new = False
        #: Writers that were read before this one, each with its run: the same server may run the call once more.
        self._former: deque[tuple[str, int]] = deque(maxlen=MAX_FORMER)
        #: Items in all, once that is known.
        self.total: int | None = None
        #: Why what comes next cannot be read; None where it can.
        self.error: Exception | None = None
        #: Whether items are known to be missing.
        self.again = False
        #: The run, and the number of items that were there, when missing ones were asked for since the last beat. More that
        #: comes out of turn is no further reason to ask: the answer is under way.
        self._asked: tuple[int, int] | None = None
        #: Whether nobody wants more of it.
        self.left = False

    @property
    def is_over(self) -> bool:
        """Whether everything that there is has come."""
        return self.total is not None and self.inbox.have >= self.total

    def arrive(self, items: Items, size: int) -> bool:
        """Items came, in a mail of `size` bytes. Whether the writer must hear a word at once; see `away`, too."""
        self.away = None if self._only or items.writer == self.writer else self._choose(items)
        if items.writer != self.writer or items.run < self.inbox.run:
            return False
        first_word, self._new = self._new or items.run > self.inbox.run, False
        if items.total is not None:
            self.total = items.total
        inbox = self.inbox
        if not inbox.arrive(items.run, items.first, items.values, size) and self._asked != (inbox.run, inbox.have):
            self._asked, self.again = (inbox.run, inbox.have), True
        # That there is room is looked at here, too: a reader in another thread may have looked while the items came in.
        return first_word or self.again or self.is_over or self.inbox.wants_more

    def _choose(self, items: Items) -> tuple[str, int] | None:
        """Whose items are read from now on; gives mailbox and run of the other writer.

        A call that is repeated may run in two servers, and one may have lost it to another or have given it back: the one
        that began last is read, and those before it never again.
        """
        known = self.total is not None and self.writer  # without a writer the outcome has overtaken every mail of the items
        if items.run < self.inbox.run or (items.writer, items.run) in self._former or known:
            return items.writer, items.run
        former, self.writer, self._new = self.writer, items.writer, True
        self._former.append((former, self.inbox.run))
        return (former, self.inbox.run) if former else None

    def beat(self) -> None:
        """Once in a while: what is still missing may be asked for again."""
        self._asked = None

    def word(self) -> Word:
        """What the writer is to know now."""
        inbox, again = self.inbox, self.again
        self.again = False
        inbox.told()
        if self.left:
            return Word(*self.key, inbox.run, LEFT, 0, LEFT)
        return Word(*self.key, inbox.run, inbox.have, inbox.limit, inbox.read, again)
