"""The log of the Kafka in memory, without a broker around it."""

from __future__ import annotations

import struct

import pytest

from prpc.dev_kafka import Code, FakeKafka, Refused
from prpc.dev_kafka.ask import is_ready
from prpc.dev_kafka.batch import HEADER, parse
from prpc.dev_kafka.partition import Partition
from prpc.dev_kafka.producers import MAX_PRODUCERS, Producers
from tests.kafka_talk import batch


def changed(data: bytes, at: int, layout: str, value: int) -> bytes:
    copy = bytearray(data)
    struct.pack_into(layout, copy, at, value)
    return bytes(copy)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.INVALID_RECORD),
        (batch(b"x")[: HEADER.size - 1], Code.INVALID_RECORD),
        (changed(batch(b"x"), 16, ">b", 1), Code.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (batch(b"x")[:-1], Code.INVALID_RECORD),
        (changed(batch(b"x"), 17, ">I", 0), Code.CORRUPT_MESSAGE),
    ],
    ids=["nothing", "part of a header", "format 1", "cut off", "checksum"],
)
def test_what_is_no_batch(data: bytes, code: Code) -> None:
    with pytest.raises(Refused) as refused:
        parse(data)
    assert refused.value.code is code


def test_a_batch_whose_count_is_wrong() -> None:
    from aiokafka.record.util import calc_crc32c

    data = changed(batch(b"x", b"y"), HEADER.size - 4, ">i", 3)
    data = changed(data, 17, ">I", calc_crc32c(data[21:]))
    with pytest.raises(Refused, match="contradict"):
        parse(data)


def test_the_brokers_time_keeps_the_checksum_right() -> None:
    placed = parse(batch(b"x", b"y", timestamp=5)).placed(100, 7_000)
    again = parse(placed.data)
    assert (again.offset, again.next_offset, again.max_timestamp, again.appended) == (100, 102, 7_000, True)
    assert [(record.offset, record.timestamp) for record in placed.records()] == [(100, 7_000), (101, 7_000)]


def test_a_partition_forgets_its_oldest_batches() -> None:
    one = batch(b"x" * 100)
    log = Partition(max_bytes=len(one) * 3)
    rung: list[int] = []
    log.watchers.add(lambda: rung.append(log.end))
    for _ in range(5):
        log.append(parse(one), None)
    assert (log.start, log.end) == (2, 5)
    assert rung == [1, 2, 3, 4, 5]
    with pytest.raises(Refused):
        log.read(1, 1000, at_least_one=True)
    assert log.read(3, 0, at_least_one=False) == b""
    assert log.read(3, 0, at_least_one=True) == parse(one).placed(3, None).data
    assert log.read(5, 1000, at_least_one=True) == b""
    assert log.first_since(0) == (parse(one).max_timestamp, 2)


def test_sequences_begin_again_at_zero() -> None:
    known = Producers()
    last = parse(batch(b"x", b"y", producer_id=1, epoch=0, sequence=2**31 - 2))
    assert last.last_sequence == 2**31 - 1
    known.stored(last)
    after = parse(batch(b"x", producer_id=1, epoch=0, sequence=0))
    assert known.earlier(after) is None
    known.stored(after)
    assert known.earlier(after) is not None


def test_producers_are_not_remembered_without_end() -> None:
    known = Producers()
    data = parse(batch(b"x", producer_id=0, epoch=0, sequence=0))
    known.stored(data)
    for number in range(1, MAX_PRODUCERS + 1):
        known.stored(parse(batch(b"x", producer_id=number, epoch=0, sequence=0)))
    assert known.earlier(data) is None


def test_when_a_broker_is_ready(fake_kafka: FakeKafka) -> None:
    port = fake_kafka.port
    assert is_ready(port, 1)
    assert not is_ready(port, 2)
    for api in ("CreateTopics", "FindCoordinator", "OffsetFetch"):
        fake_kafka.fail(api, 7)
        assert not is_ready(port, 1)
    fake_kafka.refuse("Metadata")
    with pytest.raises(EOFError):
        is_ready(port, 1)
    fake_kafka.down()
    with pytest.raises(OSError):
        is_ready(port, 1)
    assert fake_kafka.topics() == []
