"""Topics: created, grown, described, changed and deleted; and what of that is refused."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, UnknownTopicOrPartitionError
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.metadata import MetadataRequest

from prpc.dev_kafka import Code
from tests.kafka_talk import Kafka, admin, ask, has_leaders, new_topic, run, until

GIVEN, DEFAULT = 1, 5


async def create(kafka: Kafka, *topics: NewTopic, validate_only: bool = False) -> list[tuple[int, str]]:
    """Code and text for each."""
    async with admin(kafka) as manager:
        answer = await manager.create_topics(list(topics), validate_only=validate_only)
    return [(code, text or "") for _, code, text in answer.topic_errors]


def a_name() -> str:
    return f"test-{uuid.uuid4().hex}"


def test_a_topic_with_settings(kafka: Kafka) -> None:
    async def scenario() -> None:
        name = a_name()
        given = {"cleanup.policy": "compact,delete", "retention.ms": "60000", "message.timestamp.type": "LogAppendTime"}
        assert await create(kafka, NewTopic(name, 3, 1, topic_configs=given)) == [(0, "")]
        await until(lambda: has_leaders(kafka, name, 3))
        async with admin(kafka) as manager:
            assert name in await manager.list_topics()
            (topic,) = await manager.describe_topics([name])
            assert (topic["error_code"], topic["topic"], topic["is_internal"]) == (0, name, False)
            assert sorted(part["partition"] for part in topic["partitions"]) == [0, 1, 2]
            assert {part["leader"] for part in topic["partitions"]} == {1}
            cluster = await manager.describe_cluster()
            (broker,) = cluster["brokers"]
            assert (f"{broker['host']}:{broker['port']}", cluster["controller_id"]) == (kafka.bootstrap, 1)
        settings = await described(kafka, name)
        assert {key: settings[key] for key in given} == {key: (value, GIVEN) for key, value in given.items()}
        assert settings["max.message.bytes"] == ("1048588", DEFAULT)

    run(scenario())


async def described(kafka: Kafka, topic: str, configs: dict[str, None] | None = None) -> dict[str, tuple[str, int]]:
    """Setting -> value and source."""
    async with admin(kafka) as manager:
        (answer,) = await manager.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    ((code, _, _, name, entries),) = answer.resources
    assert (code, name) == (0, topic)
    return {key: (value, source) for key, value, _, source, *_ in entries}


def test_every_default_is_kafkas(kafka: Kafka) -> None:
    """The broker in memory is held to its own table by a real one's answer."""

    async def scenario() -> None:
        from prpc.dev_kafka.topics import DEFAULTS

        settings = await described(kafka, await new_topic(kafka))
        assert {key: value for key, (value, _) in settings.items()} == DEFAULTS
        assert (await described(kafka, await new_topic(kafka), {"retention.ms": None})).keys() == {"retention.ms"}

    run(scenario())


@pytest.mark.parametrize(
    ("topic", "code", "text"),
    [
        (NewTopic("not/a name", 1, 1), Code.INVALID_TOPIC, "nvalid"),
        (NewTopic("..", 1, 1), Code.INVALID_TOPIC, "nvalid"),
        (NewTopic("x" * 250, 1, 1), Code.INVALID_TOPIC, "nvalid"),
        (NewTopic("t", 0, 1), Code.INVALID_PARTITIONS, "artitions"),
        (NewTopic("t", 1, 0), Code.INVALID_REPLICATION_FACTOR, "eplication factor"),
        (NewTopic("t", 1, 3), Code.INVALID_REPLICATION_FACTOR, "only 1 broker(s) are registered"),
        (NewTopic("t", 1, 1, topic_configs={"no.such.setting": "1"}), Code.INVALID_CONFIG, "no.such.setting"),
        (NewTopic("t", 1, 1, topic_configs={"retention.ms": "long"}), Code.INVALID_CONFIG, "Not a number of type LONG"),
        (NewTopic("t", 1, 1, topic_configs={"max.message.bytes": "x"}), Code.INVALID_CONFIG, "Not a number of type INT"),
        (NewTopic("t", 1, 1, topic_configs={"message.timestamp.type": "x"}), Code.INVALID_CONFIG, "message.timestamp.type"),
        (NewTopic("t", 1, 1, topic_configs={"cleanup.policy": "x"}), Code.INVALID_CONFIG, "cleanup.policy"),
    ],
    ids=lambda value: value.name[:10] if isinstance(value, NewTopic) else None,
)
def test_a_topic_is_refused(kafka: Kafka, topic: NewTopic, code: Code, text: str) -> None:
    async def scenario() -> None:
        topic.name = a_name() if topic.name == "t" else topic.name
        ((got, said),) = await create(kafka, topic)
        assert (got, text in said) == (code, True), said

    run(scenario())


