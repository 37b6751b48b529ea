"""Streams between processes, while clients, servers and the broker are killed, cut off, stopped and started again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from stream_programs import PATIENCE, Place, Program

from prpc.app_client import AsyncClient, Stream
from prpc.dev_broker import DevBroker, KafkaCluster
from prpc.exceptions import CallError, ServerShutdownError, WorkerLostError

pytestmark = pytest.mark.timeout(180)

BROKERS = (pytest.param("redis", marks=pytest.mark.real_redis), pytest.param("real_kafka", marks=pytest.mark.real_kafka))
#: Items of a stream that is interrupted.
MANY = 5000


@pytest.fixture(params=BROKERS)
def place(request: pytest.FixtureRequest, queue: str, clean_environment: None) -> Iterator[Place]:
    kafka = request.param == "real_kafka"
    url = request.getfixturevalue("kafka_bootstrap" if kafka else "redis_url")
    settings = {"PRPC_KAFKA_QUEUE_TOPIC_NUMBER_PARTITIONS": 2, "PRPC_KAFKA_FEEDBACK_TOPIC_NUMBER_PARTITIONS": 1} if kafka else {}
    made = Place("kafka" if kafka else "redis", url, queue, **settings)
    yield made
    made.close()


def redis_place(broker: DevBroker, queue: str, **settings: object) -> Place:
    return Place("redis", broker.url, queue, **settings)


@asynccontextmanager
async def client_of(place: Place, **more: Any) -> AsyncIterator[AsyncClient]:
    environment = place.environment
    client = AsyncClient(
        environment["PRPC_TYPE_BROKER"],
        environment["PRPC_URL_BROKER"],
        environment["PRPC_QUEUE_NAME"],
        stream_window=16,
        broker_silence=float(environment.get("PRPC_BROKER_SILENCE_SEC", 5)),
        kafka_feedback_partitions=int(environment.get("PRPC_KAFKA_FEEDBACK_TOPIC_NUMBER_PARTITIONS", 4)),
        **more,
    )
    async with client:
        yield client


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await work()

    asyncio.run(bounded())


async def read(stream: Stream[int], number: int) -> list[int]:
    return [await stream.async_next(PATIENCE) for _ in range(number)]


async def rest(stream: Stream[int]) -> tuple[list[int], Exception | None]:
    """What still comes, and what ended it."""
    found: list[int] = []
    try:
        async for item in stream:
            found.append(item)
    except Exception as exc:
        return found, exc
    return found, None


async def until(program: Program, said: str) -> None:
    await asyncio.to_thread(program.until, said)


async def one_that_said(said: str, programs: Iterable[Program]) -> Program:
    """Its items may be here before its output is."""
    while not (found := [program for program in programs if said in program.lines]):
        await asyncio.sleep(0.01)
    return found[0]


@pytest.mark.parametrize("kind", ["count", "acount", "total", "atotal"])
def test_a_client_that_is_killed_ends_the_function(place: Place, kind: str) -> None:
    """Within the time of silence that is allowed; nobody was left to say goodbye."""
    server, client = place.server(), place.client(kind, "t")
    server.until("begin t")
    client.until("begun" if kind.endswith("total") else "read 0")
    assert "end t" not in server.lines
    client.kill()
    server.until("end t")


@pytest.mark.parametrize("kind", ["count", "total"])
def test_a_client_that_ends_as_usual_ends_the_function(place: Place, kind: str) -> None:
    server = place.server(PRPC_STREAM_READER_TIMEOUT_SEC=3600)

    async def work() -> None:
        async def endless() -> AsyncIterator[int]:
            yield 1
            await asyncio.Event().wait()

        async with client_of(place) as client:
            held: Any = client.stream(kind, "t", MANY) if kind == "count" else client.call(kind, "t", endless())
            await until(server, "begin t")
        with pytest.raises(CallError, match="was closed before the call ended"):
            await (held if kind == "total" else read(held, MANY))

    run(work)
    server.until("end t")


@pytest.mark.parametrize("kind", ["count", "acount"])
def test_a_server_that_is_killed_ends_a_stream_after_the_items_that_came(place: Place, kind: str) -> None:
    async def work() -> None:
        server = await asyncio.to_thread(place.server)
        async with client_of(place) as client:
            stream = client.stream(kind, "t", MANY)
            assert await read(stream, 50) == list(range(50))
            server.kill()
            await asyncio.to_thread(place.server)
            found, error = await rest(stream)
            assert found == list(range(50, 50 + len(found)))
            assert isinstance(error, WorkerLostError), error
            assert await client.call("add", 1, 2) == 3

    run(work)


@pytest.mark.parametrize("kind", ["again", "aagain"])
def test_an_idempotent_stream_goes_on_at_another_server(place: Place, kind: str) -> None:
    async def work() -> None:
        servers = [await asyncio.to_thread(place.server) for _ in range(2)]
        async with client_of(place) as client:
            stream = client.options(idempotent=True).stream(kind, "t", MANY)
            assert await read(stream, 50) == list(range(50))
            first = await one_that_said("begin t", servers)
            first.kill()
            found, error = await rest(stream)
            assert (found, error) == (list(range(50, MANY)), None)

    run(work)


@pytest.mark.parametrize("kind", ["again", "aagain"])
def test_a_server_that_wakes_up_after_it_lost_a_stream_is_told_to_stop(place: Place, kind: str) -> None:
    async def work() -> None:
        servers = [await asyncio.to_thread(place.server) for _ in range(2)]
        async with client_of(place) as client:
            stream = client.options(idempotent=True).stream(kind, "t", 10**9)
            assert await read(stream, 50) == list(range(50))
            first = await one_that_said("begin t", servers)
            (second,) = (server for server in servers if server is not first)
            first.kill(signal.SIGSTOP)
            await until(second, "begin t")
            assert await read(stream, 200) == list(range(50, 250))
            first.kill(signal.SIGCONT)
            await until(first, "end t")
            assert await read(stream, 200) == list(range(250, 450))

    run(work)


def test_a_killed_server_ends_a_call_that_sends_a_stream(place: Place) -> None:
    async def work() -> None:
        server = await asyncio.to_thread(place.server)
        started, ended = asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncIterator[int]:
            started.set()
            try:
                number = 0
                while True:
                    yield number
                    number += 1
                    await asyncio.sleep(0)
            finally:
                ended.set()

        async with client_of(place) as client:
            task = client.call("total", "t", endless())
            await started.wait()
            server.kill()
            await asyncio.to_thread(place.server)
            with pytest.raises(WorkerLostError):
                await task
            await ended.wait()
            assert await client.call("atotal", "u", range(1000)) == [1000, sum(range(1000))]

    run(work)


def test_a_server_that_stops_lets_streams_end_within_its_grace_time(place: Place) -> None:
    async def work() -> None:
        server = await asyncio.to_thread(place.server, PRPC_SHUTDOWN_GRACE_SEC=60)
        async with client_of(place) as client:
            stream, task = client.stream("count", "t", 1000), client.call("total", "u", range(1000))
            assert await read(stream, 50) == list(range(50))
            server.kill(signal.SIGTERM)
            assert await rest(stream) == (list(range(50, 1000)), None)
            assert await task == [1000, sum(range(1000))]
            assert await asyncio.to_thread(server.wait) == 0

    run(work)


@pytest.mark.parametrize("kind", ["count", "acount"])
def test_a_server_that_stops_ends_streams_after_its_grace_time(place: Place, kind: str) -> None:
    async def work() -> None:
        server = await asyncio.to_thread(place.server, PRPC_SHUTDOWN_GRACE_SEC=0.5)
        async with client_of(place) as client:
            stream = client.stream(kind, "t", 10**9)
            assert await read(stream, 50) == list(range(50))
            server.kill(signal.SIGTERM)
            found, error = await rest(stream)
            assert found == list(range(50, 50 + len(found)))
            assert isinstance(error, ServerShutdownError), error
            await until(server, "end t")
            assert await asyncio.to_thread(server.wait) == 0

    run(work)


@pytest.mark.parametrize("kind", ["again", "aagain"])
def test_an_idempotent_stream_of_a_server_that_stops_goes_on_at_another(place: Place, kind: str) -> None:
    async def work() -> None:
        first = await asyncio.to_thread(place.server, PRPC_SHUTDOWN_GRACE_SEC=0)
        async with client_of(place) as client:
            stream = client.options(idempotent=True).stream(kind, "t", MANY)
            assert await read(stream, 50) == list(range(50))
            second = await asyncio.to_thread(place.server)
            first.kill(signal.SIGTERM)
            assert await rest(stream) == (list(range(50, MANY)), None)
            assert "end t" in second.lines
            assert await asyncio.to_thread(first.wait) == 0

    run(work)


def test_a_paused_server_goes_on(place: Place) -> None:
    """For less time than its lease lasts, and longer than a client may be silent."""

    async def work() -> None:
        server = await asyncio.to_thread(place.server, PRPC_REDIS_RECOVER_INTERVAL_SEC=30)
        async with client_of(place) as client:
            stream, task = client.stream("count", "t", MANY), client.call("atotal", "u", range(MANY))
            assert await read(stream, 50) == list(range(50))
            server.kill(signal.SIGSTOP)
            await asyncio.sleep(3.5)  # the pause itself
            server.kill(signal.SIGCONT)
            assert await rest(stream) == (list(range(50, MANY)), None)
            assert await task == [MANY, sum(range(MANY))]

    run(work)


# Redis alone.


@pytest.mark.real_redis
@pytest.mark.parametrize("kind", ["count", "acount"])
def test_connections_that_are_cut_lose_nothing(private_redis: Callable[..., DevBroker], queue: str, kind: str) -> None:
    """Every connection of everybody, again and again."""
    broker = private_redis()
    place = redis_place(broker, queue)

    async def work() -> None:
        await asyncio.to_thread(place.server)
        with redis.Redis.from_url(broker.url) as admin:

            def cut() -> None:
                for client_kind in ("normal", "pubsub"):
                    admin.client_kill_filter(_type=client_kind, skipme=True)

            async with client_of(place) as client:
                stream = client.stream(kind, "t", MANY)
                task = client.call("total" if kind == "count" else "atotal", "u", range(MANY))
                found: list[int] = []
                async for item in stream:
                    found.append(item)
                    if len(found) % 1000 == 500:
                        await asyncio.to_thread(cut)
                assert found == list(range(MANY))
                assert await task == [MANY, sum(range(MANY))]

    try:
        run(work)
    finally:
        place.close()


@pytest.mark.real_redis
@pytest.mark.parametrize("silence", [1, 60], ids=["connections count as dead", "connections wait"])
def test_a_redis_that_stands_still_ends_no_stream(private_redis: Callable[..., DevBroker], queue: str, silence: int) -> None:
    """For longer than a client may be silent: nobody's silence counts meanwhile."""
    broker = private_redis()
    place = redis_place(broker, queue, PRPC_BROKER_SILENCE_SEC=silence, PRPC_REDIS_RECOVER_INTERVAL_SEC=60)

    async def work() -> None:
        server = await asyncio.to_thread(place.server)
        async with client_of(place) as client:
            stream, task = client.stream("count", "t", MANY), client.call("atotal", "u", range(MANY))
            assert await read(stream, 50) == list(range(50))
            broker.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(7)  # the pause itself
            broker.process.send_signal(signal.SIGCONT)
            assert await rest(stream) == (list(range(50, MANY)), None)
            assert await task == [MANY, sum(range(MANY))]
            assert "end t" in server.lines

    try:
        run(work)
    finally:
        place.close()


