"""The command: start, say where, and serve until a signal comes."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from prpc.dev_broker.children import DevBroker
from prpc.dev_broker.kafka import KafkaCluster
from prpc.dev_broker.kafka_start import fetch_kafka, start_dev_kafka
from prpc.dev_broker.redis import start_dev_broker
from prpc.exceptions import BrokerUnavailableError, ConfigurationError

__all__ = ["main"]

#: Ports of the command; 6379 and 9092 belong to an installed Redis and Kafka.
DEFAULT_PORT = 6399
DEFAULT_KAFKA_PORT = 9192


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints lines `PRPC_TYPE_BROKER=...` and `PRPC_URL_BROKER=...` and runs until SIGINT or SIGTERM."""
    options = _options(arguments)
    try:
        if options.fetch:
            _say(f"Ready: {fetch_kafka(say=_say).kind}")
            return 0
        return _serve(options.kafka, options.port)
    except (ConfigurationError, BrokerUnavailableError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1


def _serve(kafka: bool, port: int) -> int:
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _start(kafka, port) as broker:
            _say(f"Dev broker: {broker.kind}; it keeps nothing on disk and ends with Ctrl+C.")
            _say(f"PRPC_TYPE_BROKER={broker.type_broker}\nPRPC_URL_BROKER={broker.url}")
            while not ended.wait(0.5):
                if broker.process.poll() is not None:
                    sys.stderr.write(f"error: the server ended by itself with exit code {broker.process.returncode}\n")
                    return 1
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prpc.dev_broker", description="A local Redis or Kafka for development.")
    parser.add_argument("--kafka", action="store_true", help="a Kafka instead of a Redis")
    parser.add_argument("--fetch", action="store_true", help="with --kafka: fetch what a real one needs, and end")
    ports = f"{DEFAULT_PORT}, with --kafka {DEFAULT_KAFKA_PORT}"
    parser.add_argument("--port", type=_port, help=f"port of 127.0.0.1; 0 finds a free one (default: {ports})")
    options = parser.parse_args(arguments)
    if options.fetch and not options.kafka:
        parser.error("--fetch goes with --kafka")
    if options.port is None:
        options.port = DEFAULT_KAFKA_PORT if options.kafka else DEFAULT_PORT
    return options


def _start(kafka: bool, port: int) -> DevBroker | KafkaCluster:
    return start_dev_kafka(port, say=_say) if kafka else start_dev_broker(port)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port
