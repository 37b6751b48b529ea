"""Writing to one mailbox on Kafka: a partition of the feedback topic, and a header that says whom a record is for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from prpc.brokers.awaiting import background
from prpc.brokers.kafka_sender import KafkaSender
from prpc.exceptions import BrokerUnavailableError

__all__ = ["CLIENT", "KafkaMail"]

#: Header that names the client whom a record is for: others skip it unread.
CLIENT = "prpc_to"


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    body: bytes
    key: bytes
    client: str
    outcome: bool


class KafkaMail:
    """All mail of one process, in the order of sending. Bound to the sender's loop."""

    def __init__(self, sender: KafkaSender) -> None:
        self._sender = sender
        #: Topic and partition that we have not heard of, and what waits until we have looked.
        self._searched: dict[tuple[str, int], list[tuple[_Piece, asyncio.Future[Any]]]] = {}

    def send(self, topic: str, body: bytes, key: bytes, mailbox: tuple[int, str], *, outcome: bool) -> asyncio.Future[Any]:
        """To the client that reads this partition.

        An outcome is tried until it arrives, and goes to any partition where there is no such one; other mail is lost then.
        """
        partition, client = mailbox
        piece = _Piece(body, key, client, outcome)
        waiting = self._searched.get((topic, partition))
        if waiting is None and self._knows(topic, partition):
            return self._hand_over(piece, topic, partition)
        if waiting is None:
            waiting = self._searched[topic, partition] = []
            background(self._search(topic, partition), "prpc-kafka-mail")
        waiting.append((piece, done := asyncio.get_running_loop().create_future()))
        return done

    def _knows(self, topic: str, partition: int) -> bool:
        return partition in (self._sender.client.cluster.partitions_for_topic(topic) or ())

    def _hand_over(self, piece: _Piece, topic: str, partition: int | None) -> asyncio.Future[Any]:
        headers = [(CLIENT, piece.client.encode(errors="replace"))]
        return self._sender.send(topic, piece.body, key=piece.key, headers=headers, partition=partition, repeat=piece.outcome)

    async def _search(self, topic: str, partition: int) -> None:
        """The partition may be new, or invented."""
        error: Exception | None = None
        try:
            await self._sender.know(topic)
            if not self._knows(topic, partition):
                await self._sender.client.force_metadata_update()
        except Exception as exc:
            error = exc
        for piece, done in self._searched.pop((topic, partition)):
            try:
                self._send_found(piece, topic, partition, done, error)
            except BrokerUnavailableError as exc:
                _end(done, None, exc)

    def _send_found(self, piece: _Piece, topic: str, partition: int, done: asyncio.Future[Any], error: Exception | None) -> None:
        known = self._knows(topic, partition)
        if error is not None or not (known or piece.outcome):
            return _end(done, None, error)
        sent = self._hand_over(piece, topic, partition if known else None)
        return sent.add_done_callback(lambda sent: None if sent.cancelled() else _end(done, sent, sent.exception()))


def _end(done: asyncio.Future[Any], sent: asyncio.Future[Any] | None, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None if sent is None else sent.result())
    else:
        done.set_exception(error)
        done.exception()  # whoever does not await it has nothing to be told
