"""Dramatiq over Redis, with its Redis backend of results."""

import json
import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

from benchmarks.rig import given, measure_handles

URL = os.environ["BENCH_URL"]
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def add(a, b):
    return a + b


if __name__ == "__main__":
    _, meter, counts = given()
    print(json.dumps(measure_handles(add.send, lambda sent: sent.get_result(block=True, timeout=60_000), counts, meter)))
