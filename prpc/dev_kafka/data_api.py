"""Metadata, Produce, Fetch, ListOffsets, InitProducerId: the answers, as tuples in the order of aiokafka's structs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from prpc.dev_kafka.batch import Batch, parse
from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.partition import Partition
from prpc.dev_kafka.store import NODE_ID, Caller, Store
from prpc.dev_kafka.topics import Topic, check_name

__all__ = ["fetch", "init_producer_id", "list_offsets", "metadata", "produce"]

#: Timestamps that ListOffsets has a meaning for.
LATEST, EARLIEST = -1, -2


async def metadata(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Brokers and topics; None asks for all topics."""
    names = store.topics.names() if request.topics is None else request.topics
    topics = []
    for name in names:
        code, count = Code.NONE, 0
        try:
            count = len(_asked_for(store, name, create=bool(request.allow_auto_topic_creation)).partitions)
        except Refused as refused:
            code = refused.code
        partitions: list[Any] = [(Code.NONE, index, NODE_ID, [NODE_ID], [NODE_ID], []) for index in range(count)]
        topics.append((code, name, False, partitions))
    return 0, [(NODE_ID, store.host, store.port, None)], "prpc-dev-kafka", NODE_ID, topics


def _asked_for(store: Store, name: str, *, create: bool) -> Topic:
    check_name(name)
    if create and store.options.auto_create and name not in store.topics.names():
        store.topics.create(name)
    return store.topics.topic(name)


async def init_producer_id(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """An id for an idempotent producer; there are no transactions here."""
    if request.transactional_id is not None:
        return 0, Code.INVALID_REQUEST, -1, -1
    return 0, Code.NONE, next(store.producer_ids), 0


async def produce(store: Store, request: Any, caller: Caller) -> tuple[Any, ...] | None:
    """Store batches. None where the producer wants no answer (acks=0).

    Raises ConnectionAbortedError where it wants none and something was refused: all that Kafka can do then is to hang up.
    """
    topics, failed = [], False
    for name, partitions in request.topics:
        rows: list[tuple[int, int, int, int, int]] = []
        for index, data in partitions:
            try:
                stored, start = _store(store, name, index, data or b"", request.required_acks)
                time = stored.max_timestamp if stored.appended else -1
                rows.append((index, Code.NONE, stored.offset, time, start))
            except Refused as refused:
                failed = True
                rows.append((index, refused.code, -1, -1, -1))
        topics.append((name, rows))
    if request.required_acks != 0:
        return topics, 0
    if failed:
        raise ConnectionAbortedError
    return None


def _store(store: Store, name: str, index: int, data: bytes, acks: int) -> tuple[Batch, int]:
    """The batch as it lies in the log, and the log's start."""
    if acks not in (-1, 0, 1):
        raise Refused(Code.INVALID_REQUIRED_ACKS)
    partition, topic = store.topics.partition(name, index), store.topics.topic(name)
    if len(data) > int(topic.setting("max.message.bytes")):
        raise Refused(Code.MESSAGE_TOO_LARGE)
    batch = parse(data)
    if "compact" in topic.setting("cleanup.policy") and any(record.key is None for record in batch.records()):
        raise Refused(Code.INVALID_RECORD)
    now = store.now()
    if topic.setting("message.timestamp.type") == "LogAppendTime":
        return partition.append(batch, now), partition.start
    if batch.max_timestamp > now + int(topic.setting("message.timestamp.after.max.ms")):
        raise Refused(Code.INVALID_TIMESTAMP)
    return partition.append(batch, None), partition.start


async def fetch(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Batches; waits until there are enough bytes, an error, or the time is over."""
    until = store.loop.time() + request.max_wait_time / 1000
    changed = asyncio.Event()
    watched = _watch(store, request.topics, changed)
    try:
        while True:
            changed.clear()
            size, failed, topics = _read(store, request)
            left = until - store.loop.time()
            if failed or size >= request.min_bytes or left <= 0:
                return 0, Code.NONE, 0, topics
            # At the end of the time there is one more look.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
    finally:
        for partition in watched:
            partition.watchers.discard(changed.set)


def _watch(store: Store, topics: Any, changed: asyncio.Event) -> list[Partition]:
    watched = []
    for name, partitions in topics:
        for index, *_ in partitions:
            try:
                partition = store.topics.partition(name, index)
            except Refused:
                continue
            partition.watchers.add(changed.set)
            watched.append(partition)
    return watched


def _read(store: Store, request: Any) -> tuple[int, bool, list[Any]]:
    """Bytes found, whether a partition has an error, and the rows of the answer."""
    size, failed, topics = 0, False, []
    for name, partitions in request.topics:
        rows = []
        for index, _epoch, offset, _start, max_bytes in partitions:
            try:
                partition = store.topics.partition(name, index)
                limit = min(max_bytes, request.max_bytes - size)
                data = partition.read(offset, limit, at_least_one=size == 0)
            except Refused as refused:
                failed = True
                rows.append((index, refused.code, -1, -1, -1, None, -1, b""))
                continue
            size += len(data)
            rows.append((index, Code.NONE, partition.end, partition.end, partition.start, None, -1, data))
        topics.append((name, rows))
    return size, failed, topics


async def list_offsets(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """The end, the start, or the first offset at a time."""
    topics = []
    for name, partitions in request.topics:
        rows: list[tuple[int, int, int, int]] = []
        for index, timestamp in partitions:
            try:
                partition = store.topics.partition(name, index)
            except Refused as refused:
                rows.append((index, refused.code, -1, -1))
                continue
            if timestamp == LATEST:
                when, offset = -1, partition.end
            elif timestamp == EARLIEST:
                when, offset = -1, partition.start
            else:
                when, offset = partition.first_since(timestamp)
            rows.append((index, Code.NONE, when, offset))
        topics.append((name, rows))
    return 0, topics
