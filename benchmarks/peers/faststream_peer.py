"""FastStream's request over Redis Streams: a subscription of its own for each request."""

import asyncio
import json
import os

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

from benchmarks.rig import given, measure

# redis-py raises where a pool of 100 connections is used up, which is its default.
broker = RedisBroker(os.environ["BENCH_URL"], logger=None, max_connections=1024)
app = FastStream(broker)


@broker.subscriber(stream=StreamSub("bench", group="g", consumer="c", max_records=100))
async def add(a: int, b: int) -> int:
    return a + b


async def main():
    client = RedisBroker(os.environ["BENCH_URL"], logger=None, max_connections=1024)
    await client.connect()

    async def call(a, b):
        answer = await client.request({"a": a, "b": b}, timeout=60, stream="bench")
        return await answer.decode()

    _, meter, counts = given()
    print(json.dumps(await measure(call, counts, meter)))


if __name__ == "__main__":
    asyncio.run(main())
