"""The back door to the broker under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from broker_harness import HARNESSES, PATIENCE, Harness, KafkaHarness, RedisHarness

from prpc.settings import Settings

#: Short, so that a lost lease is taken over within a test; long enough for a busy machine to renew it.
HEARTBEAT, RECOVER = 0.2, 0.6


@pytest.fixture
def settings(broker_kind: str, settings_for: Callable[..., Settings]) -> Settings:
    if "kafka" in broker_kind:  # brokers keep no member that promises a shorter time
        return settings_for(
            broker_kind, redis_heartbeat=0.5, redis_recover=2.0, kafka_queue_partitions=4, connect_timeout=PATIENCE / 2
        )
    return settings_for(broker_kind, redis_heartbeat=HEARTBEAT, redis_recover=RECOVER)


@pytest.fixture
def harness(broker_kind: str, settings: Settings) -> Iterator[Harness]:
    made = HARNESSES[broker_kind](settings)
    yield made
    if isinstance(made, RedisHarness):
        for key in made.client.scan_iter(f"prpc_*{settings.queue_name}*"):
            made.client.delete(key)
        made.client.close()
    elif isinstance(made, KafkaHarness):
        made.close()
