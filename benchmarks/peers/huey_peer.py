"""Huey, whose results wake those who wait where `notify_result` is set; else they are looked for."""

import json
import os

from huey import RedisHuey

from benchmarks.rig import given, measure_handles

huey = RedisHuey("bench", url=os.environ["BENCH_URL"], notify_result=os.environ["BENCH_VARIANT"] == "notify")


@huey.task()
def add(a, b):
    return a + b


if __name__ == "__main__":
    from benchmarks.peers import huey_peer  # tasks are named after their module

    _, meter, counts = given()
    print(json.dumps(measure_handles(huey_peer.add, lambda result: result.get(blocking=True, timeout=60), counts, meter)))
