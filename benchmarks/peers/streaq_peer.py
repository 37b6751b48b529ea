"""streaQ, over Redis Streams. Its pool must hold a connection for each result that is waited for."""

import asyncio
import json
import os

from streaq import Worker

from benchmarks.rig import given, measure

worker = Worker(redis_url=os.environ["BENCH_URL"], queue_name="bench", concurrency=100, redis_kwargs={"max_connections": 1024})


@worker.task(silent=True)
async def add(a: int, b: int) -> int:
    return a + b


async def main():
    from benchmarks.peers import streaq_peer  # tasks are named after their module

    async with streaq_peer.worker:

        async def call(a, b):
            task = await streaq_peer.add.enqueue(a, b)
            return (await task.result(60)).result

        _, meter, counts = given()
        print(json.dumps(await measure(call, counts, meter)))


if __name__ == "__main__":
    asyncio.run(main())
