"""What is the memory broker's own: sharing by URL, time, and threads. Its behaviour as a broker is in tests/conformance."""

from __future__ import annotations

import asyncio
import gc
import uuid
from dataclasses import replace

import pytest

from prpc.brokers import create_broker
from prpc.brokers.base import Outgoing, Reply, ServerRecord
from prpc.brokers.memory import MemoryBroker
from prpc.brokers.memory_bell import Bell
from prpc.brokers.memory_queue import Hold
from prpc.brokers.memory_space import Space, space_of
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.settings import Settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def memory(url: str) -> MemoryBroker:
    broker = create_broker(Settings(type_broker="memory", url_broker=url))
    assert isinstance(broker, MemoryBroker)
    return broker


def test_brokers_of_one_url_share_and_others_do_not() -> None:
    one, two, other = memory("memory://a"), memory("memory://a"), memory("memory://b")

    async def work() -> None:
        await one.publish("q", Outgoing(uuid.uuid4(), b"x", {}))
        (delivery,) = await two.consume("q", consumer="c").take(1)
        assert delivery.body == b"x"
        assert space_of("memory://b").size("q") == 0
        assert await delivery.settle(None)
        for broker in (one, two, other):
            await broker.close()

    asyncio.run(work())


def test_what_the_last_broker_left_is_gone() -> None:
    async def work() -> None:
        one, two = memory("memory://gone"), memory("memory://gone")
        await one.publish("q", Outgoing(uuid.uuid4(), b"x", {}))
        await one.close()
        assert space_of("memory://gone").size("q") == 1
        await two.close()
        gc.collect()
        assert space_of("memory://gone").size("q") == 0
        with pytest.raises(BrokerUnavailableError, match="closed"):
            await two.ping()
        await two.connect()
        assert await two.ping() >= 0
        await two.close()

    asyncio.run(work())


def test_an_adapter_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="PRPC_TYPE_BROKER='rabbit' cannot be used"):
        create_broker(replace(Settings(), type_broker="rabbit"))


def test_a_bell_of_a_loop_that_is_gone_rings_for_nobody() -> None:
    async def make() -> Bell:
        return Bell()

    asyncio.run(make()).ring()


def test_a_lease_runs_out_to_the_moment(clock: Clock) -> None:
    space = Space(clock)
    space.put("q", b"x", {})
    ((entry,), _) = space.take("q", "one", 5, seconds=10)
    hold = Hold("one", entry, entry.attempt)
    clock.now += 10
    assert space.take("q", "two", 5, seconds=10) == ([], 0.0)
    clock.now += 0.1
    ((again,), _) = space.take("q", "two", 5, seconds=10)
    assert (again, again.attempt) == (entry, 2)
    assert not space.finish("q", hold, None, 60)
    assert not space.release("q", hold)
    assert not space.bury("q", hold, "why", None, 60)
    assert space.finish("q", Hold("two", again, again.attempt), None, 60)


def test_an_older_delivery_to_the_same_consumer_counts_no_more(clock: Clock) -> None:
    """The lease ran out, another took the entry, lost it too, and it came back."""
    space = Space(clock)
    space.put("q", b"x", {})
    ((entry,), _) = space.take("q", "one", 1, seconds=10)
    first = Hold("one", entry, entry.attempt)
    for consumer in ("two", "one"):
        clock.now += 11
        space.take("q", consumer, 1, seconds=10)
    assert entry.attempt == 3
    assert not space.finish("q", first, None, 60)
    assert space.finish("q", Hold("one", entry, 3), None, 60)


def test_renewing_keeps_a_lease(clock: Clock) -> None:
    space = Space(clock)
    space.put("q", b"x", {})
    space.take("q", "one", 1, seconds=10)
    for _ in range(5):
        clock.now += 8
        space.renew("q", "one", 10)
    assert space.take("q", "two", 1, seconds=10)[0] == []


def test_kept_replies_run_out_and_make_room(clock: Clock) -> None:
    space, id_ = Space(clock), uuid.uuid4()
    key = f"prpc_feedback_q_{id_}"

    def settle(body: bytes, seconds: float) -> None:
        space.put("q", b"x", {})
        ((entry,), _) = space.take("q", "one", 1, seconds=1000)
        assert space.finish("q", Hold("one", entry, 1), Reply(id_, body), seconds)

    settle(b"first", 10)
    settle(b"second", 10)
    assert space.collect([(id_, key)]) == {id_: b"first"}
    clock.now += 10
    assert space.collect([(id_, key)]) == {}
    settle(b"third", 10)
    assert space.collect([(id_, key)]) == {id_: b"third"}
    space.forget([key, key])
    assert space.size("q") == 0


def test_announcements_run_out(clock: Clock) -> None:
    space, record = Space(clock), ServerRecord("one", {"x": 1})
    space.announce("q", record, 5)
    clock.now += 4.9
    assert space.servers("q") == [record]
    clock.now += 0.1
    assert space.servers("q") == []


def test_dead_letters_are_bounded(clock: Clock) -> None:
    space = Space(clock)
    for number in range(15):
        space.put("q", b"%d" % number, {"n": "1"}, raw=True)
        ((entry,), _) = space.take("q", "one", 1, seconds=10)
        assert space.bury("q", Hold("one", entry, 1), "why", None, 60, most=10)
    letters = space.dead_letters("q")
    assert len(letters) == 10
    assert (letters[0].body, letters[0].raw, letters[0].fields) == (b"5", True, [(b"message", b"5"), (b"n", b"1")])
