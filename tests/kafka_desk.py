"""One real Kafka for all workers of pytest-xdist: the controller starts it when the first of them asks, and ends it at the end.

A worker may end, crash or never ask: that changes nothing, since nobody counts. The JVM dies with the controller.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping

from prpc.dev_broker import KafkaCluster, KafkaKit, find_kafka
from prpc.dev_broker.kafka_start import start_real_kafka
from prpc.exceptions import ConfigurationError

#: Seconds that a worker waits: Maven may have to fetch the jars.
PATIENCE = 600
#: Seconds that the controller waits for a Kafka that has just begun to start.
CLOSING_PATIENCE = 20


class NoKafka(Exception):
    """This machine cannot have a real Kafka; the text says why."""


def kafka_kit(environ: Mapping[str, str]) -> KafkaKit:
    """What a real Kafka is started with, its jars fetched. Raises NoKafka."""
    kit = find_kafka(environ)
    if kit is None:
        raise NoKafka("no real Kafka: it needs Java 17, and its jars or Maven to fetch them")
    try:
        kit.fetch(print)
    except ConfigurationError as exc:
        raise NoKafka(str(exc)) from exc
    return kit


class Desk:
    """In the controller: answers every connection with the address of the one Kafka, or why there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._kafka: KafkaCluster | None = None
        self._answer: dict[str, str] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # It lasts as long as the process, unless the Kafka ended before.
        self._thread = threading.Thread(target=self._serve, name="kafka-desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the Kafka, if there was one, and the desk."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(b"end\n")
        # Someone who interrupts a download does not wait for its end; the JVM dies with this process anyway.
        self._thread.join(CLOSING_PATIENCE)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rw") as lines:
                word = lines.readline().strip()
                if word == "end":
                    if self._kafka is not None:
                        self._kafka.close()
                    return
                if word == "kafka":
                    self._answer = self._answer or self._start()
                    lines.write(json.dumps(self._answer) + "\n")

    def _start(self) -> dict[str, str]:
        try:
            self._kafka = start_real_kafka(kafka_kit(self._environ), say=print, lasting_thread=True)
        except NoKafka as exc:
            return {"missing": str(exc)}
        except Exception as exc:
            return {"error": repr(exc)}
        return {"url": self._kafka.url}


def ask_desk(port: int) -> str:
    """In a worker: the Kafka's address. Raises NoKafka, or RuntimeError where it did not start."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection, connection.makefile("rw") as lines:
        lines.write("kafka\n")
        lines.flush()
        answer = json.loads(lines.readline())
    if "missing" in answer:
        raise NoKafka(answer["missing"])
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return str(answer["url"])
