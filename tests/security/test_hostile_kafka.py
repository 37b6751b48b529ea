"""Whatever stands in Kafka's topics, good calls between it are answered: records that no client of ours would write."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition

import prpc
from prpc import AppServer, AsyncClient
from prpc.dev_kafka import FakeKafka
from prpc.names import QueueNames

QUEUE = "hostile"
NAMES = QueueNames(QUEUE)
#: What a busy machine holds up is not what is asked here.
PATIENT: dict[str, Any] = {"redis_heartbeat": 0.5, "redis_recover": 10.0, "connect_timeout": 20.0}
Headers = list[tuple[str, bytes | None]]

CALL = json.dumps({"func_name": "double", "func_args": [1], "func_kwargs": {}, "message_id": str(uuid.UUID(int=7))}).encode()
#: Headers that the adapter itself writes, and those that callers do.
KNOWN = ("prpc_sent_ms", "prpc_born_ms", "prpc_crashes", "prpc_requeued", "prpc_continues", "prpc_to", "prpc_kind")
FACTS = ("reply_to", "timeout_ms", "schema", "headers", "attempt", "signature", "own")
ODD: Sequence[bytes | None] = (
    None,
    b"",
    b"\xff\xfe",
    b"-1",
    b"9" * 400,
    b"0:",
    b"3:" + b"x" * 300,
    b"99999:nobody",
    b"word",
    b"nan",
    b"{" * 200,
    str(uuid.UUID(int=7)).encode(),
)


def headers(rng: random.Random) -> Headers:
    return [(rng.choice(KNOWN + FACTS + ("", "\u00e4", "x" * 300)), rng.choice(ODD)) for _ in range(rng.randrange(6))]


def word(rng: random.Random) -> bytes:
    """What one server might say to others, with something wrong."""
    place: Any = rng.choice([[NAMES.calls, 0, 5], [NAMES.calls, "x", 5], [None, 0, 2**70], [], 7, {"a": 1}, [NAMES.calls, 0]])
    said = {
        "member": rng.choice(["x", "", None, 7, ["a"]]),
        "ended": [place],
        "unstarted": [place],
        "round": rng.choice([0, "x", 9]),
    }
    said["holds"] = rng.choice([None, [place], {}, 1])
    if rng.random() < 0.5:
        asked: Any = rng.choice([str(uuid.UUID(int=7)), str(uuid.UUID(int=rng.getrandbits(128))), "no id", None, 7])
        address = rng.choice(["0:nobody", "", "99999:nobody", "0:" + "x" * 300, "0:\ud800", None, [1]])
        said |= {"member": "x", "ended": [], "unstarted": [], "holds": None, "round": 0}  # else it cannot be read anyway
        said["asks"] = rng.choice([[asked, address], [asked], [[asked, address]], {}, 7])
    return json.dumps(said)[: rng.choice([10, 10_000])].encode()


def announcement(rng: random.Random) -> bytes:
    return json.dumps(rng.choice([{}, [], {"ttl": "x"}, {"functions": 7, "ttl": 60}, "x", {"a": 10**400}])).encode()


async def produce(address: str, rng: random.Random, count: int) -> None:
    """Hostile records in every topic of the queue."""
    async with AIOKafkaProducer(bootstrap_servers=address) as producer:
        for _ in range(count):
            topic = rng.choice([NAMES.calls, NAMES.raw_calls, NAMES.feedback_topic, NAMES.control, NAMES.servers, NAMES.dead])
            value = rng.choice([*ODD, CALL, b"[" * 500, b'{"py/object": "os.system"}', word(rng), announcement(rng)])
            if topic in (NAMES.calls, NAMES.raw_calls) and value == CALL:
                value = CALL.replace(str(uuid.UUID(int=7)).encode(), str(uuid.UUID(int=rng.getrandbits(128))).encode())
            kind: Headers = [("prpc_kind", b"word")] if topic == NAMES.control and rng.random() < 0.7 else []
            key = rng.choice(ODD)
            if key is None and (value is None or topic == NAMES.dead):  # neither the driver nor the topic takes it
                key = b""
            await producer.send(topic, value, key=key, headers=[*kind, *headers(rng)])
        await producer.flush()


async def serve(address: str, rounds: Callable[[AsyncClient], Any]) -> None:
    app = AppServer("kafka", address, "async", 8, name_queue=QUEUE, **PATIENT)

    @app.function()
    async def double(x: int) -> int:
        return 2 * x

    task = asyncio.create_task(app.serve())
    await app.ready
    async with AsyncClient("kafka", address, QUEUE, **PATIENT) as client:
        await rounds(client)
    await app.stop()
    await task


@pytest.mark.parametrize("seed", range(4))
def test_good_calls_between_hostile_records_are_answered(fake_kafka: FakeKafka, seed: int) -> None:
    address, rng = fake_kafka.bootstrap_servers, random.Random(seed)

    async def rounds(client: AsyncClient) -> None:
        for number in range(5):
            hostile = asyncio.create_task(produce(address, rng, 100))
            calls = [client.call("double", k) for k in range(20)]
            assert await prpc.gather(*calls) == [2 * k for k in range(20)], number
            await hostile
        assert await client.call("double", 4) == 8
        assert [record.info["draining"] for record in await client.servers() if "draining" in record.info] == [False]

    asyncio.run(asyncio.wait_for(serve(address, rounds), 60))


@pytest.mark.parametrize(
    "metadata", ["", "x", "1:a:####", "1:" + "a," * 500 + ":AA==", "2::", "1::" + "A" * 3000, "1:a://///////w=="]
)
def test_metadata_that_another_program_committed_says_nothing(fake_kafka: FakeKafka, metadata: str) -> None:
    address = fake_kafka.bootstrap_servers

    async def nothing(client: AsyncClient) -> None:
        assert await client.call("double", 1) == 2

    async def again(client: AsyncClient) -> None:
        assert await prpc.gather(*(client.call("double", k) for k in range(50))) == [2 * k for k in range(50)]

    async def scenario() -> None:
        await serve(address, nothing)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=address, group_id=NAMES.group("prpc_group_consumers"), enable_auto_commit=False
        )
        await consumer.start()
        places = [TopicPartition(NAMES.calls, number) for number in range(4)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.commit({place: OffsetAndMetadata(ends[place], metadata) for place in places})
        await consumer.stop()
        await serve(address, again)

    asyncio.run(asyncio.wait_for(scenario(), 60))
