"""Celery over Redis, with results in Redis, which it tells by pub/sub."""

import json
import os

from celery import Celery

from benchmarks.rig import given, measure_handles

URL = os.environ["BENCH_URL"]
app = Celery("peer", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, result_expires=600, worker_prefetch_multiplier=64)


@app.task(name="add")
def add(a, b):
    return a + b


if __name__ == "__main__":
    _, meter, counts = given()
    print(json.dumps(measure_handles(add.delay, lambda result: result.get(timeout=60), counts, meter)))
