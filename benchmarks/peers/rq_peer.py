"""RQ, whose default worker forks for each job, and its SimpleWorker, which does not."""

import json
import os

import redis
from rq import Queue

from benchmarks.peers.rq_job import add
from benchmarks.rig import given, measure_handles


def get(job):
    result = job.latest_result(timeout=60)
    assert result is not None
    return result.return_value


if __name__ == "__main__":
    queue = Queue("bench", connection=redis.Redis.from_url(os.environ["BENCH_URL"]))
    _, meter, counts = given()
    print(json.dumps(measure_handles(lambda a, b: queue.enqueue(add, a, b), get, counts, meter)))
