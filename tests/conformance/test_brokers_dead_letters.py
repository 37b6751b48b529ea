"""What was given up on stays whole until a person decides, over every broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from broker_harness import Harness, RedisHarness, connected, left, outgoing, run, take_all, take_one, until

from prpc.brokers.base import Broker, Consumer, DeadLetter, DeadLetters, QueueState
from prpc.exceptions import EncodeError
from prpc.settings import Settings

NOBODY = "nobody knows this one"


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[tuple[Broker, Consumer, DeadLetters]]:
    async with connected(settings) as broker:
        queue = settings.queue_name
        yield broker, broker.consume(queue, consumer="one"), broker.dead_letters(queue)


async def all_of(letters: DeadLetters) -> list[DeadLetter]:
    return [letter async for letter in letters.read()]


def test_a_letter_tells_everything(settings: Settings) -> None:
    async def work() -> None:
        async with reading(settings) as (broker, consumer, letters):
            await broker.publish(settings.queue_name, outgoing(b"\x00\xffbody", reason="theirs", own="token", colour="r\u00f6t"))
            delivery = await take_one(consumer)
            assert await delivery.bury("attempts", details="KeyError: 'x'\n  Traceback ...")
            (letter,) = await all_of(letters)
            assert (letter.reason, letter.details) == ("attempts", "KeyError: 'x'\n  Traceback ...")
            assert (letter.raw, letter.attempts, letter.body) == (False, 1, b"\x00\xffbody")
            assert letter.fields == [
                (b"message", b"\x00\xffbody"),
                (b"reason", b"theirs"),
                (b"own", b"token"),
                (b"colour", "r\u00f6t".encode()),
            ]
            assert letter.entry
            assert letter.sent <= letter.buried < letter.sent + 60
            assert await letters.get(letter.id) == letter
            assert await letters.count() == 1
            for name in (NOBODY, "", "1-1", "99999999999999999999-0", "-", "+"):
                assert await letters.get(name) is None
                assert not await letters.requeue(name)
                assert not await letters.drop(name)

    run(work())


def test_a_requeued_entry_comes_back_as_a_new_one(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with reading(settings) as (broker, consumer, letters):
            body = bytes(range(256))
            await broker.publish(settings.queue_name, outgoing(body, own="token", reason="theirs", headers='{"a": "\u00e4"}'))
            harness.put({"message": b"raw one", "x": b"y"}, raw=True)
            for delivery in await take_all(consumer, 2):
                assert await delivery.bury("tag")
            found = await all_of(letters)
            assert [await letters.requeue(letter.id) for letter in found] == [True, True]
            assert [await letters.requeue(letter.id) for letter in found] == [False, False]
            assert await letters.count() == 0
            again = {delivery.raw: delivery for delivery in await take_all(consumer, 2)}
            assert (again[False].body, dict(again[False].facts)) == (body, {"reason": "theirs", "headers": '{"a": "\u00e4"}'})
            assert (again[True].body, dict(again[True].facts)) == (b"raw one", {"x": "y"})
            assert [delivery.attempt for delivery in again.values()] == [1, 1]
            assert all([await delivery.settle(None) for delivery in again.values()])
        assert await left(harness, 0)

    run(work())


def test_a_dropped_letter_is_gone(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with reading(settings) as (broker, consumer, letters):
            for _ in range(2):
                await broker.publish(settings.queue_name, outgoing())
            for delivery in await take_all(consumer, 2):
                assert await delivery.bury("form")
            first, second = await all_of(letters)
            assert await letters.drop(first.id)
            assert not await letters.drop(first.id)
            assert await all_of(letters) == [second]
        assert await left(harness, 0)

    run(work())


def test_the_oldest_go_when_there_are_too_many(broker_kind: str, settings_for: Callable[..., Settings], harness: Harness) -> None:
    """A broker may keep somewhat more than the setting says: Redis cuts whole blocks of a stream."""
    settings = settings_for(broker_kind, dead_letters_kept=20)

    async def work() -> None:
        async with reading(settings) as (broker, consumer, letters):
            for number in range(400):
                await broker.publish(settings.queue_name, outgoing(b"%d" % number))
            for delivery in sorted(await take_all(consumer, 400), key=lambda each: int(each.body or b"")):
                assert await delivery.bury("form")

            async def cut() -> bool:
                return await letters.count() <= 200

            await until(cut)
            found = await all_of(letters)
            assert 20 <= len(found) <= 200
            assert [letter.body for letter in found] == [b"%d" % n for n in range(400 - len(found), 400)]

    run(work())


def test_the_crashes_of_before_do_not_count_after_requeueing(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with connected(settings) as lost, connected(settings) as other:
            await lost.publish(settings.queue_name, outgoing(b"call"))
            await take_one(lost.consume(settings.queue_name, consumer="lost"))
            await lost.close()
            consumer = other.consume(settings.queue_name, consumer="other")
            second = await take_one(consumer)
            assert second.attempt == 2
            assert await second.release()
            third = await take_one(consumer)
            assert await third.bury("attempts")
            letters = other.dead_letters(settings.queue_name)
            (letter,) = await all_of(letters)
            assert (letter.attempts, letter.fields) == (2, [(b"message", b"call")])
            assert await letters.requeue(letter.id)
            again = await take_one(consumer)
            assert (again.attempt, again.body) == (1, b"call")
            assert await again.settle(None)

    run(work())


def test_nothing_is_lost_where_an_entry_cannot_go_back(settings: Settings, harness: Harness) -> None:
    """Redis takes no more than some thousand fields from a script; letters made by hand may lack anything."""
    if not isinstance(harness, RedisHarness):
        return
    many = {f"field {number}".encode(): b"\xff%d" % number for number in range(5000)}
    harness.put(many, raw=False)
    harness.client.xadd(harness.names.dead, {"message": "by hand"})
    harness.client.xadd(harness.names.dead, {"reason": "no entry"})

    async def work() -> None:
        async with reading(settings) as (_, consumer, letters):
            assert await (await take_one(consumer)).bury("form")
            by_hand, empty, large = await all_of(letters)
            assert (by_hand.reason, by_hand.attempts, by_hand.sent, by_hand.body) == ("", 0, 0.0, b"by hand")
            assert dict(large.fields) == many
            for letter in (empty, large):
                with pytest.raises(EncodeError, match="cannot be put back"):
                    await letters.requeue(letter.id)
            assert await letters.count() == 3
            assert await letters.requeue(by_hand.id)
            assert await (await take_one(consumer)).settle(None)

    run(work())


def test_the_state_of_a_queue(settings: Settings, harness: Harness) -> None:
    async def work() -> None:
        async with reading(settings) as (broker, consumer, _):
            queue = settings.queue_name
            assert await broker.state(queue) == QueueState(0, 0, None, 0)
            for _ in range(3):
                await broker.publish(queue, outgoing())
            harness.put({"message": b"raw"}, raw=True)
            first, second = await take_all(consumer, 2, most=2)
            state = await broker.state(queue)
            assert (state.waiting, state.taken, state.dead) == (2, 2, 0)
            assert state.next_waits is not None
            assert 0 <= state.next_waits < 60
            assert await first.bury("form")
            assert await second.settle(None)
            rest = await take_all(consumer, 2)
            assert await broker.state(queue) == QueueState(0, 2, None, 1)
            assert all([await delivery.settle(None) for delivery in rest])
            nobody = await broker.state(f"{queue}_that_was_never_declared")
            assert nobody == QueueState(0, 0, None, 0)

    run(work())
