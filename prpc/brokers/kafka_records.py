"""How a call stands in a Kafka record: facts as headers, and what the adapter adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from aiokafka import ConsumerRecord

from prpc.brokers.base import Facts

__all__ = ["ADDED", "Headers", "facts_of", "headers_of", "number_in", "read_address", "write_address"]

#: The earliest that the caller can have handed the call over, in milliseconds by the brokers' clock: a record may lie in its
#: producer for a while.
SENT = "prpc_sent_ms"
#: When the broker first took a call that was put back, on the same scale, and how often its servers were lost before.
BORN, CRASHES = "prpc_born_ms", "prpc_crashes"
#: The letter that a call was put back from, so that its id counts as new.
REQUEUED = "prpc_requeued"
#: Offset of the record in the same partition that this one continues, so that it is none of its doubles.
CONTINUES = "prpc_continues"
ADDED = frozenset((SENT, BORN, CRASHES, REQUEUED, CONTINUES))

Headers = Sequence[tuple[str, bytes]]


def headers_of(facts: Facts, **added: int | str) -> list[tuple[str, bytes]]:
    """The record's headers; `added`: those of ours, by their constants' values."""
    headers = [(name, text.encode("utf-8", "surrogatepass")) for name, text in facts.items()]
    headers += [(name, str(value).encode()) for name, value in added.items()]
    return headers


def facts_of(record: ConsumerRecord) -> dict[str, str]:
    """What stands beside the message, without ours."""
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers if name not in ADDED}


def number_in(record: ConsumerRecord, name: str) -> int | None:
    """A number of ours in the headers; None where there is none that can be read."""
    for key, value in record.headers:
        if key == name:
            return int(value) if value is not None and value.isdigit() and len(value) < 16 else None
    return None


def write_address(partition: int, client: str) -> str:
    """A mailbox: its partition of the feedback topic, and whose it is."""
    return f"{partition}:{client}"


def read_address(address: str) -> tuple[int, str] | None:
    """Partition and client; None where it is no address of ours."""
    partition, separator, client = address.partition(":")
    if not separator or not (partition.isascii() and partition.isdigit() and len(partition) < 6):
        return None
    return int(partition), client


def message_key(message_id: UUID) -> bytes:
    """What records of one call are keyed by."""
    return str(message_id).encode()
