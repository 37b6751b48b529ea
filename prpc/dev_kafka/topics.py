"""Topics with their settings: what CreateTopics, CreatePartitions and AlterConfigs do and refuse. No I/O.

Names, defaults and texts are those of Apache Kafka 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.partition import Partition

__all__ = ["DEFAULTS", "Topic", "Topics"]

#: Every setting of a topic and its default.
DEFAULTS: dict[str, str] = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": "86400000",
    "file.delete.delay.ms": "60000",
    "flush.messages": "9223372036854775807",
    "flush.ms": "9223372036854775807",
    "follower.replication.throttled.replicas": "",
    "index.interval.bytes": "4096",
    "leader.replication.throttled.replicas": "",
    "local.retention.bytes": "-2",
    "local.retention.ms": "-2",
    "max.compaction.lag.ms": "9223372036854775807",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "remote.log.copy.disable": "false",
    "remote.log.delete.on.disable": "false",
    "remote.storage.enable": "false",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.index.bytes": "10485760",
    "segment.jitter.ms": "0",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
#: Settings with a few allowed values; `cleanup.policy` is a list of them.
CHOICES = {
    "cleanup.policy": ("compact", "delete"),
    "message.timestamp.type": ("CreateTime", "LogAppendTime"),
    "compression.type": ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
}
#: Settings that Kafka keeps as an INT; the other whole numbers are LONG.
INTEGERS = {"max.message.bytes", "min.insync.replicas", *(name for name in DEFAULTS if name.endswith(".level"))}

NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_name(name: str) -> None:
    """Raises Refused for a name that Kafka does not take."""
    if name in (".", "..") or not NAME.fullmatch(name):
        raise Refused(Code.INVALID_TOPIC, f"Topic name is invalid: {name!r}")


def check_configs(configs: Mapping[str, str]) -> None:
    """Raises Refused for an unknown setting or a value that it does not take."""
    for name, value in configs.items():
        default = DEFAULTS.get(name)
        if default is None:
            raise Refused(Code.INVALID_CONFIG, f"Unknown topic config name: {name}")
        wrong = f"Invalid value {value} for configuration {name}"
        if name in CHOICES:
            given = value.split(",") if name == "cleanup.policy" else [value]
            if not set(given) <= set(CHOICES[name]):
                raise Refused(Code.INVALID_CONFIG, f"{wrong}: String must be one of: {', '.join(CHOICES[name])}")
        elif re.fullmatch(r"-?\d+", default) and not re.fullmatch(r"[+-]?\d+", value.strip()):
            kind = "INT" if name in INTEGERS else "LONG"
            raise Refused(Code.INVALID_CONFIG, f"{wrong}: Not a number of type {kind}")


@dataclass(slots=True, eq=False)
class Topic:
    """A topic; `configs` are only the settings that were given."""

    name: str
    partitions: list[Partition]
    configs: dict[str, str] = field(default_factory=dict)

    def setting(self, name: str) -> str:
        """The value that holds, given or default."""
        return self.configs.get(name, DEFAULTS[name])


class Topics:
    """All topics of the broker."""

    def __init__(self, max_partition_bytes: int, default_partitions: int) -> None:
        self._topics: dict[str, Topic] = {}
        self._max_bytes = max_partition_bytes
        self._default_partitions = default_partitions

    def names(self) -> list[str]:
        return sorted(self._topics)

    def topic(self, name: str) -> Topic:
        """Raises Refused for an unknown one."""
        try:
            return self._topics[name]
        except KeyError:
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.") from None

    def partition(self, name: str, index: int) -> Partition:
        """Raises Refused for an unknown one."""
        partitions = self.topic(name).partitions
        if not 0 <= index < len(partitions):
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
        return partitions[index]

    def create(
        self,
        name: str,
        partitions: int = -1,
        replication: int = -1,
        configs: Mapping[str, str] | None = None,
        *,
        assignment: Sequence[tuple[int, Sequence[int]]] = (),
        validate_only: bool = False,
    ) -> None:
        """A new topic; -1 partitions are the default number. Raises Refused as CreateTopics does."""
        check_name(name)
        self._check_free(name)
        if assignment:
            if partitions != -1 or replication != -1:
                raise Refused(Code.INVALID_REQUEST, "Both numPartitions or replicationFactor and replicasAssignments were given")
            partitions = len(assignment)
        if partitions == 0 or partitions < -1:
            raise Refused(Code.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
        if replication == 0 or replication < -1:
            raise Refused(Code.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0, or -1 to use the default.")
        if replication > 1:
            text = f"The target replication factor of {replication} cannot be reached because only 1 broker(s) are registered."
            raise Refused(Code.INVALID_REPLICATION_FACTOR, f"Unable to replicate the partition {replication} time(s): {text}")
        check_configs(configs or {})
        if not validate_only:
            topic = self._topics[name] = Topic(name, [], dict(configs or {}))
            self._add(topic, partitions if partitions > 0 else self._default_partitions)

    def grow(self, name: str, count: int, *, validate_only: bool = False) -> None:
        """More partitions for a topic. Raises Refused as CreatePartitions does."""
        topic = self.topic(name)
        have = len(topic.partitions)
        if count == have:
            raise Refused(Code.INVALID_PARTITIONS, f"Topic already has {have} partition(s).")
        if count < have:
            text = f"The topic {name} currently has {have} partition(s); {count} would not be an increase."
            raise Refused(Code.INVALID_PARTITIONS, text)
        if not validate_only:
            self._add(topic, count - have)

    def delete(self, name: str) -> None:
        """Raises Refused for an unknown one."""
        topic = self.topic(name)
        del self._topics[name]
        for partition in topic.partitions:
            partition.close()

    def _check_free(self, name: str) -> None:
        if name in self._topics:
            raise Refused(Code.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        # Kafka's metrics write a dot as an underscore, so that it keeps such names apart.
        alike = next((other for other in self._topics if other.replace(".", "_") == name.replace(".", "_")), None)
        if alike is not None:
            raise Refused(Code.INVALID_TOPIC, f"Topic '{name}' collides with existing topic: {alike}")

    def _add(self, topic: Topic, count: int) -> None:
        topic.partitions.extend(Partition(self._max_bytes) for _ in range(count))
