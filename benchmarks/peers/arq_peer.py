"""arq. Its defaults look for work, and for results, twice a second; `tuned` looks every 5 ms and runs 256 jobs at once."""

import asyncio
import json
import os
from urllib.parse import urlsplit

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.rig import given, measure

TUNED = os.environ["BENCH_VARIANT"] == "tuned"
PARTS = urlsplit(os.environ["BENCH_URL"])


async def add(ctx, a, b):
    return a + b


class WorkerSettings:
    functions = (add,)
    redis_settings = RedisSettings(host=PARTS.hostname, port=PARTS.port)
    poll_delay = 0.005 if TUNED else 0.5
    max_jobs = 256 if TUNED else 10


async def main():
    pool = await create_pool(WorkerSettings.redis_settings)

    async def call(a, b):
        job = await pool.enqueue_job("add", a, b)
        return await job.result(timeout=60, poll_delay=WorkerSettings.poll_delay)

    _, meter, counts = given()
    print(json.dumps(await measure(call, counts, meter)))


if __name__ == "__main__":
    asyncio.run(main())
