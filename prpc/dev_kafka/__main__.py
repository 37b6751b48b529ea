"""`python -m prpc.dev_kafka --port N`: the broker in memory as a program, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from prpc.dev_kafka.fake import FakeKafka


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; prints `host:port` when it listens."""
    parser = argparse.ArgumentParser(prog="python -m prpc.dev_kafka", description="A Kafka broker in memory.")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1; 0 finds a free one")
    parser.add_argument("--auto-create", action="store_true", help="topics appear when they are asked for")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with FakeKafka(options.port, auto_create=options.auto_create) as kafka:
        sys.stdout.write(kafka.bootstrap_servers + "\n")
        sys.stdout.flush()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
