"""The table of requests: for each its version, its answer, and how it is refused as a whole.

One version each, the highest that aiokafka 0.14 speaks, which is also what it takes with a real broker. aiokafka's structs do the
encoding in both directions, so that what is checked against this broker is behaviour, not bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol import admin, commit, coordination, fetch, group, metadata, offset, produce, transaction

from prpc.dev_kafka import admin_api, data_api, group_api, login
from prpc.dev_kafka.store import Caller, Store

__all__ = ["APIS", "NAMES", "Api", "topics_of"]

Answer = tuple[Any, ...]
Handler = Callable[[Store, Any, Caller], Awaitable[Answer | None]]


@dataclass(frozen=True, slots=True)
class Api:
    """One kind of request."""

    #: Kafka's name of it.
    name: str
    request: Any
    response: Any
    handle: Handler
    #: The answer that gives every item of a request this error code.
    refuse: Callable[[Any, int], Answer]

    @property
    def key(self) -> int:
        return int(self.request.API_KEY)

    @property
    def version(self) -> int:
        return int(self.request.API_VERSION)


def topics_of(request: Any) -> set[str]:
    """The topics that a request names."""
    named = getattr(request, "topics", None) or getattr(request, "create_topic_requests", None) or ()
    return {item if isinstance(item, str) else item[0] for item in named}


def _each(request: Any, *rest: Any) -> list[Any]:
    """Rows of (topic, [(partition, ...)]) that say the same of all partitions of a request."""
    return [(topic, [(item[0], *rest) for item in partitions]) for topic, partitions in request.topics]


def _names(request: Any, code: int) -> list[Any]:
    return [(item[0], code, None) for item in request.create_topic_requests]


def _offsets(request: Any, code: int) -> Answer:
    asked = request.topics or []
    return 0, [(topic, [(index, -1, "", code) for index in indexes]) for topic, indexes in asked], code


def _records(request: Any, code: int) -> Answer:
    topics: list[Any] = [
        (topic, [(index, -1, code, {}) for index, *_ in partitions], {}) for topic, partitions, _ in request.topics
    ]
    return 0, topics, {}


def _metadata(request: Any, code: int) -> Answer:
    return 0, [], "prpc-dev-kafka", -1, [(code, topic, False, []) for topic in request.topics or []]


async def _versions(store: Store, request: Any, caller: Caller) -> Answer:
    return 0, [(api.key, api.version, api.version) for api in APIS.values()]


_TABLE = (
    Api("ApiVersions", admin.ApiVersionRequest_v0, admin.ApiVersionResponse_v0, _versions, lambda request, code: (code, [])),
    Api(
        "SaslHandshake",
        admin.SaslHandShakeRequest_v1,
        admin.SaslHandShakeResponse_v1,
        login.shake_hands,
        lambda request, code: (code, []),
    ),
    Api(
        "SaslAuthenticate",
        admin.SaslAuthenticateRequest_v1,
        admin.SaslAuthenticateResponse_v1,
        login.authenticate,
        lambda request, code: (code, None, b"", 0),
    ),
    Api(
        "Produce",
        produce.ProduceRequest_v7,
        produce.ProduceResponse_v7,
        data_api.produce,
        lambda request, code: (_each(request, code, -1, -1, -1), 0),
    ),
    Api(
        "Fetch",
        fetch.FetchRequest_v11,
        fetch.FetchResponse_v11,
        data_api.fetch,
        lambda request, code: (0, 0, 0, _each(request, code, -1, -1, -1, None, -1, b"")),
    ),
    Api(
        "ListOffsets",
        offset.OffsetRequest_v3,
        offset.OffsetResponse_v3,
        data_api.list_offsets,
        lambda request, code: (0, _each(request, code, -1, -1)),
    ),
    Api("Metadata", metadata.MetadataRequest_v5, metadata.MetadataResponse_v5, data_api.metadata, _metadata),
    Api(
        "InitProducerId",
        transaction.InitProducerIdRequest_v0,
        transaction.InitProducerIdResponse_v0,
        data_api.init_producer_id,
        lambda request, code: (0, code, -1, -1),
    ),
    Api(
        "FindCoordinator",
        coordination.FindCoordinatorRequest_v1,
        coordination.FindCoordinatorResponse_v1,
        group_api.find_coordinator,
        lambda request, code: (0, code, None, -1, "", -1),
    ),
    Api(
        "JoinGroup",
        group.JoinGroupRequest_v5,
        group.JoinGroupResponse_v5,
        group_api.join_group,
        lambda request, code: (0, code, -1, "", "", request.member_id, []),
    ),
    Api(
        "SyncGroup",
        group.SyncGroupRequest_v3,
        group.SyncGroupResponse_v3,
        group_api.sync_group,
        lambda request, code: (0, code, b""),
    ),
    Api(
        "Heartbeat",
        group.HeartbeatRequest_v1,
        group.HeartbeatResponse_v1,
        group_api.heartbeat,
        lambda request, code: (0, code),
    ),
    Api(
        "LeaveGroup",
        group.LeaveGroupRequest_v1,
        group.LeaveGroupResponse_v1,
        group_api.leave_group,
        lambda request, code: (0, code),
    ),
    Api(
        "OffsetCommit",
        commit.OffsetCommitRequest_v3,
        commit.OffsetCommitResponse_v3,
        group_api.commit_offsets,
        lambda request, code: (0, _each(request, code)),
    ),
    Api("OffsetFetch", commit.OffsetFetchRequest_v3, commit.OffsetFetchResponse_v3, group_api.fetch_offsets, _offsets),
    Api(
        "ListGroups",
        admin.ListGroupsRequest_v1,
        admin.ListGroupsResponse_v1,
        group_api.list_groups,
        lambda request, code: (0, code, []),
    ),
    Api(
        "DescribeGroups",
        admin.DescribeGroupsRequest_v3,
        # aiokafka's own pair for version 3 leaves the last field out; a broker sends it.
        admin.DescribeGroupsResponse_v3,
        group_api.describe_groups,
        lambda request, code: (0, [(code, name, "", "", "", [], group_api.NO_OPERATIONS) for name in request.groups]),
    ),
    Api(
        "CreateTopics",
        admin.CreateTopicsRequest_v3,
        admin.CreateTopicsResponse_v3,
        admin_api.create_topics,
        lambda request, code: (0, _names(request, code)),
    ),
    Api(
        "DeleteTopics",
        admin.DeleteTopicsRequest_v3,
        admin.DeleteTopicsResponse_v3,
        admin_api.delete_topics,
        lambda request, code: (0, [(name, code) for name in request.topics]),
    ),
    Api(
        "CreatePartitions",
        admin.CreatePartitionsRequest_v1,
        admin.CreatePartitionsResponse_v1,
        admin_api.create_partitions,
        lambda request, code: (0, [(name, code, None) for name, _ in request.topic_partitions]),
    ),
    Api("DeleteRecords", admin.DeleteRecordsRequest_v2, admin.DeleteRecordsResponse_v2, admin_api.delete_records, _records),
    Api(
        "DescribeConfigs",
        admin.DescribeConfigsRequest_v2,
        admin.DescribeConfigsResponse_v2,
        admin_api.describe_configs,
        lambda request, code: (0, [(code, None, kind, name, []) for kind, name, _ in request.resources]),
    ),
    Api(
        "AlterConfigs",
        admin.AlterConfigsRequest_v1,
        admin.AlterConfigsResponse_v1,
        admin_api.alter_configs,
        lambda request, code: (0, [(code, None, kind, name) for kind, name, _ in request.resources]),
    ),
)

#: Key -> request.
APIS: dict[int, Api] = {api.key: api for api in _TABLE}
#: The names that faults and the journal use.
NAMES = frozenset(api.name for api in _TABLE)