@pytest.mark.real_redis
def test_a_redis_that_starts_again_ends_no_stream(private_redis: Callable[..., DevBroker], queue: str) -> None:
    """It forgot everything; both ends did not."""
    broker = private_redis()
    place = redis_place(broker, queue, PRPC_REDIS_RECOVER_INTERVAL_SEC=60)

    async def work() -> None:
        await asyncio.to_thread(place.server)
        async with client_of(place) as client:
            stream, task = client.stream("count", "t", MANY), client.call("atotal", "u", range(MANY))
            assert await read(stream, 50) == list(range(50))
            await asyncio.to_thread(broker.close)
            await asyncio.to_thread(private_redis, port=broker.port)
            assert await rest(stream) == (list(range(50, MANY)), None)
            assert await task == [MANY, sum(range(MANY))]

    try:
        run(work)
    finally:
        place.close()


# Kafka alone.


@pytest.mark.real_kafka
@pytest.mark.timeout(300)
def test_a_kafka_that_starts_again_ends_no_stream(private_kafka: Callable[..., KafkaCluster], queue: str) -> None:
    cluster = private_kafka()
    place = Place(
        "kafka",
        cluster.url,
        queue,
        PRPC_KAFKA_QUEUE_TOPIC_NUMBER_PARTITIONS=1,
        PRPC_KAFKA_FEEDBACK_TOPIC_NUMBER_PARTITIONS=1,
        PRPC_REDIS_RECOVER_INTERVAL_SEC=60,
    )

    async def work() -> None:
        await asyncio.to_thread(place.server)
        async with client_of(place) as client:
            stream, task = client.stream("count", "t", MANY), client.call("atotal", "u", range(MANY))
            assert await read(stream, 50) == list(range(50))
            await asyncio.to_thread(cluster.nodes[0].kill)
            await asyncio.to_thread(cluster.nodes[0].start)
            await asyncio.to_thread(cluster.wait_ready)
            assert await rest(stream) == (list(range(50, MANY)), None)
            assert await task == [MANY, sum(range(MANY))]

    try:
        run(work)
    finally:
        place.close()
