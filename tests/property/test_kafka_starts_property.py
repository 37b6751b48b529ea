"""At most once on Kafka, whatever becomes of commits, shares and words: servers' groups against a coordinator that is played.

Time is not waited for: it goes on when there is nothing else to do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalGenerationError, KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata

from prpc.brokers import kafka_commit, kafka_group, kafka_history
from prpc.brokers.base import Reply
from prpc.brokers.kafka_consumer import KafkaConsumer
from prpc.brokers.kafka_records import BORN, CONTINUES, CRASHES
from prpc.brokers.kafka_tenure import KafkaDelivery
from prpc.brokers.kafka_words import Word, write_word
from prpc.names import QueueNames
from prpc.settings import Settings

QUEUE = "q"
NAMES = QueueNames(QUEUE)
PARTITIONS = 3
SEEDS = 100
#: Seconds after which Kafka gives a silent member up.
SESSION = 1.0
#: Seconds after which a call that has not ended never will.
FOR_EVER = 1000.0
#: Seconds after which every server has heard a word.
LATEST_WORD = 20.0
#: Seconds between two commits that reach Kafka one right after the other.
INSTANT = 1e-6


class PlayedTime(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing else is to do."""

    _played = 0.0

    def time(self) -> float:
        return self._played

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._played = max(self._played, self._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


class Server:
    """One server: what aiokafka is to its group, what the control topic is to it, and how it runs its calls."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.alive, self.stopping = world, name, True, False
        self.id, self.generation, self.arrival = f"{name}-0", -1, 0.0
        self.positions: dict[TopicPartition, int] = {}
        self.running: dict[UUID, list[KafkaDelivery]] = {}
        settings = Settings(type_broker="kafka", queue_name=QUEUE, redis_heartbeat=0.3, redis_recover=SESSION)
        played: Any = self
        self.consumer = KafkaConsumer(
            played, settings, QUEUE, name, replies=played, committed=world.read, latest=lambda: 0.0, control=played
        )
        self.group: Any = self.consumer._group
        self.group.kafka = self
        self.group.committer.start()
        self.task = asyncio.create_task(self._take())

    # what stands for aiokafka

    @property
    def _coordinator(self) -> Server:
        return self

    @property
    def member_id(self) -> str:
        return self.id

    @property
    def _client(self) -> World:
        return self.world

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.positions[place] = offset

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.world.logs[place]) for place in places}

    # what stands for the control topic, and for what is sent to callers

    def say(self, word: Word) -> None:
        for other in self.world.servers:
            if other is not self:
                for _ in range(self.world.random.choice((1, 1, 1, 2))):
                    self.world.later(self.world.random.choice((0.0, 0.1, 2.0, LATEST_WORD)), self._heard, other, write_word(word))

    def _heard(self, other: Server, body: bytes) -> None:
        if other.alive:
            other.consumer._hear(body)

    def send(self, reply: Reply, address: str | None) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        self.world.later(self.world.random.choice((0.0, 0.5)), done.set_result, None)
        return done

    def put_back(self, delivery: KafkaDelivery) -> asyncio.Future[None]:
        """The record lands; that its writer hears of it is another matter."""
        done, choice = asyncio.get_running_loop().create_future(), self.world.random.choice
        lands = 0.0 if self.world.harm else choice((0.0, 0.3))
        added = {BORN: delivery.born_ms, CRASHES: delivery.attempt - 1, CONTINUES: delivery.offset}
        headers = tuple((name, b"%d" % number) for name, number in added.items())
        self.world.later(lands, self.world.append, delivery.tenure.place, delivery.record.key, headers)
        self.world.later(lands + choice((0.0, 0.1, 2.0)), done.set_result, None)
        return done

    # its calls

    async def _take(self) -> None:
        while self.alive:
            await asyncio.sleep(0.05)
            if self.stopping:
                continue
            found: dict[TopicPartition, list[ConsumerRecord]] = {}
            for place in self.group.tenures:
                if some := self.world.logs[place][self.positions[place] :][:2]:
                    found[place], self.positions[place] = some, self.positions[place] + len(some)
            for delivery in (*self.consumer._deliver_all(found), *self.consumer._take_ready(100)):
                self.world.background(self._serve(delivery))

    async def _serve(self, delivery: KafkaDelivery) -> None:
        """As the dispatcher does it."""
        call, world = UUID((delivery.record.key or b"").decode()), self.world
        if world.returns and world.random.random() < 0.2:  # there is no worker for it
            await asyncio.sleep(world.random.choice((0.0, 0.05)))
            if self.alive:
                await delivery.release()
            return
        claimed = await delivery.claim(call, None, repeatable=is_idempotent(call))
        if not claimed or not self.alive:
            return
        if self.stopping or (world.returns and call not in self.running and world.random.random() < 0.1):
            await delivery.release()
            return
        if call in self.running:
            self.running[call].append(delivery)
            return
        if delivery.attempt > 1 and not is_idempotent(call):
            await delivery.settle(Reply(call, b"lost"))
            return
        world.began[call] += 1
        self.running[call] = [delivery]
        await asyncio.sleep(world.random.choice((0.0, 0.1, 3.0, 30.0)))
        for each in self.running.pop(call) if self.alive else ():
            if self.stopping and is_idempotent(call):
                await each.release()
            else:
                await each.settle(Reply(call, b"result"))

    async def stop(self) -> None:
        """In order: what runs ends, and the last commit is made."""
        self.stopping = self.consumer._endings.stopping = True
        while self.running:
            await asyncio.sleep(0.1)
        await self.consumer._endings.flush()
        await self.group.close()
        self.alive = False

    def kill(self) -> None:
        self.alive = False
        self.group.committer._task.cancel()


class World:
    """The brokers, and what they do wrong."""

    def __init__(self, seed: int, harm: bool) -> None:
        self.random, self.harm = random.Random(seed), harm
        #: Whether calls are put back. Kafka gives up no member then before its session is over: nothing else fences a record.
        self.returns = not harm or seed % 2 == 1
        topics = (NAMES.calls, NAMES.raw_calls)
        self.logs: dict[TopicPartition, list[ConsumerRecord]] = {
            TopicPartition(topic, number): [] for topic in topics for number in range(PARTITIONS)
        }
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.servers: list[Server] = []
        self.members: dict[str, Server] = {}
        self.generation = 0
        self.trouble = False
        self.began: Counter[UUID] = Counter()
        self.calls: list[UUID] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def later(self, seconds: float, what: Any, *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, what, *arguments)

    def background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def cluster(self) -> World:
        return self

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))

    async def read(self, places: Iterable[TopicPartition]) -> Mapping[TopicPartition, OffsetAndMetadata]:
        await asyncio.sleep(self.random.choice((0.0, 0.1)))
        return {place: self.committed[place] for place in places if place in self.committed}

    async def read_records(self, *asked: Any) -> None:
        _, _, until, ends, _, see = asked
        for place in until:
            for record in self.logs[place][: ends[place]]:
                see(record)

    def call(self) -> None:
        key, place = UUID(int=len(self.calls)), TopicPartition(NAMES.calls, self.random.randrange(PARTITIONS))
        self.calls.append(key)
        self.append(place, str(key).encode(), ())

    def append(self, place: TopicPartition, key: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> None:
        log = self.logs[place]
        log.append(ConsumerRecord(place.topic, place.partition, len(log), 0, 0, key, b"", None, 0, 0, headers))

    # commits

    async def commit(self, kafka: Server, generation: int, member: str, offsets: Mapping[Any, Any]) -> None:
        """It arrives or not, and so does the answer; who gave up waiting does not hold it up. One connection keeps the order."""
        rng, loop = self.random, asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        kafka.arrival = max(
            kafka.arrival + INSTANT, loop.time() + rng.choice((0.0, 0.0, 0.05, 1.0, 5.0) if self.trouble else (0.0, 0.01))
        )
        fate = rng.choice(("refused", "unanswered", "unanswered", "answered") if self.trouble else ("answered",))
        if fate == "refused":
            self.later(rng.choice((0.0, 0.3)), _decide, answer, "away")
        else:
            loop.call_at(kafka.arrival, self._arrive, generation, member, dict(offsets), answer if fate == "answered" else None)
            if fate == "unanswered":
                self.later(rng.choice((0.0, 0.3, 5.0)), _decide, answer, "away")
        said = await answer
        if said != "done":
            raise (KafkaConnectionError if said == "away" else IllegalGenerationError)()

    def _arrive(self, generation: int, member: str, offsets: Any, answer: asyncio.Future[str] | None) -> None:
        taken = member in self.members and generation == self.generation
        if taken:
            self.committed.update(offsets)
        if answer is not None:
            _decide(answer, "done" if taken else "fenced")

    async def heartbeat(self, kafka: Server, generation: int, member: str) -> None:
        await asyncio.sleep(0.01)
        if self.trouble and self.random.random() < 0.5:
            raise KafkaConnectionError
        if member not in self.members or generation != self.generation:
            raise IllegalGenerationError

    # shares

    async def share_out(self) -> None:
        """All members that live give their partitions back, and get new ones."""
        there = {key: server for key, server in self.members.items() if server.alive}
        await asyncio.gather(*(self._revoke(server) for server in there.values()))
        self.members = {key: server for key, server in there.items() if server.alive}
        self.generation += 1
        if self.members:
            said = {key: server.group._assignor.metadata([NAMES.calls, NAMES.raw_calls]) for key, server in self.members.items()}
            leader: Any = self.random.choice(list(self.members.values()))
            shares = leader.group._assignor.assign(self, said)
            await asyncio.gather(*(self._assign(server, shares[key]) for key, server in self.members.items()))

    async def _revoke(self, server: Server) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.1, 0.5)))
        await server.group.on_partitions_revoked([])

    async def _assign(self, server: Server, share: Any) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.1)))
        server.group._assignor.on_assignment(share)
        server.generation = self.generation
        await server.group.on_partitions_assigned([TopicPartition(t, n) for t, numbers in share.assignment for n in numbers])

    # what happens

    async def join(self) -> None:
        server = Server(self, f"server{len(self.servers)}")
        self.servers.append(server)
        self.members[server.id] = server
        await self.share_out()

    async def give_up(self, server: Server) -> None:
        """Kafka does not hear of a member; it learns of that later, and comes back."""
        self.members.pop(server.id, None)
        if self.returns:
            await asyncio.sleep(SESSION)
        await self.share_out()
        await asyncio.sleep(self.random.choice((0.0, 1.0)))
        server.id += "+"
        self.members[server.id] = server
        await self.share_out()

    async def happen(self, harm: bool) -> None:
        alive, rng = [server for server in self.servers if server.alive], self.random
        self.trouble = rng.random() < 0.6
        what = rng.choice(("share", "join", "leave", "give up", "kill") if harm else ("share", "join", "leave"))
        if what == "join" and len(alive) < 4:
            await self.join()
        elif what == "leave" and len(alive) > 1:
            leaving = rng.choice(alive)
            self.trouble = False
            if not harm:  # who is gone before it is heard is a server that was lost
                await asyncio.sleep(LATEST_WORD)
            await leaving.stop()
            await self.share_out()
        elif what == "kill" and len(alive) > 1:
            rng.choice(alive).kill()
            await self.share_out()
        elif what == "give up":
            await self.give_up(rng.choice(alive))
        else:
            await self.share_out()

    async def until_ended(self) -> None:
        self.trouble = False
        await self.share_out()  # what another server runs is looked at anew
        until = asyncio.get_running_loop().time() + FOR_EVER
        while any((self.committed.get(p) or OffsetAndMetadata(0, "")).offset < len(log) for p, log in self.logs.items()):
            assert asyncio.get_running_loop().time() < until, "a call does not end"
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.task.cancel()


def is_idempotent(call: UUID) -> bool:
    return call.int % 4 == 0


def _decide(answer: asyncio.Future[str], said: str) -> None:
    if not answer.done():
        answer.set_result(said)


async def nothing(consumer: Any) -> None:
    """A member that leaves tells Kafka."""
    consumer.world.members.pop(consumer.id, None)


async def play(seed: int, monkeypatch: pytest.MonkeyPatch, *, harm: bool) -> World:
    """A story of one queue, from its first server to the last call's end."""
    world = World(seed, harm)
    monkeypatch.setattr(kafka_group, "commit_as", world.commit)
    monkeypatch.setattr(kafka_group, "heartbeat_as", world.heartbeat)
    monkeypatch.setattr(kafka_history, "read_records", world.read_records)
    monkeypatch.setattr(kafka_commit, "time", world)  # others remember words and ids, here as long as the story lasts
    monkeypatch.setattr(kafka_group, "stop_consumer", nothing)
    for _ in range(2):
        await world.join()
    for _ in range(8):
        for _ in range(world.random.choice((0, 1, 3, 20))):
            world.call()
        await asyncio.sleep(world.random.choice((0.0, 0.1, 0.3, 1.0, 5.0)))
        await world.happen(harm)
    await world.until_ended()
    await world.close()
    return world


def played(seed: int, monkeypatch: pytest.MonkeyPatch, *, harm: bool) -> World:
    with asyncio.Runner(loop_factory=PlayedTime) as runner:
        return runner.run(play(seed, monkeypatch, harm=harm))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_call_begins_twice_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = played(seed, monkeypatch, harm=True)
    assert all(count == 1 or is_idempotent(call) for call, count in world.began.items())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_where_no_server_is_lost_every_call_begins_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares and commits change as they may: nothing is answered as lost that did not begin."""
    world = played(seed, monkeypatch, harm=False)
    assert {call: 1 if is_idempotent(call) else count for call, count in world.began.items()} == Counter(world.calls)
