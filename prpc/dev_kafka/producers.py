"""What a partition knows about idempotent producers: a batch sent again is recognised, a gap is refused. No I/O.

The rules are those of Kafka's ProducerStateManager and ProducerAppendInfo.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from prpc.dev_kafka.batch import Batch
from prpc.dev_kafka.codes import Code, Refused

__all__ = ["Producers"]

#: Batches of a producer that are recognised when they come again; a producer has no more than these in flight.
REMEMBERED = 5
#: Producers that a partition remembers; Kafka forgets them after a day.
MAX_PRODUCERS = 10_000


@dataclass(slots=True)
class _Producer:
    epoch: int
    recent: deque[Batch] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Producers:
    """The idempotent producers of one partition."""

    def __init__(self) -> None:
        self._known: dict[int, _Producer] = {}

    def earlier(self, batch: Batch) -> Batch | None:
        """The batch in the log that this one repeats, or None for a new one. Raises Refused for one out of order."""
        known = self._known.get(batch.producer_id) if batch.producer_id >= 0 else None
        if known is None:
            return None
        if batch.producer_epoch < known.epoch:
            raise Refused(Code.INVALID_PRODUCER_EPOCH)
        if batch.producer_epoch > known.epoch:
            if batch.sequence != 0:
                raise Refused(Code.OUT_OF_ORDER_SEQUENCE_NUMBER)
            return None
        for one in known.recent:
            if (one.sequence, one.last_sequence) == (batch.sequence, batch.last_sequence):
                return one
        if batch.sequence != (known.recent[-1].last_sequence + 1) & 0x7FFFFFFF:
            raise Refused(Code.OUT_OF_ORDER_SEQUENCE_NUMBER)
        return None

    def stored(self, batch: Batch) -> None:
        """Remember a batch that is in the log now."""
        if batch.producer_id < 0:
            return
        known = self._known.pop(batch.producer_id, None)
        if known is None or known.epoch != batch.producer_epoch:
            known = _Producer(batch.producer_epoch)
        # Without its bytes: the log may drop them, and this may not keep them.
        known.recent.append(replace(batch, data=b""))
        self._known[batch.producer_id] = known
        if len(self._known) > MAX_PRODUCERS:
            del self._known[next(iter(self._known))]
