"""The log of one partition: batches in order, with a bound on its bytes. No I/O; one thread."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from prpc.dev_kafka.batch import Batch
from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.producers import Producers

__all__ = ["Partition"]


def _next_offset(batch: Batch) -> int:
    return batch.next_offset


class Partition:
    """A log from offset `start` up to, and without, offset `end`.

    The first batch may begin before `start`, as in Kafka: readers skip what is older than they asked for.
    """

    def __init__(self, max_bytes: int) -> None:
        self.start = 0
        self.end = 0
        #: Rung after every change, until they take themselves out: whoever waits for records.
        self.watchers: set[Callable[[], None]] = set()
        self._batches: list[Batch] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._producers = Producers()

    def append(self, batch: Batch, append_time: int | None) -> Batch:
        """Store a batch, and give it as it was stored; one that was sent again is given as it was stored the first time.

        Raises Refused for an idempotent producer's batch out of order. The oldest batches go when the log is over its bytes.
        """
        earlier = self._producers.earlier(batch)
        if earlier is not None:
            return earlier
        stored = batch.placed(self.end, append_time)
        self._producers.stored(stored)
        self._batches.append(stored)
        self._bytes += len(stored.data)
        self.end = stored.next_offset
        while self._bytes > self._max_bytes and len(self._batches) > 1:
            self._forget(1)
            self.start = self._batches[0].offset
        self._ring()
        return stored

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> bytes:
        """Whole batches from the one that holds `offset` on, at most so many bytes; a first one that is larger only if asked for.

        Raises Refused for an offset that the log does not have (its end is allowed: nothing is there yet).
        """
        if not self.start <= offset <= self.end:
            raise Refused(Code.OFFSET_OUT_OF_RANGE)
        found: list[bytes] = []
        for index in range(bisect_right(self._batches, offset, key=_next_offset), len(self._batches)):
            data = self._batches[index].data
            if len(data) > max_bytes and (found or not at_least_one):
                break
            found.append(data)
            max_bytes -= len(data)
        return b"".join(found)

    def first_since(self, timestamp: int) -> tuple[int, int]:
        """Timestamp and offset of the first record that is not older than `timestamp` (ms since 1970); (-1, -1) for none."""
        for batch in self._batches:
            if batch.max_timestamp >= timestamp:
                for record in batch.records():
                    if record.timestamp >= timestamp and record.offset >= self.start:
                        return record.timestamp, record.offset
        return -1, -1

    def delete_before(self, offset: int) -> int:
        """Forget the records before `offset` (-1: all), and give the new start. Raises Refused for an offset after the end."""
        offset = self.end if offset == -1 else offset
        if not 0 <= offset <= self.end:
            raise Refused(Code.OFFSET_OUT_OF_RANGE)
        self.start = max(self.start, offset)
        self._forget(bisect_right(self._batches, self.start, key=_next_offset))
        self._ring()
        return self.start

    def truncate(self, offset: int) -> None:
        """Lose the batches that hold `offset` or more, as a log does whose new leader had not got them."""
        while self._batches and self._batches[-1].next_offset > offset:
            last = self._batches.pop()
            self._bytes -= len(last.data)
            self.end = last.offset
        self.start = min(self.start, self.end)
        self._ring()

    def _forget(self, count: int) -> None:
        self._bytes -= sum(len(batch.data) for batch in self._batches[:count])
        del self._batches[:count]

    def _ring(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()

    def close(self) -> None:
        """The topic is gone: wake those who wait."""
        self._ring()
