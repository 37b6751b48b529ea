"""The Kafka of this machine for development: a real one where it can be had, else PRPC's own in memory."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from prpc.dev_broker.children import DevBroker, check_free, free_port, last_words, spawn
from prpc.dev_broker.java import KafkaKit, find_kafka
from prpc.dev_broker.kafka import KafkaCluster, prepare
from prpc.exceptions import BrokerUnavailableError, ConfigurationError

__all__ = ["fetch_kafka", "start_dev_kafka", "start_memory_kafka", "start_real_kafka"]

#: Seconds within which the broker in memory must listen.
START_PATIENCE = 20.0


def _silent(text: str) -> None:
    """Nobody wants to know."""


#: Why there is no real Kafka.
NEEDS = "a real Kafka needs Java 17, and its jars or Maven (mvn) to fetch them"


def fetch_kafka(*, say: Callable[[str], None] = _silent) -> KafkaKit:
    """Fetch and prepare what a real Kafka needs, where that has not been done yet.

    Raises ConfigurationError where this machine cannot have one, BrokerUnavailableError where it does not start.
    """
    kit = find_kafka()
    if kit is None:
        raise ConfigurationError(NEEDS, variable="PATH")
    kit.fetch(say)
    prepare(kit, say)
    return kit


def start_dev_kafka(port: int = 0, *, say: Callable[[str], None] = _silent) -> KafkaCluster | DevBroker:
    """Start a Kafka on `port` of 127.0.0.1 (0: a free one) and return when it serves; it keeps nothing, and dies with us.

    `say` is told in a line each what takes long, that jars are fetched, and why there is no real Kafka. Raises ConfigurationError
    when the port is taken or aiokafka is missing, BrokerUnavailableError when the broker does not start.
    """
    if find_spec("aiokafka") is None:
        raise ConfigurationError('aiokafka is missing: `pip install "prpc[kafka]"`', variable="--kafka")
    kit = find_kafka()
    if kit is None:
        say(f"Not the real one: {NEEDS}.")
        return start_memory_kafka(port)
    if not kit.fetched:
        try:
            kit.fetch(say)
        except ConfigurationError as exc:
            say(f"Not the real one: {exc}")
            return start_memory_kafka(port)
    return start_real_kafka(kit, port, say=say)


def start_real_kafka(
    kit: KafkaKit, port: int = 0, *, say: Callable[[str], None] = _silent, lasting_thread: bool = False
) -> KafkaCluster:
    """A real Kafka of one node, its jars fetched and prepared before. Arguments and errors as for KafkaCluster.start."""
    if port:
        check_free(port)
    kit.fetch(say)
    prepare(kit, say)
    return KafkaCluster.start(kit, port=port, lasting_thread=lasting_thread)


def start_memory_kafka(port: int = 0) -> DevBroker:
    """PRPC's own Kafka in memory, as a program of its own."""
    if port:
        check_free(port)
    port = port or free_port()
    directory = tempfile.TemporaryDirectory(prefix="prpc-dev-broker-", ignore_cleanup_errors=True)
    log = Path(directory.name) / "log"
    process = spawn([sys.executable, "-m", "prpc.dev_kafka", "--port", str(port)], log)
    kind = "PRPC's Kafka in memory (no real one: for trying things out only)"
    broker = DevBroker(kind, f"127.0.0.1:{port}", port, process, directory, type_broker="kafka")
    until = time.monotonic() + START_PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return broker
        time.sleep(0.01)
    words = " | ".join(last_words(log, 3)) or "(none)"
    broker.close()
    raise BrokerUnavailableError(f"{kind} did not start on port {port}; its last words: {words}", url=broker.url)
