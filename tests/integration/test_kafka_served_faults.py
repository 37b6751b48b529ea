"""Faults of a Kafka, one by one: calls before and after succeed, and nothing that is not idempotent runs twice."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from prpc import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers.base import Outgoing
from prpc.brokers.kafka import KafkaBroker
from prpc.brokers.kafka_marks import read_marks
from prpc.dev_kafka import Code, FakeKafka
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.server.dispatcher import Dispatcher
from prpc.settings import Settings
from tests.kafka_talk import run

QUEUE = "q"
NAMES = QueueNames(QUEUE)
PARTITIONS = 2
NOT_LEADER, NOT_COORDINATOR, LOADING = 6, 16, 14
#: Commits of an idle server in a time in which its lease runs out.
OF_A_LEASE = 11
TOPICS = (NAMES.calls, NAMES.feedback_topic, NAMES.control, NAMES.servers)


class World:
    """One server and one client; how often each call ran is counted in its function."""

    def __init__(self, kafka: FakeKafka) -> None:
        self.kafka = kafka
        self.ran: Counter[int] = Counter()
        #: Calls wait for it before they end.
        self.gate = asyncio.Event()
        self.gate.set()
        self._made = 0
        self.settings: dict[str, Any] = {
            "name_queue": QUEUE,
            "redis_heartbeat": 0.2,
            "redis_recover": 2.0,
            "connect_timeout": 5.0,
            "kafka_feedback_partitions": 1,
        }

    def server(self) -> AppServer:
        kinds = {"kafka_queue_partitions": PARTITIONS, "health_window": 2.0}
        app = AppServer("kafka", self.kafka.bootstrap_servers, "async", 8, **kinds, **self.settings)

        @app.decorator_reg_func
        async def work(number: int) -> int:
            self.ran[number] += 1
            await self.gate.wait()
            return number

        app.register_func(work, name="harmless", idempotent=True)
        return app

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[AsyncClient]:
        app = self.server()
        task = asyncio.create_task(app.serve())
        try:
            await app.ready
            async with AsyncClient("kafka", self.kafka.bootstrap_servers, **self.settings) as client:
                yield client.options(timeout=20)
        finally:
            await app.stop(grace=5)
            await task

    def second_deliveries(self) -> int:
        """Calls that were handed out twice, as far as it is written down."""
        committed = self.kafka.committed(NAMES.group("prpc_group_consumers")).values()
        return sum(mark.attempts == 2 for offset, text in committed for mark in read_marks(offset, text).open.values())

    async def begin(self, client: AsyncClient, function: str = "work") -> asyncio.Future[Any]:
        """A call that runs from now on and ends when the gate opens."""
        self.gate.clear()
        number, self._made = self._made, self._made + 1
        call = asyncio.ensure_future(client.call(function, number))
        while not self.ran[number]:
            await asyncio.sleep(0.01)
        return call

    async def succeeds(self, client: AsyncClient, count: int = 20) -> None:
        """So many calls at once have their results, and each ran once."""
        numbers = range(self._made, self._made + count)
        self._made += count
        results = await asyncio.gather(*(client.call("work", number) for number in numbers))
        assert results == list(numbers)
        assert self.ran == Counter(range(self._made))


@pytest.fixture
def world(fake_kafka: FakeKafka) -> World:
    return World(fake_kafka)


def through(world: World, harm: Callable[[FakeKafka], Awaitable[None] | None], *, times: int = 2) -> None:
    """Calls before and after."""

    async def scenario() -> None:
        async with world.serving() as client:
            await world.succeeds(client)
            for _ in range(times):
                if (done := harm(world.kafka)) is not None:
                    await done
                await world.succeeds(client)

    run(scenario())


@pytest.mark.parametrize("topic", TOPICS)
def test_a_lost_acknowledgement_doubles_nothing(world: World, topic: str) -> None:
    through(world, lambda kafka: kafka.lose_reply("Produce", topic=topic))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_record_that_is_refused_is_sent_again(world: World, topic: str) -> None:
    through(world, lambda kafka: kafka.fail("Produce", NOT_LEADER, topic=topic, times=2))


@pytest.mark.parametrize("api", ["Produce", "Fetch", "OffsetCommit", "Heartbeat", "Metadata"])
def test_requests_that_are_cut_off_are_made_again(world: World, api: str) -> None:
    through(world, lambda kafka: kafka.refuse(api, times=2))


@pytest.mark.parametrize("api", ["Fetch", "OffsetCommit", "Heartbeat"])
def test_an_answer_that_is_lost_is_asked_for_again(world: World, api: str) -> None:
    through(world, lambda kafka: kafka.lose_reply(api, times=2))


@pytest.mark.parametrize("code", [NOT_COORDINATOR, LOADING, Code.REBALANCE_IN_PROGRESS])
def test_a_commit_that_is_refused_for_a_while_is_made_again(world: World, code: int) -> None:
    through(world, lambda kafka: kafka.fail("OffsetCommit", code, times=3))


@pytest.mark.parametrize("code", [Code.UNKNOWN_MEMBER_ID, Code.ILLEGAL_GENERATION])
def test_a_server_that_is_given_up_comes_back(world: World, code: int) -> None:
    through(world, lambda kafka: kafka.fail("Heartbeat", code))


def test_connections_are_made_again(world: World) -> None:
    through(world, FakeKafka.drop_connections)


def test_an_outage_is_ridden_out(world: World) -> None:
    def outage(kafka: FakeKafka) -> None:
        kafka.down()
        asyncio.get_running_loop().call_later(0.5, kafka.up)

    through(world, outage)


def test_a_log_that_lost_its_beginning_is_read_on(world: World) -> None:
    def cut(kafka: FakeKafka) -> None:
        for number in range(PARTITIONS):
            kafka.delete_before(NAMES.calls, number, -1)
        kafka.delete_before(NAMES.feedback_topic, 0, -1)

    through(world, cut)


@pytest.mark.parametrize("topic", [NAMES.calls, NAMES.feedback_topic])
def test_a_log_that_lost_its_end_is_read_on(world: World, topic: str) -> None:
    """Once its reader has noticed: what is written before it does stands where it has been."""

    async def cut(kafka: FakeKafka) -> None:
        for number in range(PARTITIONS if topic == NAMES.calls else 1):
            kafka.forget_requests()
            kafka.truncate(topic, number, 1)
            await asyncio.to_thread(kafka.wait_for, "ListOffsets")

    through(world, cut)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_that_was_deleted_is_made_again(world: World, topic: str) -> None:
    async def delete(kafka: FakeKafka) -> None:
        kafka.delete_topic(topic)
        while topic not in kafka.topics():
            await asyncio.sleep(0.02)

    through(world, delete, times=1)


def test_with_a_bound_every_call_fails_in_time_when_kafka_is_silent(world: World) -> None:
    """Before their own deadlines, for none waits until others have looked in vain."""

    async def scenario() -> None:
        settings = {**world.settings, "connect_timeout": 1.0, "max_queue_length": 1000}
        async with world.serving(), AsyncClient("kafka", world.kafka.bootstrap_servers, **settings) as client:
            patient = client.options(timeout=20)
            await patient.servers()  # it is connected, and has not looked how long the queue is
            world.kafka.delay("Metadata", 100, times=1000)
            outcomes = await asyncio.gather(*(patient.call("work", n) for n in range(50)), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {BrokerUnavailableError}
            world.kafka.clear_faults()
            world.kafka.drop_connections()
            await world.succeeds(patient)

    run(scenario())


def test_an_outcome_outlives_a_coordinator_that_is_away(world: World) -> None:
    async def scenario() -> None:
        async with world.serving() as client:
            await world.succeeds(client)
            call = await world.begin(client)
            world.kafka.fail("OffsetCommit", LOADING, times=1000)
            world.kafka.forget_requests()
            await asyncio.to_thread(world.kafka.wait_for, "OffsetCommit", times=OF_A_LEASE)
            world.gate.set()
            await asyncio.to_thread(world.kafka.wait_for, "OffsetCommit", times=OF_A_LEASE + 2)
            assert not call.done()
            world.kafka.clear_faults()
            await call
            await world.succeeds(client)

    run(scenario())


def test_a_call_whose_end_is_not_committed_does_not_run_again_when_its_partition_comes_back(world: World) -> None:
    async def scenario() -> None:
        async with world.serving() as client:
            await world.succeeds(client)
            call = await world.begin(client)
            world.kafka.fail("OffsetCommit", LOADING, times=1000)
            world.gate.set()
            await call
            for _ in range(3):
                world.kafka.forget_requests()
                world.kafka.fail("Heartbeat", Code.REBALANCE_IN_PROGRESS)
                await asyncio.to_thread(world.kafka.wait_for, "SyncGroup")
            world.kafka.clear_faults()
            await world.succeeds(client)

    run(scenario())


def test_a_take_that_is_cancelled_as_its_records_come_loses_none(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        broker = KafkaBroker(Settings(type_broker="kafka", url_broker=fake_kafka.bootstrap_servers, queue_name=QUEUE))
        await broker.connect()
        await broker.declare(QUEUE)
        consumer = broker.consume(QUEUE, consumer="one")
        await consumer.open()
        kafka = consumer._group.kafka
        get_many = kafka.getmany

        async def get_and_cancel(**wanted: Any) -> Any:
            found = await get_many(**wanted)
            if found:
                taking.cancel()
            return found

        kafka.getmany = get_and_cancel
        taking = asyncio.create_task(consumer.take(1))
        await broker.publish(QUEUE, Outgoing(uuid.uuid4(), b"call", {}))
        with pytest.raises(asyncio.CancelledError):
            await taking
        kafka.getmany = get_many
        (delivery,) = await consumer.take(1)
        assert delivery.body == b"call"
        await consumer.close()
        await broker.close()

    run(scenario())


def test_a_call_that_runs_while_its_server_is_given_up_is_answered_by_it(world: World) -> None:
    """The lease is lost, and the call comes back to the very server that runs it: once, and with its outcome."""

    async def scenario() -> None:
        async with world.serving() as client:
            calls = [await world.begin(client) for _ in range(4)]
            world.kafka.fail("Heartbeat", Code.UNKNOWN_MEMBER_ID)
            while world.second_deliveries() < len(calls):
                await asyncio.sleep(0.01)
            await asyncio.gather(*(client.ping() for _ in range(20)))  # what was handed out before them has come, too
            world.gate.set()
            assert await asyncio.gather(*calls) == [0, 1, 2, 3]
            assert world.ran == Counter(range(4))
            await world.succeeds(client)

    run(scenario())


def test_a_call_that_comes_back_to_the_server_that_runs_it_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may run twice starts before its start is committed, and so comes back as a first attempt."""
    came_back, joined = asyncio.Event(), Dispatcher._joined

    def notice(self: Dispatcher, run: Any) -> bool:
        if joined(self, run):
            came_back.set()
            return True
        return False

    monkeypatch.setattr(Dispatcher, "_joined", notice)

    async def scenario() -> None:
        async with world.serving() as client:
            await world.succeeds(client)
            world.kafka.forget_requests()
            world.kafka.fail("OffsetCommit", LOADING, times=1000)
            call = await world.begin(client, "harmless")
            world.kafka.fail("Heartbeat", Code.UNKNOWN_MEMBER_ID)
            await asyncio.to_thread(world.kafka.wait_for, "SyncGroup")
            world.kafka.clear_faults()
            await came_back.wait()
            world.gate.set()
            assert await call == 20
            assert world.ran[20] == 1

    run(scenario())


def test_a_start_whose_commit_is_in_doubt_is_no_lost_call(world: World) -> None:
    """Kafka has the commit, this server does not know it and starts nothing; then its membership is given up."""

    async def scenario() -> None:
        async with world.serving() as client:
            await world.succeeds(client)
            world.gate.set()
            world.kafka.forget_requests()
            world.kafka.lose_reply("OffsetCommit")
            world.kafka.fail("OffsetCommit", LOADING, times=1000)
            call = client.call("work", 1000)
            await asyncio.to_thread(world.kafka.wait_for, "OffsetCommit", times=3)
            world.kafka.fail("Heartbeat", Code.UNKNOWN_MEMBER_ID)
            await asyncio.to_thread(world.kafka.wait_for, "SyncGroup")
            world.kafka.clear_faults()
            assert await call == 1000
            assert world.ran[1000] == 1

    run(scenario())
