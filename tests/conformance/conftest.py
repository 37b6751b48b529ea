"""The back door to the broker under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from broker_harness import HARNESSES, PATIENCE, Harness, KafkaHarness, RedisHarness, SimHarness, SimSite

import prpc.brokers
from prpc.settings import Settings
from tests.conftest import BROKER_KINDS
from tests.sim.broker import SimBroker
from tests.sim.kafka_store import KafkaStore
from tests.sim.network import Network
from tests.sim.store import Store

#: Short, so that a lost lease is taken over within a test; long enough for a busy machine to renew it.
HEARTBEAT, RECOVER = 0.2, 0.6


#: The brokers of the simulation, which must do what the real ones do.
SIM_KINDS = ("sim_redis", "sim_kafka")


@pytest.fixture(params=(*BROKER_KINDS, *SIM_KINDS))
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once for every kind of broker."""
    return str(request.param)


@pytest.fixture
def sim_site(broker_kind: str, monkeypatch: pytest.MonkeyPatch) -> SimSite:
    """A simulated broker of the test's own, on ordinary loops."""
    made = (KafkaStore if broker_kind == "sim_kafka" else Store)(time.monotonic)
    site = SimSite(made, Network(), time.time() - time.monotonic())
    monkeypatch.setattr(prpc.brokers, "adapter_of", lambda _: lambda settings: SimBroker(settings, site))
    return site


@pytest.fixture
def sim_url(sim_site: SimSite) -> str:
    """Where nobody is: the settings are such as those of the broker that is simulated."""
    return "127.0.0.1:1" if isinstance(sim_site.store, KafkaStore) else "redis://127.0.0.1:1"


@pytest.fixture
def settings(broker_kind: str, settings_for: Callable[..., Settings]) -> Settings:
    if broker_kind in ("kafka", "real_kafka"):  # brokers keep no member that promises a shorter time
        return settings_for(
            broker_kind, redis_heartbeat=0.5, redis_recover=2.0, kafka_queue_partitions=4, connect_timeout=PATIENCE / 2
        )
    # A member of a simulated group is given up by whoever asks first after its time, and its sign of life may be next.
    recover = 2 * RECOVER if broker_kind == "sim_kafka" else RECOVER
    return settings_for(broker_kind, redis_heartbeat=HEARTBEAT, redis_recover=recover)


@pytest.fixture
def harness(broker_kind: str, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Harness]:
    if broker_kind in SIM_KINDS:
        yield SimHarness(settings, request.getfixturevalue("sim_site"))
        return
    made = HARNESSES[broker_kind](settings)
    yield made
    if isinstance(made, RedisHarness):
        for key in made.client.scan_iter(f"prpc_*{settings.queue_name}*"):
            made.client.delete(key)
        made.client.close()
    elif isinstance(made, KafkaHarness):
        made.close()
