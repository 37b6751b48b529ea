"""Both ends of a stream, joined by mail that is lost, doubled, late and out of order: items are read in order, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prpc.codec.items import Items, read_items, write_item, write_items
from prpc.codec.limits import Limits
from prpc.exceptions import DecodeError
from prpc.protocol.streams import LEFT, MAX_UNREAD_BYTES, Inbox, Outbox, Word, read_words, write_words

#: Items of the whole stream, and the largest of them in bytes.
TOTAL, LARGEST = 60, 3 * 1024 * 1024


def text_of(number: int) -> bytes:
    """An item that says its number; every seventh one is large."""
    return str(number).encode().ljust(LARGEST if number % 7 == 0 else 10)


@dataclass(frozen=True)
class Letter:
    """Items, or a word, under way."""

    run: int
    #: Number of the first and the numbers of all; None: it is a word.
    items: tuple[int, list[int]] | None = None
    #: have, limit, read, again.
    word: tuple[int, int, int, bool] = (0, 0, 0, False)


class TwoEnds(RuleBasedStateMachine):
    """A writer that may be lost and run again, a reader, and the mail between them."""

    @initialize(window=st.integers(1, 12))
    def open(self, window: int) -> None:
        self.window = window
        self.run = 1
        self.outbox = Outbox(window)
        self.inbox: Inbox[int] = Inbox(window)
        self.read: list[int] = []
        self.mail: list[Letter] = []

    # The writer.

    @rule(most=st.integers(1, 20))
    def make(self, most: int) -> None:
        while most and self.outbox.count < TOTAL and self.outbox.allows(self.outbox.count):
            self.outbox.put(text_of(self.outbox.count + 1))
            most -= 1

    @rule()
    def send(self) -> None:
        while True:
            first, texts = self.outbox.take()
            if not texts:
                return
            self.mail.append(Letter(self.run, (first, [int(text) for text in texts])))

    @rule()
    def beat(self) -> None:
        if self.outbox.beat():
            first, texts = self.outbox.take()
            self.mail.append(Letter(self.run, (first, [int(text) for text in texts])))

    @precondition(lambda self: self.run < 4)
    @rule()
    def run_again(self) -> None:
        """From the first item, on another server, which knows nothing."""
        self.run += 1
        self.outbox = Outbox(self.window)

    # The reader.

    @rule(most=st.integers(1, 20))
    def take(self, most: int) -> None:
        for _ in range(min(most, len(self.inbox))):
            self.read.append(self.inbox.take())
        if self.inbox.wants_more:
            self.speak()

    @rule(again=st.booleans())
    def speak(self, again: bool = False) -> None:
        self.inbox.told()
        self.mail.append(Letter(self.inbox.run, None, (self.inbox.have, self.inbox.limit, self.inbox.read, again)))

    # The mail.

    @precondition(lambda self: self.mail)
    @rule(data=st.data(), kept=st.booleans())
    def deliver(self, data: st.DataObject, kept: bool = False) -> None:
        index = data.draw(st.integers(0, len(self.mail) - 1))
        self.arrive(self.mail[index] if kept else self.mail.pop(index))

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.mail.pop(data.draw(st.integers(0, len(self.mail) - 1)))

    def arrive(self, letter: Letter) -> None:
        if letter.items is None:
            if letter.run <= self.run:
                have, limit, read, again = letter.word
                self.outbox.hear(have, limit, read, again=again)
            return
        first_word = letter.run > self.inbox.run
        first, items = letter.items
        whole = self.inbox.arrive(letter.run, first, items, sum(len(text_of(number)) for number in items))
        if first_word or not whole:
            self.speak(again=not whole)

    # What holds.

    @invariant()
    def everything_is_in_order_and_within_its_bounds(self) -> None:
        if not hasattr(self, "inbox"):
            return
        assert self.read == list(range(1, len(self.read) + 1))
        assert self.inbox.have == len(self.read) + len(self.inbox)
        assert len(self.inbox) <= self.window
        assert self.outbox.count <= len(self.read) + self.window
        unread = sum(len(text_of(number)) for number in range(len(self.read) + 1, self.outbox.count + 1))
        assert unread < MAX_UNREAD_BYTES + LARGEST

    def teardown(self) -> None:
        """The mail works again: everything that is still to come comes."""
        if not hasattr(self, "inbox"):
            return
        for _ in range(6 * TOTAL):
            if len(self.read) == TOTAL:
                break
            self.make(TOTAL)
            self.beat()
            self.send()
            mail, self.mail = self.mail, []
            for letter in mail:
                self.arrive(letter)
            self.take(TOTAL)
            self.speak()
            self.everything_is_in_order_and_within_its_bounds()
        assert self.read == list(range(1, TOTAL + 1))
        mail, self.mail = self.mail, []
        for letter in mail:
            self.arrive(letter)
        assert self.outbox.is_empty


TestTwoEnds = TwoEnds.TestCase


# Mail of any form.

numbers = st.integers(0, 2**63 - 1)
words = st.builds(Word, st.uuids(), st.text(max_size=20), numbers, numbers, numbers, numbers, st.booleans())
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=30), st.lists(words, max_size=5))
def test_words_are_read_as_they_were_written(reader: str, said: list[Word]) -> None:
    assert read_words(write_words(reader, said)) == (reader, said)


from_one = st.integers(1, 2**63 - 1)


@given(st.uuids(), st.text(max_size=20), from_one, from_one, st.none() | numbers, st.lists(plain))
def test_items_are_read_as_they_were_written(
    message_id: Any, parameter: str, run: int, first: int, total: int | None, values: list[Any]
) -> None:
    items = Items(message_id, parameter, run, first, "there", values, total)
    texts = [write_item(value, Limits(), "item") for value in values]
    assert read_items(write_items(items, texts), Limits()) == items


@given(plain)
def test_any_json_gives_words_and_items_or_a_decode_error(tree: Any) -> None:
    readers: list[Callable[[bytes], object]] = [read_words, lambda body: read_items(body, Limits())]
    for part in (tree, {"reader": "r", "words": tree, "items": tree, "id": tree}, {"reader": "r", "words": [tree], "items": []}):
        for read in readers:
            with suppress(DecodeError):
                read(json.dumps(part).encode())


said_numbers = st.integers(0, 20) | numbers | st.just(LEFT)


@given(st.lists(st.tuples(said_numbers, said_numbers, said_numbers, st.booleans(), st.integers(0, 3))), st.integers(1, 9))
def test_no_word_breaks_a_writer(said: list[tuple[int, int, int, bool, int]], window: int) -> None:
    """Words of a reader that lies: the items that are sent are those that it does not claim to have, in their order."""
    outbox = Outbox(window)
    claimed = 0
    for have, limit, read, again, made in said:
        outbox.hear(have, limit, read, again=again)
        claimed = max(claimed, have)
        for _ in range(made):
            if outbox.allows(outbox.count):
                outbox.put(b"%d" % (outbox.count + 1))
        first, texts = outbox.take()
        assert [int(text) for text in texts] == list(range(first, first + len(texts)))
        assert not texts or claimed < first <= outbox.count
        outbox.beat()
    assert outbox.count <= sum(made for *_, made in said)


@given(st.lists(st.tuples(st.integers(0, 3) | numbers, st.integers(1, 9) | numbers, st.integers(0, 9))), st.integers(1, 9))
def test_no_mail_makes_a_reader_keep_more_than_its_window(mail: list[tuple[int, int, int]], window: int) -> None:
    inbox: Inbox[int] = Inbox(window)
    for run, first, count in mail:
        inbox.arrive(run, max(first, 1), range(count))
        assert len(inbox) <= window
        assert inbox.have <= inbox.limit
