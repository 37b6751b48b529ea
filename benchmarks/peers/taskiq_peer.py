"""Taskiq with a list of Redis; results are looked for five times a second, or every 5 ms where it is `tuned`."""

import asyncio
import json
import os

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.rig import given, measure

URL, TUNED = os.environ["BENCH_URL"], os.environ["BENCH_VARIANT"] == "tuned"
broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))


@broker.task(task_name="add")
async def add(a: int, b: int) -> int:
    return a + b


async def main():
    await broker.startup()

    async def call(a, b):
        task = await add.kiq(a, b)
        result = await task.wait_result(check_interval=0.005 if TUNED else 0.2, timeout=60)
        assert not result.is_err, result.error
        return result.return_value

    _, meter, counts = given()
    print(json.dumps(await measure(call, counts, meter)))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