def test_a_name_is_taken_once(kafka: Kafka) -> None:
    async def scenario() -> None:
        name = f"{await new_topic(kafka)}.a_b"
        assert await create(kafka, NewTopic(name, 1, 1), validate_only=True) == [(0, "")]
        assert await create(kafka, NewTopic(name, 1, 1)) == [(0, "")]
        assert await create(kafka, NewTopic(name, 1, 1)) == [(Code.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")]
        alike = name.replace("_", ".")
        ((code, said),) = await create(kafka, NewTopic(alike, 1, 1))
        assert (code, said) == (Code.INVALID_TOPIC, f"Topic '{alike}' collides with existing topic: {name}")

    run(scenario())


def test_the_brokers_own_choice_and_the_clients(kafka: Kafka) -> None:
    async def scenario() -> None:
        chosen, assigned = a_name(), a_name()
        by_client = [(0, [1]), (1, [1])]
        topics = [(chosen, -1, -1, [], []), (assigned, -1, -1, by_client, []), (a_name(), 2, 1, by_client, [])]
        answer = await ask(kafka, CreateTopicsRequest(topics, 5000, False))
        assert [code for _, code, _ in answer.topic_errors] == [0, 0, Code.INVALID_REQUEST]
        await until(lambda: has_leaders(kafka, chosen, 1))
        await until(lambda: has_leaders(kafka, assigned, 2))

    run(scenario())


def test_partitions_only_grow(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, 2)
        async with admin(kafka) as manager:

            async def grow(name: str, count: int) -> Any:
                return await manager.create_partitions({name: NewPartitions(total_count=count)})

            await grow(topic, 4)
            await until(lambda: has_leaders(kafka, topic, 4))
            with pytest.raises(InvalidPartitionsError, match=r"already has 4 partition\(s\)"):
                await grow(topic, 4)
            with pytest.raises(InvalidPartitionsError, match="would not be an increase"):
                await grow(topic, 3)
            with pytest.raises(UnknownTopicOrPartitionError):
                await grow(a_name(), 3)

    run(scenario())


def test_settings_are_replaced(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka, configs={"retention.ms": "60000"})

        async def alter(name: str, configs: dict[str, str]) -> int:
            async with admin(kafka) as manager:
                (answer,) = await manager.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
            ((code, _, _, _),) = answer.resources
            return int(code)

        async def replaced() -> bool:
            settings = await described(kafka, topic)
            return (settings["retention.ms"], settings["segment.bytes"]) == (("604800000", DEFAULT), ("2000000", GIVEN))

        assert await alter(topic, {"segment.bytes": "2000000"}) == Code.NONE
        await until(replaced)
        assert await alter(topic, {"segment.bytes": "x"}) == await alter(topic, {"no.such": "1"}) == Code.INVALID_CONFIG
        assert await alter(a_name(), {"segment.bytes": "2000000"}) == Code.UNKNOWN_TOPIC_OR_PARTITION

    run(scenario())


def test_the_brokers_limits_can_be_asked_for(kafka: Kafka) -> None:
    async def scenario() -> None:
        async with admin(kafka) as manager:
            (answer,) = await manager.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
        ((code, _, _, name, entries),) = answer.resources
        values = {key: value for key, value, *_ in entries}
        assert (code, name) == (0, "1")
        assert (values["message.max.bytes"], values["offset.metadata.max.bytes"]) == ("1048588", "4096")
        assert values["auto.create.topics.enable"] == "false"

    run(scenario())


def test_a_deleted_topic_is_gone(kafka: Kafka) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with admin(kafka) as manager:
            answer = await manager.delete_topics([topic, a_name()])
            assert sorted(code for _, code in answer.topic_error_codes) == [0, Code.UNKNOWN_TOPIC_OR_PARTITION]

            async def gone() -> bool:
                return topic not in await manager.list_topics()

            await until(gone)
        assert await metadata_code(kafka, topic) == Code.UNKNOWN_TOPIC_OR_PARTITION
        assert await metadata_code(kafka, "not/a name") == Code.INVALID_TOPIC

    run(scenario())


async def metadata_code(kafka: Kafka, topic: str) -> int:
    ((code, _, _, _),) = (await ask(kafka, MetadataRequest([topic], False))).topics
    return int(code)
