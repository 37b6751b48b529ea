"""Record batches of format 2, the only one that Kafka 4 stores: read, check, and put in their place. No I/O.

Layout: https://kafka.apache.org/documentation/#recordbatch. A broker keeps a batch as the producer wrote it, compressed or not,
and touches its header only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from prpc.dev_kafka.codes import Code, Refused

__all__ = ["Batch", "parse"]

#: Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, base and max timestamp, producer id and epoch,
#: base sequence, number of records.
HEADER = struct.Struct(">qiibIhiqqqhii")
#: Bytes before those that the length counts.
PREFIX = 12
#: The CRC begins here; it covers everything behind itself, so base offset and leader epoch change freely.
CRC_AT = 17
COVERED_FROM = 21
MAX_TIMESTAMP_AT = 35
LOG_APPEND_TIME = 0x08


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch with what a log needs to know about it."""

    #: The whole of it, header included.
    data: bytes
    offset: int
    #: Offset after its last record.
    next_offset: int
    #: Latest timestamp of its records in milliseconds since 1970.
    max_timestamp: int
    #: Whether a broker's clock made the timestamps.
    appended: bool
    #: -1 where the producer is not idempotent.
    producer_id: int
    producer_epoch: int
    sequence: int
    last_sequence: int

    def records(self) -> Iterator[Any]:
        """Its records as aiokafka reads them: `offset`, `timestamp`, `key`, `value`, `headers`."""
        yield from DefaultRecordBatch(self.data)

    def placed(self, offset: int, append_time: int | None) -> Batch:
        """This batch at its offset; with the broker's time in milliseconds where the topic does not want the producer's."""
        data = bytearray(self.data)
        struct.pack_into(">q", data, 0, offset)
        # A log that has had one leader ever is in epoch 0.
        struct.pack_into(">i", data, PREFIX, 0)
        if append_time is not None:
            attributes = struct.unpack_from(">h", data, COVERED_FROM)[0] | LOG_APPEND_TIME
            struct.pack_into(">h", data, COVERED_FROM, attributes)
            struct.pack_into(">q", data, MAX_TIMESTAMP_AT, append_time)
            struct.pack_into(">I", data, CRC_AT, calc_crc32c(data[COVERED_FROM:]))
        return replace(
            self,
            data=bytes(data),
            offset=offset,
            next_offset=offset + self.next_offset - self.offset,
            max_timestamp=self.max_timestamp if append_time is None else append_time,
            appended=append_time is not None,
        )


def parse(data: bytes) -> Batch:
    """The one batch that a producer sends for a partition. Raises Refused for what a broker does not store."""
    if len(data) < HEADER.size:
        raise Refused(Code.INVALID_RECORD, "the batch is shorter than its header")
    fields = HEADER.unpack_from(data)
    offset, length, _, magic, crc, attributes, last_delta, _, latest, producer_id, producer_epoch, sequence, count = fields
    if magic != 2:
        raise Refused(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"format {magic} is not stored any more")
    if len(data) != PREFIX + length:
        raise Refused(Code.INVALID_RECORD, "a producer sends one batch for each partition")
    if calc_crc32c(data[COVERED_FROM:]) != crc:
        raise Refused(Code.CORRUPT_MESSAGE, "the checksum does not fit")
    if count <= 0 or last_delta != count - 1:
        raise Refused(Code.INVALID_RECORD, "the number of records and their offsets contradict each other")
    return Batch(
        data=data,
        offset=offset,
        next_offset=offset + count,
        max_timestamp=latest,
        appended=bool(attributes & LOG_APPEND_TIME),
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        sequence=sequence,
        # Sequence numbers are 31 bits and begin again at 0.
        last_sequence=(sequence + last_delta) & 0x7FFFFFFF,
    )
