"""The rules of streams: numbers, windows, words and repair; and the mail that carries them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from prpc.codec.items import MAX_ITEM_BYTES, Items, call_of_items, read_items, write_item, write_items
from prpc.codec.limits import Limits
from prpc.exceptions import DecodeError, EncodeError
from prpc.protocol.facts import CallFacts
from prpc.protocol.streams import (
    LEFT,
    MAX_MAIL_BYTES,
    MAX_MAIL_ITEMS,
    MAX_UNREAD_BYTES,
    MAX_WINDOW,
    MAX_WORDS,
    TELL_BYTES,
    Inbox,
    Outbox,
    Word,
    read_words,
    write_words,
)
from prpc.streaming.ends import Reader
from prpc.streaming.feeding import Feeder, feed

ID = uuid.UUID(int=7)


def filled(count: int, limit: int = 100) -> Outbox:
    outbox = Outbox(limit)
    for number in range(count):
        outbox.put(b"%d" % (number + 1))
    return outbox


def sent(outbox: Outbox) -> list[tuple[int, list[bytes]]]:
    """All mails that are due."""
    found = []
    while (mail := outbox.take())[1]:
        found.append(mail)
    return found


class TestOutbox:
    def test_it_goes_as_far_as_the_reader_says(self) -> None:
        outbox = filled(2, 2)
        assert not outbox.allows(2)
        outbox.hear(0, 5, 0)
        assert outbox.allows(4) and not outbox.allows(5)
        outbox.hear(2, 3, 2)  # an older word
        assert outbox.allows(4)

    def test_without_a_reader_nothing_may_be_made(self) -> None:
        assert not Outbox(0).allows(0)

    def test_what_the_reader_has_is_not_kept(self) -> None:
        outbox = filled(3)
        assert sent(outbox) == [(1, [b"1", b"2", b"3"])]
        outbox.hear(2, 100, 2, again=True)
        assert sent(outbox) == [(3, [b"3"])]
        outbox.hear(3, 100, 3)
        assert outbox.is_empty and outbox.count == 3

    def test_an_old_word_takes_nothing_back(self) -> None:
        outbox = filled(3)
        outbox.hear(3, 100, 3)
        outbox.hear(1, 50, 1, again=True)
        assert outbox.is_empty and sent(outbox) == []

    def test_only_what_was_not_sent_is_sent(self) -> None:
        outbox = filled(1)
        assert sent(outbox) == [(1, [b"1"])]
        outbox.put(b"2")
        assert sent(outbox) == [(2, [b"2"])]
        assert outbox.take() == (3, [])

    def test_with_many_bytes_it_waits(self) -> None:
        outbox = Outbox(1000)
        outbox.put(b"x" * (MAX_UNREAD_BYTES - 1))
        assert outbox.allows(1)
        assert not outbox.allows(1, 1)
        outbox.put(b"x")
        assert not outbox.allows(2)
        outbox.hear(2, 1000, 0)  # it has them, but did not read them
        assert outbox.is_empty and not outbox.allows(2)
        outbox.hear(2, 1000, 1)
        assert outbox.allows(2)

    def test_a_single_item_may_be_larger_than_what_is_held(self) -> None:
        outbox = Outbox(10)
        assert outbox.allows(0)
        outbox.put(b"x" * (MAX_UNREAD_BYTES + 1))
        assert not outbox.allows(1)
        assert [first for first, _ in sent(outbox)] == [1]

    def test_mails_are_bounded_in_items_and_bytes(self) -> None:
        mails = sent(filled(2 * MAX_MAIL_ITEMS + 1, 10_000))
        assert [len(texts) for _, texts in mails] == [MAX_MAIL_ITEMS, MAX_MAIL_ITEMS, 1]
        assert [first for first, _ in mails] == [1, MAX_MAIL_ITEMS + 1, 2 * MAX_MAIL_ITEMS + 1]
        outbox = Outbox(10)
        for size in (MAX_MAIL_BYTES - 1, 1, 1, MAX_MAIL_BYTES + 1, 5):
            outbox.put(b"x" * size)
        assert [(first, len(texts)) for first, texts in sent(outbox)] == [(1, 2), (3, 1), (4, 1), (5, 1)]

    def test_a_later_run_keeps_nothing_that_the_reader_has(self) -> None:
        outbox = Outbox(5)
        outbox.hear(3, 8, 3)
        for number in range(5):
            assert outbox.allows(outbox.count)
            outbox.put(b"%d" % (number + 1))
        assert sent(outbox) == [(4, [b"4", b"5"])]

    def test_a_reader_far_ahead_of_a_later_run_does_not_hold_it_up(self) -> None:
        outbox = Outbox(5)
        outbox.hear(1_000_000, 1_000_005, 1_000_000)
        outbox.put(b"1")
        assert outbox.is_empty and outbox.allows(1) and sent(outbox) == []

    def test_a_reader_that_left_takes_everything(self) -> None:
        outbox = filled(4)
        outbox.hear(LEFT, 0, LEFT)
        assert outbox.is_empty
        outbox.put(b"5")
        assert outbox.is_empty and sent(outbox) == []

    def test_no_window_is_larger_than_allowed(self) -> None:
        assert not Outbox(10**9).allows(MAX_WINDOW)
        outbox = Outbox(1)
        outbox.hear(0, 2**62, 0)
        assert outbox.allows(MAX_WINDOW - 1) and not outbox.allows(MAX_WINDOW)

    def test_a_beat_without_progress_is_told(self) -> None:
        """And nothing is sent again unasked: the reader may be slow."""
        outbox = filled(2)
        assert not outbox.beat() and sent(outbox) == [(1, [b"1", b"2"])]
        assert outbox.beat() and outbox.take() == (3, [])
        outbox.hear(1, 100, 1)
        assert not outbox.beat()
        assert outbox.beat() and outbox.take() == (3, [])
        outbox.hear(1, 100, 1, again=True)
        assert sent(outbox) == [(2, [b"2"])]
        outbox.hear(2, 100, 2)
        assert not outbox.beat() and not outbox.beat()


class TestInbox:
    def test_items_come_once_and_in_order(self) -> None:
        inbox: Inbox[int] = Inbox(10)
        assert inbox.arrive(1, 1, [1, 2])
        assert inbox.arrive(1, 1, [1, 2, 3])
        assert inbox.arrive(1, 2, [2])
        assert not inbox.arrive(1, 5, [5])
        assert inbox.arrive(1, 4, [4, 5])
        assert [inbox.take() for _ in range(5)] == [1, 2, 3, 4, 5]
        with pytest.raises(IndexError):
            inbox.take()

    def test_what_is_beyond_the_window_is_left(self) -> None:
        inbox: Inbox[int] = Inbox(2)
        assert inbox.arrive(1, 1, [1, 2, 3])
        assert (len(inbox), inbox.have, inbox.limit) == (2, 2, 2)
        inbox.take()
        assert inbox.arrive(1, 3, [3])
        assert inbox.have == 3

    def test_a_later_run_goes_on_and_an_earlier_one_is_over(self) -> None:
        inbox: Inbox[int] = Inbox(10)
        inbox.arrive(1, 1, [1, 2])
        assert inbox.arrive(2, 1, [1, 2, 3])
        assert inbox.arrive(1, 4, [99])
        assert inbox.arrive(2, 4, [4])
        assert [inbox.take() for _ in range(4)] == [1, 2, 3, 4]

    @pytest.mark.parametrize(("window", "read"), [(1, 1), (2, 1), (10, 5), (256, 128)])
    def test_the_writer_is_told_when_half_of_the_window_is_free(self, window: int, read: int) -> None:
        inbox: Inbox[int] = Inbox(window)
        inbox.arrive(1, 1, range(window))
        for _ in range(read):
            assert not inbox.wants_more
            inbox.take()
        assert inbox.wants_more
        inbox.told()
        assert not inbox.wants_more and (inbox.read, inbox.limit) == (read, window + read)

    def test_the_writer_is_told_of_many_bytes_that_were_read(self) -> None:
        inbox: Inbox[int] = Inbox(1000)
        inbox.arrive(1, 1, range(4), 2 * TELL_BYTES)
        inbox.take()
        assert not inbox.wants_more
        inbox.take()
        assert inbox.wants_more
        inbox.told()
        inbox.take()
        assert not inbox.wants_more


WORD = [ID.hex, "", 1, 2, 3, 1, 0]


class TestWords:
    def test_they_are_read_as_they_were_written(self) -> None:
        words = [Word(ID, "", 1, 2, 3, 1), Word(ID, "items", 2**62, LEFT, 0, LEFT, again=True)]
        assert read_words(write_words("here", words)) == ("here", words)

    @pytest.mark.parametrize(
        "tree",
        [
            *([], None, 1, "x", {}, {"reader": "r"}, {"words": []}),
            *({"reader": 1, "words": []}, {"reader": "r", "words": {}}, {"reader": "r", "words": "x"}),
            *({"reader": "r", "words": [row]} for row in ([], None, {}, "x", WORD[:6], [*WORD, 1])),
            *({"reader": "r", "words": [[bad, *WORD[1:]]]} for bad in (None, 5, "", "x", "0" * 31, "0" * 33, [])),
            *({"reader": "r", "words": [[WORD[0], bad, *WORD[2:]]]} for bad in (None, 5, [])),
            *(
                {"reader": "r", "words": [[*WORD[:place], bad, *WORD[place + 1 :]]]}
                for place in (2, 3, 4, 5, 6)
                for bad in (-1, 2**63, 10**30, 1.0, "1", None, True, [])
            ),
            {"reader": "r", "words": [WORD] * (MAX_WORDS + 1)},
        ],
    )
    def test_what_are_no_words_is_refused(self, tree: Any) -> None:
        with pytest.raises(DecodeError, match="words about streams"):
            read_words(json.dumps(tree).encode())

    @pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000, b'{"words": NaN', b"9" * 10_000])
    def test_what_is_no_json_is_refused(self, body: bytes) -> None:
        with pytest.raises(DecodeError, match="words about streams"):
            read_words(body)


def mail(**more: Any) -> bytes:
    return json.dumps({"prpc_mail": "items", "id": str(ID), "run": 1, "first": 1, "writer": "w", "items": [1], **more}).encode()


class TestItems:
    def test_they_are_read_as_they_were_written(self) -> None:
        for parameter, total in (("", None), ("numbers", 5), ("0", 0)):
            items = Items(ID, parameter, 2, 3, "there", [1, "ä", None, [2.5]], total)
            texts = [write_item(value, Limits(), "item") for value in items.values]
            assert read_items(write_items(items, texts), Limits()) == items

    def test_an_empty_mail_says_where_the_writer_is(self) -> None:
        items = Items(ID, "", 1, 1, "there", [])
        assert read_items(write_items(items, []), Limits()) == items

    def test_the_text_is_plain_json(self) -> None:
        text = write_items(Items(ID, "p", 1, 3, "w", (), 4), [b"1", b'"x"'])
        assert json.loads(text) == json.loads(mail(parameter="p", first=3, total=4, items=[1, "x"]))

    @pytest.mark.parametrize(
        "more",
        [
            *({"items": bad} for bad in (None, 1, "x", {})),
            *({"id": bad} for bad in (None, 1, "", "x", "0" * 600, [])),
            *({"run": bad} for bad in (None, 0, -1, 2**63, 1.0, "1", True)),
            *({"first": bad} for bad in (None, 0, -1, 2**63, 1.0, "1", True)),
            *({"total": bad} for bad in (-1, 2**63, 1.0, "1", True, [])),
            *({"writer": bad} for bad in (None, 1, [], "x" * 501)),
            *({"parameter": bad} for bad in (None, 1, [], "x" * 501)),
        ],
    )
    def test_what_are_no_items_is_refused(self, more: dict[str, Any]) -> None:
        with pytest.raises(DecodeError):
            read_items(mail(**more), Limits())

    @pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[1]", b"1", b"null", b"[" * 100_000, b"9" * 5000, mail()[:-1]])
    def test_what_is_no_mail_is_refused(self, body: bytes) -> None:
        with pytest.raises(DecodeError):
            read_items(body, Limits())

    def test_whose_they_are_is_known_of_unreadable_ones(self) -> None:
        for body in (mail(), mail()[:-1], mail(run=0), mail().replace(b": ", b":")):
            assert call_of_items(body) == ID
        for body in (b"", b"{}", mail(id="0" * 33), mail(id=5), b'{"id": "x", "prpc_mail": "items"}'):
            assert call_of_items(body) is None

    def test_bounds_hold_for_reading(self) -> None:
        deep: Any = []
        for _ in range(10):
            deep = [deep]
        for limits, body in (
            (Limits(max_bytes=100), mail(items=["x" * 100])),
            (Limits(max_items=50), mail(items=[0] * 100)),
            (Limits(max_depth=5), mail(items=[deep])),
            (Limits(max_depth=5), mail(items=[deep, {"py/tuple": [1]}])),
        ):
            with pytest.raises(DecodeError):
                read_items(body, limits)

    def test_an_item_as_deep_as_may_be_is_read(self) -> None:
        value: Any = 1
        for _ in range(5):
            value = [value]
        for extra in ([], [(1, 2)]):
            text = [write_item(one, Limits(max_depth=5), "item") for one in (value, *extra)]
            read = read_items(write_items(Items(ID, "", 1, 1, "w", ()), text), Limits(max_depth=5))
            assert read.values[0] == value

    def test_an_item_that_cannot_be_written_names_itself(self) -> None:
        for value in (object(), "x" * (MAX_ITEM_BYTES + 1)):
            with pytest.raises(EncodeError, match=r"an item of f\(\)"):
                write_item(value, Limits(), "an item of f()")


class TestFacts:
    def test_they_travel(self) -> None:
        facts = CallFacts("here", window=256, feeds=("0", "items"))
        assert facts.to_fields() == {"reply_to": "here", "stream": "256", "feeds": "0,items"}
        assert CallFacts.from_fields(facts.to_fields()) == facts

    @pytest.mark.parametrize(
        "fields",
        [
            *({"stream": bad} for bad in ("", "0", "-1", "x", "1.5", "٣", "9" * 16)),
            *({"feeds": bad} for bad in ("", ",", "a,", "a,a", ",".join(map(str, range(17))), "x" * 201)),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, fields: dict[str, str]) -> None:
        with pytest.raises(DecodeError, match=next(iter(fields))):
            CallFacts.from_fields(fields)


class TestReader:
    def test_what_is_missing_is_asked_for_once(self) -> None:
        """Else each mail behind a hole would have everything sent again."""
        reader = Reader((ID, ""), 100)

        def come(first: int, run: int = 1) -> bool:
            return reader.arrive(Items(ID, "", run, first, "w", [0]), 10)

        assert come(1)  # a writer that was not known
        assert not reader.word().again
        assert come(3) and reader.word().again
        assert not come(4) and not reader.word().again
        assert not come(2)
        assert come(5) and reader.word().again
        assert come(9, run=2) and reader.word().again
        reader.beat()
        assert come(9, run=2) and reader.word().again

    def test_a_writer_that_says_who_it_is_after_the_outcome_is_read(self) -> None:
        """Every mail of a short stream may be lost; then the outcome, which says how many items there are, comes first."""
        reader = Reader((ID, ""), 100)
        reader.total = 2
        assert reader.arrive(Items(ID, "", 1, 3, "w", []), 10)
        assert (reader.writer, reader.away, reader.word().again) == ("w", None, True)
        assert reader.arrive(Items(ID, "", 1, 1, "w", [1, 2]), 10)
        assert reader.is_over
        reader.arrive(Items(ID, "", 1, 3, "other", []), 10)  # one that ran beside it is not read any more
        assert reader.away == ("other", 1)

    def test_a_server_that_runs_the_call_once_more_is_read_again(self) -> None:
        """It lost the call to another one, which lost it, too."""
        reader = Reader((ID, ""), 100)
        assert reader.arrive(Items(ID, "", 1, 1, "one", [1]), 10)
        assert reader.arrive(Items(ID, "", 2, 1, "other", [1, 2]), 10)
        assert reader.arrive(Items(ID, "", 3, 1, "one", [1, 2, 3]), 10)
        assert (reader.away, reader.writer, reader.inbox.have) == (("other", 2), "one", 3)
        reader.arrive(Items(ID, "", 2, 3, "other", [3, 4]), 10)
        assert (reader.away, reader.inbox.have) == (("other", 2), 3)

    def test_another_writer_hears_at_once_where_its_reader_is(self) -> None:
        """A later run goes on elsewhere, and may have the same number where it was given back."""
        reader = Reader((ID, ""), 100)
        assert reader.arrive(Items(ID, "", 1, 1, "one", [1, 2]), 10)
        assert reader.away is None
        assert reader.arrive(Items(ID, "", 1, 1, "other", []), 10)
        assert (reader.away, reader.writer, reader.word().have) == (("one", 1), "other", 2)


class Sink:
    """Takes items as long as there is room."""

    def __init__(self, room: int) -> None:
        self.room, self.texts = room, list[bytes]()
        self.wake: Any = None

    @property
    def count(self) -> int:
        return len(self.texts)

    def encode(self, value: Any) -> bytes:
        if value is None:
            raise EncodeError("not this one")
        return str(value).encode()

    def allows(self, count: int, pending: int = 0) -> bool:
        return count < self.room

    def put(self, text: bytes) -> None:
        self.texts.append(text)

    def on_room(self, wake: Any) -> None:
        self.wake = wake

    def more(self, room: int) -> None:
        self.room = room
        self.wake()


class TestFeeding:
    """Iterables of both kinds into a sink."""

    @pytest.mark.parametrize("kind", ["plain", "async"])
    def test_it_makes_no_item_without_room(self, kind: str) -> None:
        made: list[int] = []

        def numbers() -> Iterator[int]:
            for number in range(5):
                made.append(number)
                yield number

        async def scenario() -> None:
            sink, ended = Sink(2), asyncio.get_running_loop().create_future()
            if kind == "plain":
                Feeder("feeder", asyncio.get_running_loop(), sink, numbers, ended.set_result).start()
            else:

                async def run() -> None:
                    async def each() -> Any:
                        for number in numbers():
                            yield number

                    ended.set_result(await feed(each(), sink))

                task = asyncio.create_task(run())
            while sink.count < 2:
                await asyncio.sleep(0.001)
            assert made == [0, 1]
            sink.more(3)
            while sink.count < 3:
                await asyncio.sleep(0.001)
            assert made == [0, 1, 2]
            sink.more(5)
            while sink.count < 5:
                await asyncio.sleep(0.001)
            assert not ended.done()  # whether there are more is asked for when there is room for one
            sink.more(6)
            assert await ended == 5
            assert sink.texts == [b"0", b"1", b"2", b"3", b"4"]
            if kind == "async":
                await task

        asyncio.run(scenario())

    @pytest.mark.parametrize("where", ["open", "item", "encode", "close"])
    def test_what_is_raised_is_told_after_the_items(self, where: str) -> None:
        closed: list[str] = []

        class Items:
            def __init__(self) -> None:
                self.left = [1, 2, None if where == "encode" else 3]

            def __iter__(self) -> Iterator[Any]:
                if where == "open":
                    raise KeyError(where)
                return self

            def __next__(self) -> Any:
                if not self.left:
                    if where == "item":
                        raise KeyError(where)
                    raise StopIteration
                return self.left.pop(0)

            def close(self) -> None:
                closed.append("closed")
                if where == "close":
                    raise KeyError(where)

        async def scenario() -> None:
            sink, ended = Sink(10), asyncio.get_running_loop().create_future()
            Feeder("feeder", asyncio.get_running_loop(), sink, lambda: iter(Items()), ended.set_result).start()
            assert isinstance(await ended, EncodeError if where == "encode" else KeyError)
            assert sink.count == {"open": 0, "encode": 2}.get(where, 3)
            assert closed == ([] if where == "open" else ["closed"])

        asyncio.run(scenario())

    def test_closing_ends_the_thread_and_the_iterator(self) -> None:
        ended_in: list[str] = []

        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                ended_in.append("finally")

        async def scenario() -> None:
            sink, ended = Sink(3), asyncio.get_running_loop().create_future()
            feeder = Feeder("feeder", asyncio.get_running_loop(), sink, endless, ended.set_result)
            feeder.start()
            while sink.count < 3:
                await asyncio.sleep(0.001)
            feeder.close()
            assert await ended == 3
            assert ended_in == ["finally"]
            feeder.close()

        asyncio.run(scenario())

    def test_a_loop_that_is_gone_ends_it(self) -> None:
        ended_in: list[str] = []
        feeders: list[Feeder] = []
        sinks = [Sink(2)]

        def endless() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                ended_in.append("finally")

        async def scenario() -> None:
            feeder = Feeder("feeder", asyncio.get_running_loop(), sinks[0], endless, lambda end: None)
            feeders.append(feeder)
            feeder.start()
            while sinks[0].count < 2:
                await asyncio.sleep(0.001)

        asyncio.run(scenario())
        sinks[0].more(10)
        feeders[0]._thread.join()
        assert ended_in == ["finally"]
