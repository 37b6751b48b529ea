"""Records go to the partitions that every other writer of Kafka would choose for their keys."""

from __future__ import annotations

from uuid import UUID

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from prpc.brokers.kafka_partition import partition_of
from prpc.brokers.kafka_records import message_key

PARTITIONS = st.integers(1, 50).map(lambda count: list(range(count)))
default = DefaultPartitioner()


@given(st.uuids(), PARTITIONS)
def test_a_call_goes_where_the_default_partitioner_sends_it(message_id: UUID, partitions: list[int]) -> None:
    key = message_key(message_id)
    assert partition_of(key, partitions, partitions) == default(key, partitions, partitions)


@given(st.binary(max_size=100), PARTITIONS)
def test_and_so_does_any_other_key(key: bytes, partitions: list[int]) -> None:
    assert partition_of(key, partitions, partitions) == default(key, partitions, partitions)


@given(PARTITIONS)
def test_a_record_without_a_key_goes_anywhere(partitions: list[int]) -> None:
    assert partition_of(None, partitions, partitions) in partitions
