"""What the broker tests must do behind an adapter's back, per kind of broker. A further broker is one class and one line here."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

import redis
from aiokafka import TopicPartition

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Consumer, Delivery, Mailbox, Outgoing, Reply
from prpc.brokers.kafka import KafkaBroker
from prpc.brokers.kafka_reader import open_reader
from prpc.brokers.memory import MemoryBroker
from prpc.brokers.memory_space import space_of
from prpc.names import QueueNames
from prpc.settings import Settings
from tests.sim.broker import Site
from tests.sim.hosts import Host
from tests.sim.network import Network
from tests.sim.store import Store

T = TypeVar("T")

#: Seconds after which a test is given up that waits for what never comes.
PATIENCE = 30.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run with an end."""

    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(bounded())


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Broker]:
    """A broker with the queue declared, closed at the end."""
    broker = create_broker(settings)
    await broker.connect()
    try:
        await broker.declare(settings.queue_name)
        yield broker
    finally:
        await broker.close()


def outgoing(body: bytes = b"call", **facts: str) -> Outgoing:
    return Outgoing(uuid.uuid4(), body, facts)


def numbered(count: int) -> list[Outgoing]:
    """Calls whose bodies are their numbers."""
    return [outgoing(str(number).encode()) for number in range(count)]


async def take(consumer: Consumer, most: int) -> list[Delivery]:
    """What is about to run: the broker knew it for the first of its id, or it was claimed."""
    found = await consumer.take(most)
    answers = [d.claim(uuid.uuid4(), None) for d in found if not d.admitted]
    assert all(await asyncio.gather(*answers))
    return list(found)


async def take_one(consumer: Consumer) -> Delivery:
    (delivery,) = await take(consumer, 1)
    return delivery


async def take_all(consumer: Consumer, count: int, most: int = 64) -> list[Delivery]:
    found: list[Delivery] = []
    while len(found) < count:
        found += await take(consumer, most)
    return found


async def take_among(consumers: Sequence[Consumer], count: int, most: int = 64) -> list[Delivery]:
    """From all of them until there are so many; then they are stopped."""
    found: list[Delivery] = []

    async def serve(consumer: Consumer) -> None:
        while taken := await take(consumer, most):
            found.extend(taken)
            if len(found) >= count:
                await asyncio.gather(*(each.stop() for each in consumers))

    await asyncio.gather(*(serve(consumer) for consumer in consumers))
    return found


def woken(broker: Broker, wake: bytes, body: bytes) -> bytes:
    """What a mailbox gets of a reply: the short form only where the whole one is kept."""
    return wake if broker.capabilities.keeps_replies else body


def kept(broker: Broker, outcomes: Mapping[UUID, bytes]) -> Mapping[UUID, bytes]:
    """What a mailbox collects: nothing where a broker keeps no outcomes beside the mail."""
    return outcomes if broker.capabilities.keeps_replies else {}


