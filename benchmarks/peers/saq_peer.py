"""SAQ: by default 10 jobs at once, and results that are looked for twice a second; `tuned` has 100, and looks every 5 ms."""

import asyncio
import json
import os

from saq import Queue

from benchmarks.rig import given, measure

TUNED = os.environ["BENCH_VARIANT"] == "tuned"
queue = Queue.from_url(os.environ["BENCH_URL"], name="bench")


async def add(ctx, *, a, b):
    return a + b


settings = {"queue": queue, "functions": [add], "concurrency": 100 if TUNED else 10}


async def main():
    await queue.connect()

    async def call(a, b):
        return await queue.apply("add", a=a, b=b, poll_interval=0.005 if TUNED else 0.5)

    _, meter, counts = given()
    print(json.dumps(await measure(call, counts, meter)))


if __name__ == "__main__":
    asyncio.run(main())
