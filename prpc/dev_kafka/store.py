"""What the broker in memory holds, and what its answers have in common."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from prpc.dev_kafka.group import Group
from prpc.dev_kafka.topics import Topics

__all__ = ["NODE_ID", "Caller", "Options", "Store"]

#: The one broker of the cluster.
NODE_ID = 1
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the broker behaves; times are in seconds. Names in brackets are Kafka's own for the same."""

    #: Topics that a client asks for appear by themselves [auto.create.topics.enable].
    auto_create: bool = False
    #: Partitions of such topics, and of those created with -1 [num.partitions].
    default_partitions: int = 1
    #: Bytes that a partition keeps; the oldest batches go.
    max_partition_bytes: int = 64 * 1024 * 1024
    #: Shortest and longest session of a group's member [group.min.session.timeout.ms, group.max.session.timeout.ms].
    min_session: float = 0.1
    max_session: float = 1800.0
    #: How long the first rebalance of an empty group waits for more members [group.initial.rebalance.delay.ms].
    first_rebalance_delay: float = 0.0
    #: Longest metadata of an offset, in characters [offset.metadata.max.bytes].
    max_offset_metadata: int = 4096
    #: Name -> password: clients have to log in with SASL PLAIN. Empty: they must not.
    users: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Caller:
    """Who is at the other end of a connection."""

    host: str
    client_id: str = ""
    #: Who logged in.
    user: str | None = None


class Store:
    """Topics, groups and the address that clients are told. Lives on one loop's thread."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.loop = loop
        self.host = HOST
        self.port = 0
        self.topics = Topics(options.max_partition_bytes, options.default_partitions)
        self.groups: dict[str, Group] = {}
        self.producer_ids = itertools.count(1000)

    def now(self) -> int:
        """The broker's clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def group(self, name: str) -> Group:
        """The group of that name, new or old."""
        if name not in self.groups:
            self.groups[name] = Group(name, self.loop, self.options.first_rebalance_delay)
        return self.groups[name]

    def delete_topic(self, name: str) -> None:
        """The topic and what groups know about it. Raises Refused for an unknown one."""
        self.topics.delete(name)
        for group in self.groups.values():
            group.offsets = {key: value for key, value in group.offsets.items() if key[0] != name}
