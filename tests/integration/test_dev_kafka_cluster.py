"""A real Kafka whose nodes are killed, stopped and started again, that asks for a password, or that does not start."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from prpc.dev_broker import KafkaCluster
from prpc.dev_kafka import FakeKafka
from prpc.exceptions import BrokerUnavailableError
from tests.kafka_talk import Kafka, admin, consumer, producer, run


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def works(broker: Kafka, topic: str, *, before: int = 0) -> None:
    """A record more is written, and all are read."""
    async with producer(broker) as out, consumer(broker, topic) as back:
        await out.send_and_wait(topic, b"%d" % before)
        assert [(await back.getone()).value for _ in range(before + 1)] == [b"%d" % number for number in range(before + 1)]


@pytest.mark.chaos  # a JVM for each of three nodes
@pytest.mark.real_kafka
def test_a_node_that_is_killed_is_missed_by_nobody(private_kafka: Callable[..., KafkaCluster]) -> None:
    async def scenario(cluster: KafkaCluster) -> None:
        every, others = Kafka(cluster.url), Kafka(cluster.url.partition(",")[2])
        async with admin(every) as manager:
            created = await manager.create_topics([NewTopic("t", 1, 3, topic_configs={"min.insync.replicas": "2"})])
            assert created.topic_errors[0][1] == 0
        await works(every, "t")
        cluster.nodes[0].kill()
        assert cluster.process.returncode == -signal.SIGKILL
        await works(others, "t", before=1)

    run(scenario(private_kafka(3)))


@pytest.mark.real_kafka
def test_users_log_in_and_records_outlive_a_stop(private_kafka: Callable[..., KafkaCluster]) -> None:
    cluster = private_kafka(users={"alice": "secret"}, options={"message.max.bytes": "2000000"})

    async def scenario(before: int) -> None:
        if not before:
            await logs_in(cluster.url)
            async with admin(Kafka(cluster.url), **login("alice", "secret")) as manager:
                await manager.create_topics([NewTopic("t", 1, 1)])
        async with producer(Kafka(cluster.url), **login("alice", "secret")) as out:
            assert (await out.send_and_wait("t", b"x")).offset == before

    run(scenario(0))
    node = cluster.nodes[0]
    node.stop()
    assert node.process.returncode == 128 + signal.SIGTERM
    assert not node.running and not listens(cluster.port)
    node.start()
    node.start()
    cluster.wait_ready()
    run(scenario(1))
    folder = node.log.parent
    cluster.close()
    assert not folder.exists() and not node.running


def login(name: str, password: str) -> dict[str, str]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": name,
        "sasl_plain_password": password,
    }


async def logs_in(url: str) -> None:
    """Alice may, with her password; nobody else, and nobody without."""
    for wrong in (login("alice", "wrong"), login("mallory", "secret"), {}, login("a", "b") | {"sasl_mechanism": "SCRAM-SHA-256"}):
        with pytest.raises(KafkaError):
            async with producer(Kafka(url), request_timeout_ms=2000, **wrong):
                pass
    async with producer(Kafka(url), **login("alice", "secret")):
        pass


def test_users_log_in_to_the_one_in_memory() -> None:
    with FakeKafka(users={"alice": "secret"}) as fake:
        run(logs_in(fake.bootstrap_servers))


def test_nobody_logs_in_where_nobody_has_to(fake_kafka: FakeKafka) -> None:
    async def scenario() -> None:
        with pytest.raises(KafkaError):
            async with producer(Kafka(fake_kafka.bootstrap_servers), **login("alice", "secret")):
                pass

    run(scenario())


@pytest.mark.real_kafka
def test_a_node_that_does_not_start_shows_its_log(private_kafka: Callable[..., KafkaCluster]) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"(?s)node 1 ended by itself; the end of its log:.*num\.partitions"):
        private_kafka(options={"num.partitions": "many"})