async def receive_all(mailbox: Mailbox, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += (await mailbox.receive()).bodies
    return found


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state that only the broker's own clock brings."""
    while not await check():
        await asyncio.sleep(0.02)


async def left(harness: Harness, count: int) -> bool:
    """Whether so many entries and kept replies are left; a broker may need a moment to say so."""
    for _ in range(200):
        if await asyncio.to_thread(harness.waiting) == count:
            return True
        await asyncio.sleep(0.02)
    return False


def reply_to(call: Outgoing, body: bytes = b"result", **more: Any) -> Reply:
    return Reply(call.message_id, body, **more)


class Harness(Protocol):
    """The back door of one kind of broker."""

    #: 1 where outcomes are kept beside the mail, else 0.
    keeps: int
    #: Whether publishing tells doubles, so that the server must not.
    admits: bool

    def named(self, name: str) -> Settings:
        """Settings whose connections `cut` can find."""
        ...

    def put(self, fields: Mapping[str, bytes], *, raw: bool) -> None:
        """Add an entry by hand, as a foreign program would."""
        ...

    def kept_raw(self, message_id: UUID) -> bytes | None:
        """The kept reply of a raw call."""
        ...

    def dead_letters(self) -> Sequence[tuple[str, bytes | None]]:
        """Reason and body of each."""
        ...

    def waiting(self) -> int:
        """Entries in both queues, and kept replies."""
        ...

    def cut(self, name: str) -> int:
        """Cut the connections opened with `named(name)`; how many there were."""
        ...


class MemoryHarness:
    keeps, admits = 1, True

    def __init__(self, settings: Settings) -> None:
        self.settings, self.queue = settings, settings.queue_name
        self.broker = MemoryBroker(settings)

    def named(self, name: str) -> Settings:
        return self.settings

    def put(self, fields: Mapping[str, bytes], *, raw: bool) -> None:
        facts = {k: v.decode() for k, v in fields.items() if k != "message"}
        self.broker.put_raw(self.queue, fields.get("message"), facts, raw=raw)

    def kept_raw(self, message_id: UUID) -> bytes | None:
        key = QueueNames(self.queue).raw_feedback(message_id)
        return space_of(self.settings.url_broker).collect([(message_id, key)]).get(message_id)

    def dead_letters(self) -> Sequence[tuple[str, bytes | None]]:
        return [(letter.reason, letter.body) for letter in self.broker._space.dead_letters(self.queue)]

    def waiting(self) -> int:
        return space_of(self.settings.url_broker).size(self.queue)

    def cut(self, name: str) -> int:
        raise NotImplementedError("a memory broker has no connection")


class RedisHarness:
    keeps, admits = 1, True

    def __init__(self, settings: Settings) -> None:
        self.settings, self.names = settings, QueueNames(settings.queue_name)
        self.client = redis.Redis.from_url(settings.url_broker)

    def named(self, name: str) -> Settings:
        return replace(self.settings, url_broker=f"{self.settings.url_broker}?client_name={name}")

    def put(self, fields: Mapping[str, bytes], *, raw: bool) -> None:
        self.client.xadd(self.names.raw_calls if raw else self.names.calls, dict(fields))

    def kept_raw(self, message_id: UUID) -> bytes | None:
        return self.client.get(self.names.raw_feedback(message_id))

    def dead_letters(self) -> Sequence[tuple[str, bytes | None]]:
        return [(fields[b"reason"].decode(), fields.get(b"message")) for _, fields in self.client.xrange(self.names.dead)]

    def waiting(self) -> int:
        kept = list(self.client.scan_iter(f"prpc_feedback_{self.names.queue}_*"))
        return self.client.xlen(self.names.calls) + self.client.xlen(self.names.raw_calls) + len(kept)

    def cut(self, name: str) -> int:
        clients = [c for c in self.client.client_list() if c["name"] == name]
        return sum(self.client.client_kill_filter(_id=c["id"]) for c in clients)


def id_in(body: bytes) -> bytes | None:
    """The message id that a call's text names, as records are keyed by it."""
    found = re.search(rb"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", body)
    return str(UUID(found[0].decode())).encode() if found else None


class KafkaHarness:
    """Works on a loop of its own in a thread, since a test's own is busy."""

    keeps, admits = 0, False

    def __init__(self, settings: Settings) -> None:
        self.settings, self.names = settings, QueueNames(settings.queue_name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._broker: KafkaBroker = self._do(self._open())

    async def _open(self) -> KafkaBroker:
        broker = KafkaBroker(self.settings)
        await broker.connect()
        await broker.declare(self.settings.queue_name)
        return broker

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def named(self, name: str) -> Settings:
        return self.settings

    def put(self, fields: Mapping[str, bytes], *, raw: bool) -> None:
        topic = self.names.raw_calls if raw else self.names.calls
        body = fields.get("message")
        key = str(UUID(bytes=body)).encode() if body is not None and len(body) == 16 else id_in(body or b"")
        headers = [(name, value) for name, value in fields.items() if name != "message"]

        async def put() -> None:
            await self._broker._sender.send(topic, body, key=key or b"-", headers=headers)

        self._do(put())

    def kept_raw(self, message_id: UUID) -> bytes | None:
        key = str(message_id).encode()
        records = self._do(self._all(self.names.raw_feedback_topic))
        return next((record.value for record in records if record.key == key), None)

    async def _all(self, topic: str) -> list[Any]:
        counts = await self._broker._topics.partitions([topic])
        found: list[Any] = []
        consumer = await open_reader(self._broker._address, self.settings)
        try:
            for number in range(counts[topic]):
                place = TopicPartition(topic, number)
                consumer.assign([place])
                start, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
                consumer.seek(place, start)
                while await consumer.position(place) < end:
                    found += (await consumer.getmany(timeout_ms=1000)).get(place, [])
        finally:
            await consumer.stop()
        return found

    def dead_letters(self) -> Sequence[tuple[str, bytes | None]]:
        async def read() -> list[tuple[str, bytes | None]]:
            return [(letter.reason, letter.body) async for letter in self._broker.dead_letters(self.settings.queue_name).read()]

        return self._do(read())

    def waiting(self) -> int:
        """Calls that have not ended as far as it is committed, which follows within moments."""
        state = self._do(self._broker.state(self.settings.queue_name))
        return state.waiting + state.taken

    def cut(self, name: str) -> int:
        raise NotImplementedError("connections of aiokafka have no names")

    def close(self) -> None:
        self._do(self._broker.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SimSite(Site):
    """A simulated broker whose connections have a name where their URL has one."""

    def __init__(self, store: Store, network: Network, wall: float) -> None:
        super().__init__(store, network, wall)
        self.hosts: dict[str, Host] = {}

    def host_of(self, settings: Settings) -> Host | None:
        name = settings.url_broker.partition("?client_name=")[2]
        return self.hosts.setdefault(name, Host(name, 0)) if name else None


class SimHarness:
    def __init__(self, settings: Settings, site: SimSite) -> None:
        self.settings, self.queue, self.site, self.store = settings, settings.queue_name, site, site.store
        self.keeps, self.admits = int(site.store.keeps), site.store.admits

    def named(self, name: str) -> Settings:
        return replace(self.settings, url_broker=f"{self.settings.url_broker}?client_name={name}")

    def put(self, fields: Mapping[str, bytes], *, raw: bool) -> None:
        facts = {k: v.decode() for k, v in fields.items() if k != "message"}
        with self.site.network.lock:
            self.store.put(self.queue, fields.get("message"), facts, raw=raw)

    def kept_raw(self, message_id: UUID) -> bytes | None:
        return self.store.queue(self.queue).kept.get((message_id, True), (None, 0.0))[0]

    def dead_letters(self) -> Sequence[tuple[str, bytes | None]]:
        return [(letter.reason, letter.body) for letter in self.store.queue(self.queue).dead.values()]

    def waiting(self) -> int:
        with self.site.network.lock:
            queue, now = self.store.queue(self.queue), self.store.clock()
            return len(queue.entries) + self.keeps * sum(until > now for _, until in queue.kept.values())

    def cut(self, name: str) -> int:
        with self.site.network.lock:
            return self.site.network.cut(self.site.hosts[name])


HARNESSES: dict[str, Callable[[Settings], Harness]] = {
    "memory": MemoryHarness,
    "redis": RedisHarness,
    "kafka": KafkaHarness,
    "real_kafka": KafkaHarness,
}
