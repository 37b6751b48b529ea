"""What aiokafka does not do by itself: a commit that is fenced, and an end within bounds with nothing left open.

By itself a consumer waits for a sharing out that is under way, a producer for brokers that are gone (aiokafka#1101), and a
connection stays open for ever that is being made while its client closes, or while the client's start is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import ConnectionGroup
from aiokafka.conn import create_conn
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest

__all__ = [
    "commit_as",
    "heartbeat_as",
    "keep_first_connection",
    "look_for_topics",
    "partitions_of",
    "stop_admin",
    "stop_consumer",
    "stop_producer",
]

log = logging.getLogger(__name__)

#: Where aiokafka keeps its first connection while it knows no brokers.
FIRST = ("bootstrap", ConnectionGroup.DEFAULT)
#: What a broker answers that is the group's coordinator no longer.
GONE = (GroupCoordinatorNotAvailableError.errno, NotCoordinatorForGroupError.errno)
#: Seconds that each step may take.
GOOD_BYE = 2.0


def keep_first_connection(client: Any, options: Mapping[str, Any]) -> None:
    """Have a client that has not started close its first connection also where its start is cancelled.

    `options`: how it connects. Its start then raises what the brokers said, as KafkaError or OSError; by itself it does not tell.
    """
    client.bootstrap = partial(_bootstrap, client, options)


async def _bootstrap(client: Any, options: Mapping[str, Any]) -> None:
    """As aiokafka does it, but for two things: the connection is the client's from the start, and errors are raised.

    aiokafka has it in a local variable only while it asks for metadata: cancelled there, it leaves it open (0.14).
    """
    reason: Exception | None = None
    for host, port, _ in client.hosts:
        try:
            client._conns[FIRST] = await create_conn(
                host,
                port,
                client_id=client._client_id,
                request_timeout_ms=client._request_timeout_ms,
                max_idle_ms=client._connections_max_idle_ms,
                **options,
            )
            client.cluster.update_metadata(await client._conns[FIRST].send(MetadataRequest([])))
        except (KafkaError, OSError) as exc:
            log.debug("no metadata from %s:%s: %s", host, port, exc)
            _close_first(client)
            # That one of them is down says less than what the others say.
            reason = exc if reason is None or isinstance(reason, ConnectionRefusedError) else reason
        else:
            break
    else:
        raise reason or KafkaConnectionError("no host is known")
    if client.cluster.brokers():  # else it is asked again until it knows any
        _close_first(client)
    client._sync_task = asyncio.create_task(client._md_synchronizer())


def _close_first(client: Any) -> None:
    connection = client._conns.pop(FIRST, None)
    if connection is not None:
        connection.close()


async def commit_as(
    consumer: AIOKafkaConsumer, generation: int, member_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> None:
    """Commit as the member that one was under a certain share, so that Kafka refuses it when the share has changed.

    aiokafka's own commit goes out under whatever membership there is by then: with another share's, or with none at all, which
    Kafka takes from anybody while a group is empty. Raises KafkaError.
    """
    coordinator: Any = consumer._coordinator
    topics: dict[str, list[tuple[int, int, str]]] = {}
    for place, offset in offsets.items():
        topics.setdefault(place.topic, []).append((place.partition, offset.offset, offset.metadata))
    request = OffsetCommitRequest(
        coordinator.group_id, generation, member_id, OffsetCommitRequest.DEFAULT_RETENTION_TIME, list(topics.items())
    )
    await coordinator.ensure_coordinator_known()
    response = await coordinator._send_req(request)
    for _, partitions in response.topics:
        for _, code in partitions:
            if code in GONE:
                coordinator.coordinator_dead()
            if code:
                raise for_code(code)(f"group {coordinator.group_id}")


async def heartbeat_as(consumer: AIOKafkaConsumer, generation: int, member_id: str) -> None:
    """Ask whether one is a member still that one was under a certain share. Raises KafkaError where not, or nobody can say."""
    coordinator: Any = consumer._coordinator
    await coordinator.ensure_coordinator_known()
    response = await coordinator._send_req(HeartbeatRequest(coordinator.group_id, generation, member_id))
    if response.error_code in GONE:
        coordinator.coordinator_dead()
    if response.error_code not in (0, RebalanceInProgressError.errno):  # only members are told of that
        raise for_code(response.error_code)(f"group {coordinator.group_id}")


async def look_for_topics(consumer: AIOKafkaConsumer, topics: Sequence[str], every: float) -> None:
    """While one of them is missing: aiokafka looks again only when what it knows is old. `every`: seconds between two looks."""
    client: Any = consumer._client
    while not all(client.cluster.partitions_for_topic(topic) for topic in topics):
        await asyncio.sleep(every)
        await client.force_metadata_update()


async def partitions_of(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, int]:
    """Topic -> number of partitions, of those that are there. Raises KafkaError.

    aiokafka's own question makes a topic that is missing, where brokers are set up so, and not as we want it; and to ask for all
    topics that there are costs much where there are many.
    """
    answer = await admin._send_request(MetadataRequest(list(topics), allow_auto_topic_creation=False))
    there = answer.to_object()["topics"]
    return {each["topic"]: len(each["partitions"]) for each in there if each["error_code"] == 0}


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group, if it is in one, and close."""
    client: Any = consumer._client
    await _ends(_no_more_metadata(client))
    if consumer._group_id is None and consumer._fetcher is not None:
        await _ends(consumer._fetcher.close())
        _hang_up(client)
    if not await _ends(consumer.stop()):
        await _ends(_leave(consumer))
    await _ends(_close(client))


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Close; what was not sent is lost."""
    await _ends(_no_more_metadata(producer.client))
    if not await _ends(producer.stop()):
        await _ends(producer._sender.close())  # it would go on trying, and connecting
        producer._message_accumulator.fail_all(KafkaConnectionError("the producer was closed"))  # `stop` waits in a task for them
    await _ends(_close(producer.client))


async def stop_admin(admin: AIOKafkaAdminClient) -> None:
    """Close."""
    await _ends(_no_more_metadata(admin._client))
    await _ends(admin.close())
    await _ends(_close(admin._client))


async def _leave(consumer: AIOKafkaConsumer) -> None:
    """What `stop` did not get to."""
    coordinator: Any = consumer._coordinator
    coordination = getattr(coordinator, "_coordination_task", None)
    if coordination is not None:
        coordination.cancel()
        await asyncio.gather(coordination, return_exceptions=True)
        await asyncio.gather(coordinator._maybe_leave_group(), return_exceptions=True)
    if consumer._fetcher is not None:
        await consumer._fetcher.close()


async def _no_more_metadata(client: Any) -> None:
    """End the refreshing of metadata, but not while it connects: what is cut off while it says hello stays open (with TLS)."""
    async with client._get_conn_lock:
        if client._sync_task is not None:
            client._sync_task.cancel()


def _hang_up(client: Any) -> None:
    """Cut the connections: with TLS a broker says good-bye only after the fetch that it keeps open."""
    for connection in client._conns.values():
        if connection._writer is not None:
            connection._writer.transport.abort()


class _Closed(dict[Any, Any]):
    """The connections of a client that is closed: what is added is closed at once."""

    def __setitem__(self, key: Any, connection: Any) -> None:
        connection.close()
        super().__setitem__(key, connection)


async def _close(client: Any) -> None:
    """Close the connections, also those that are made from now on by whoever waits for one."""
    client._conns = _Closed(client._conns)
    await client.close()
    async with client._get_conn_lock:
        pass
    await client.close()


async def _ends(work: Coroutine[Any, Any, None]) -> bool:
    """Whether it ended by itself in time."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=GOOD_BYE)
    if not done:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return bool(done)
