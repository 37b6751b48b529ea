"""A Kafka broker in memory, in pure Python, for development and tests. Needs `pip install "prpc[kafka]"`.

    with FakeKafka() as kafka:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

`python -m prpc.dev_kafka --port N` is the same as a program. What it does not have: docs/decisions/0008-dev-broker.md.
"""

from __future__ import annotations

from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.fake import FakeKafka
from prpc.dev_kafka.faults import Seen
from prpc.dev_kafka.store import Options

__all__ = ["Code", "FakeKafka", "Options", "Refused", "Seen"]
