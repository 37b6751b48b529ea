"""Calls over a real Kafka against a bare aiokafka echo in the same run. `python -m benchmarks.kafka`

Starts its own Kafka (Java 17 and the jars: `python -m prpc.dev_broker --kafka --fetch`), its own server and its own echo. Product
and floor take turns; what counts is the ratio. All of it twice: with Kafka's own settings, by which each commit is held back for
5 ms to gather more, and without that. Prints medians with their spread, and writes them as JSON with `--json FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.calls import QUEUE, ROOT, server
from benchmarks.kafka_echo import REPLIES, REQUESTS, EchoClient
from benchmarks.rig import latencies, rate
from prpc.app_client import AsyncClient
from prpc.dev_broker.kafka import KafkaCluster
from prpc.dev_broker.kafka_start import fetch_kafka

#: A setting of Kafka's brokers from 4.0 on: milliseconds for which the group coordinator gathers commits.
COMMIT_LINGER = "group.coordinator.append.linger.ms"
#: Name of a run, and the settings of its Kafka.
RUNS = {"commits held back 5 ms (default)": {COMMIT_LINGER: "5"}, "commits at once": {COMMIT_LINGER: "0"}}
#: About as long as the message of a small call.
BODY = b"x" * 200


@contextmanager
def echo(bootstrap: str) -> Iterator[None]:
    """The echo as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kafka_echo", bootstrap]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the echo did not start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def make_topics(bootstrap: str) -> None:
    """Those of the echo."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in (REQUESTS, REPLIES)])
    await admin.close()


async def measure(bootstrap: str, repeats: int) -> dict[str, Any]:
    """Everything, in one run."""
    async with AsyncClient("kafka", bootstrap, QUEUE) as client, EchoClient(bootstrap) as bare:
        while not await client.servers():
            await asyncio.sleep(0.05)

        async def add_async(i: int) -> None:
            assert await client.call("add_async", i, 1) == i + 1

        async def add_repeatable(i: int) -> None:
            assert await client.call("add_repeatable", i, 1) == i + 1

        async def bounce(i: int) -> None:
            await bare.call(BODY)

        for warm in (add_async, add_repeatable, bounce):
            await rate(warm, 1000, 64)
        rounds = []
        for _ in range(repeats):
            rounds.append(
                {
                    "echo_p50_ms": statistics.median(await latencies(bounce, 500)),
                    "call_p50_ms": statistics.median(await latencies(add_async, 500)),
                    "repeatable_p50_ms": statistics.median(await latencies(add_repeatable, 500)),
                    "echoes_per_s_256": await rate(bounce, 8000, 256),
                    "calls_per_s_256": await rate(add_async, 8000, 256),
                    "repeatable_per_s_256": await rate(add_repeatable, 8000, 256),
                }
            )
    median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    return {
        "median": median,
        "spread": {key: [min(r[key] for r in rounds), max(r[key] for r in rounds)] for key in rounds[0]},
        "ratios": {
            "call_p50 / echo_p50": median["call_p50_ms"] / median["echo_p50_ms"],
            "repeatable_p50 / echo_p50": median["repeatable_p50_ms"] / median["echo_p50_ms"],
            "calls_256 / echoes_256": median["calls_per_s_256"] / median["echoes_per_s_256"],
            "repeatable_256 / echoes_256": median["repeatable_per_s_256"] / median["echoes_per_s_256"],
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    report: dict[str, Any] = {"python": platform.python_version(), "aiokafka": version("aiokafka"), "cores": os.cpu_count()}
    for name, settings in RUNS.items():
        with KafkaCluster.start(fetch_kafka(), 1, options=settings) as kafka:
            asyncio.run(make_topics(kafka.url))
            with server(kafka.url, "kafka"), echo(kafka.url):
                report[name] = asyncio.run(measure(kafka.url, options.repeats))
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
