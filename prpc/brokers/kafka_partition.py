"""Which partition a record goes to: the one that every writer's default partitioner picks for its key, in less time."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from aiokafka.partitioner import DefaultPartitioner

__all__ = ["murmur2", "partition_of"]

_SEED, _FACTOR, _WORD = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF
_default = DefaultPartitioner()


def partition_of(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """The partition for this key, of all those of its topic."""
    if len(partitions) == 1:
        return partitions[0]
    if key is None or len(key) % 4:
        chosen: int = _default(key, partitions, available)
        return chosen
    return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key of whole words (org.apache.kafka.common.utils.Utils.murmur2). aiokafka's takes it byte by byte, which
    costs a call of ours 7 us instead of 3, out of some 70 that its client spends."""
    value = _SEED ^ len(key)
    for word in struct.unpack(f"<{len(key) // 4}I", key):
        mixed = word * _FACTOR & _WORD
        value = (value * _FACTOR ^ (mixed ^ mixed >> 24) * _FACTOR) & _WORD
    value = (value ^ value >> 13) * _FACTOR & _WORD
    return value ^ value >> 15
