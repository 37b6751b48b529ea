"""Groups and their offsets: the answers, as tuples in the order of aiokafka's structs."""

from __future__ import annotations

import asyncio
from typing import Any

from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.group import Asking, Group, Joined, State, Synced
from prpc.dev_kafka.store import NODE_ID, Caller, Store

__all__ = [
    "commit_offsets",
    "describe_groups",
    "fetch_offsets",
    "find_coordinator",
    "heartbeat",
    "join_group",
    "leave_group",
    "list_groups",
    "sync_group",
]

#: DescribeGroups' "not asked for".
NO_OPERATIONS = -(2**31)
GROUP_COORDINATOR = 0


async def find_coordinator(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """This broker is every group's coordinator; there are no transactions here."""
    if request.coordinator_type != GROUP_COORDINATOR:
        return 0, Code.INVALID_REQUEST, "this broker has no transactions", -1, "", -1
    return 0, Code.NONE, None, NODE_ID, store.host, store.port


async def join_group(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    asking = Asking(
        member_id=request.member_id or "",
        client_id=caller.client_id,
        host=caller.host,
        session=request.session_timeout / 1000,
        rebalance=request.rebalance_timeout / 1000,
        protocol_type=request.protocol_type or "",
        protocols=tuple((name, data) for name, data in request.group_protocols),
    )
    answer = _refused_join(store, request, asking)
    if answer is None:
        waiting = _known(store, request.group, asking).join(asking)
        answer = await waiting if isinstance(waiting, asyncio.Future) else waiting
    members = [(member_id, None, data) for member_id, data in answer.members]
    return 0, answer.code, answer.generation, answer.protocol, answer.leader, answer.member_id, members


def _refused_join(store: Store, request: Any, asking: Asking) -> Joined | None:
    if not request.group:
        return Joined(Code.INVALID_GROUP_ID, asking.member_id)
    if request.group_instance_id is not None:
        return Joined(Code.UNSUPPORTED_VERSION, asking.member_id)
    if not store.options.min_session <= asking.session <= store.options.max_session:
        return Joined(Code.INVALID_SESSION_TIMEOUT, asking.member_id)
    return None


def _known(store: Store, name: str, asking: Asking) -> Group:
    """A member with an id does not make a group; one without does."""
    if asking.member_id and name not in store.groups:
        return Group(name, store.loop)
    return store.group(name)


async def sync_group(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    group = store.groups.get(request.group)
    if group is None:
        return 0, Code.UNKNOWN_MEMBER_ID, b""
    waiting = group.sync(request.member_id, request.generation_id, [(one, data) for one, data in request.group_assignment])
    answer: Synced = await waiting if isinstance(waiting, asyncio.Future) else waiting
    return 0, answer.code, answer.assignment


async def heartbeat(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    group = store.groups.get(request.group)
    return 0, group.heartbeat(request.member_id, request.generation_id) if group else Code.UNKNOWN_MEMBER_ID


async def leave_group(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    group = store.groups.get(request.group)
    return 0, group.leave(request.member_id) if group else Code.UNKNOWN_MEMBER_ID


async def commit_offsets(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Offsets of a member's generation, or of anybody where the group has no members."""
    generation = request.consumer_group_generation_id
    if request.consumer_group not in store.groups and generation >= 0:
        code = Code.ILLEGAL_GENERATION
    else:
        code = store.group(request.consumer_group).may_commit(request.consumer_id or "", generation)
    topics = []
    for name, partitions in request.topics:
        rows = []
        for index, offset, text in partitions:
            one = _commit(store, request.consumer_group, name, index, offset, text) if code is Code.NONE else code
            rows.append((index, one))
        topics.append((name, rows))
    return 0, topics


def _commit(store: Store, group: str, topic: str, index: int, offset: int, text: str | None) -> Code:
    try:
        store.topics.partition(topic, index)
    except Refused as refused:
        return refused.code
    # Java counts UTF-16 units.
    if len((text or "").encode("utf-16-le")) // 2 > store.options.max_offset_metadata:
        return Code.OFFSET_METADATA_TOO_LARGE
    store.groups[group].offsets[topic, index] = (offset, text or "")
    return Code.NONE


async def fetch_offsets(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Committed offsets with their metadata; -1 where there is none, None asks for all there are."""
    group = store.groups.get(request.consumer_group)
    known = group.offsets if group else {}
    asked: dict[str, list[int]] = {}
    if request.topics is None:
        for topic, index in known:
            asked.setdefault(topic, []).append(index)
    else:
        asked = {topic: list(indexes) for topic, indexes in request.topics}
    topics = []
    for topic, indexes in asked.items():
        topics.append((topic, [(index, *known.get((topic, index), (-1, "")), Code.NONE) for index in indexes]))
    return 0, topics, Code.NONE


async def list_groups(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    return 0, Code.NONE, [(group.name, group.protocol_type) for group in store.groups.values()]


async def describe_groups(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """State and members; an unknown group is described as dead."""
    return 0, [_described(name, store.groups.get(name)) for name in request.groups]


def _described(name: str, group: Group | None) -> tuple[Any, ...]:
    if group is None:
        return Code.NONE, name, "Dead", "", "", [], NO_OPERATIONS
    # What members said and got is told of a settled group only.
    stable = group.state is State.STABLE
    members = []
    for member in group.members.values():
        data = (member.metadata(group.protocol), member.assignment) if stable else (b"", b"")
        members.append((member.id, member.asking.client_id, f"/{member.asking.host}", *data))
    protocol = group.protocol if stable else ""
    return Code.NONE, name, group.state.value, group.protocol_type, protocol, members, NO_OPERATIONS
