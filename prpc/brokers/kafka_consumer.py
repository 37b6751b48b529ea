"""A server's reading side on Kafka: records of the partitions that it owns, each started only after a commit that says so.

Why it is built so: docs/decisions/0015-kafka-marks.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.awaiting import background
from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_ending import KafkaEndings
from prpc.brokers.kafka_group import KafkaGroup
from prpc.brokers.kafka_ids import id_of_key
from prpc.brokers.kafka_mailbox import KafkaControl
from prpc.brokers.kafka_marks import MOST_OPEN
from prpc.brokers.kafka_records import BORN, CONTINUES, CRASHES, SENT, facts_of, number_in
from prpc.brokers.kafka_replies import KafkaReplies
from prpc.brokers.kafka_tenure import KafkaDelivery, Tenure
from prpc.brokers.kafka_words import read_word
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["KafkaConsumer"]

log = logging.getLogger(__name__)

#: Milliseconds of one wait for records.
WAIT = 1000

_Found = dict[TopicPartition, list[ConsumerRecord]]


class KafkaConsumer:
    """See prpc.brokers.base.Consumer. `latest`: what the brokers' clock shows at most, in seconds since 1970."""

    def __init__(
        self,
        address: KafkaAddress,
        settings: Settings,
        queue: str,
        consumer: str,
        *,
        replies: KafkaReplies,
        committed: Callable[[Iterable[TopicPartition]], Any],
        latest: Callable[[], float],
        control: KafkaControl,
    ) -> None:
        self._address, self._latest, self._control = address, latest, control
        self._group = KafkaGroup(
            address,
            settings,
            QueueNames(queue),
            consumer[-12:],
            committed=committed,
            now=latest,
            say=control.say,
            again=self._deliver_again,
        )
        self._endings = KafkaEndings(self._group, replies, settings, self._deliver_again)
        #: Deliveries that are to be handed out before anything new.
        self._ready: deque[KafkaDelivery] = deque()
        self._tell_lost: Callable[[], object] = lambda: None
        self._opening: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._news: asyncio.Future[None] | None = None
        self._rest = asyncio.Event()
        self._rest.set()
        self._closed = False
        self._patience = settings.connect_timeout

    # taking

    async def open(self) -> None:
        """See Consumer."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = background(self._open(), "prpc-kafka-join")
        await asyncio.shield(self._opening)  # whoever waits may be cancelled; what aiokafka begins it must end

    async def _open(self) -> None:
        await self._control.attach(self._hear)  # before there is a partition whose calls others could tell of
        await self._group.open()

    def _hear(self, body: bytes) -> None:
        word = read_word(body)
        if word is None or self._group.is_mine(word):
            return
        if word.asks is not None:
            self._endings.asked(*word.asks)
        else:
            self._group.hear(word)

    async def take(self, most: int) -> Sequence[KafkaDelivery]:
        """See Consumer. Raises BrokerUnavailableError."""
        await self.open()
        self._rest.clear()
        try:
            while not self._stopping.is_set():
                found = self._take_ready(most)
                if not found:
                    found = self._deliver_all(await self._fetch(most))
                if found:
                    return found
            return ()
        except (KafkaError, OSError) as exc:
            raise explain(exc, self._address.shown) from exc
        finally:
            self._rest.set()

    def take_lost(self) -> Sequence[KafkaDelivery]:
        """See Consumer."""
        lost = [delivery for delivery in self._ready if delivery.attempt > 1]
        self._ready = deque(delivery for delivery in self._ready if delivery.attempt <= 1)
        return [delivery for delivery in lost if self._is_still_ours(delivery)]

    def on_lost(self, tell: Callable[[], object]) -> None:
        """See Consumer."""
        self._tell_lost = tell

    def _take_ready(self, most: int) -> list[KafkaDelivery]:
        found: list[KafkaDelivery] = []
        while self._ready and len(found) < most:
            delivery = self._ready.popleft()
            if self._is_still_ours(delivery):
                found.append(delivery)
        return found

    def _is_still_ours(self, delivery: KafkaDelivery) -> bool:
        """Of one that has waited here for room: its partition may have gone, or its deadline have come."""
        delivery.age = self._age(delivery.born_ms)
        return delivery.tenure.live and delivery.offset in delivery.tenure.held

    async def _fetch(self, most: int) -> _Found:
        """Up to `most` records; none after some time, or when there is news."""
        kafka, self._news = self._group.kafka, asyncio.get_running_loop().create_future()
        self._pause_full(kafka)
        fetching = asyncio.ensure_future(self._get_many(kafka, most))
        try:
            await asyncio.wait((fetching, self._news), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not fetching.done() or fetching.exception() is None:
                self._ready += self._deliver_all(self._fetched(fetching))  # the next take has them
            raise
        return self._fetched(fetching)

    def _fetched(self, fetching: asyncio.Task[tuple[int, _Found]]) -> _Found:
        """What was taken. Whoever calls this must not wait before the records are delivered: it might be cancelled there."""
        if not fetching.done():
            fetching.cancel()  # records are taken in its last step only
            return {}
        share, found = fetching.result()
        return found if share == self._group.share else {}  # what was read under an earlier share is read again

    async def _get_many(self, kafka: Any, most: int) -> tuple[int, _Found]:
        """Records, and the share that they were taken under: others may run before whoever awaits this does."""
        found: _Found = await kafka.getmany(timeout_ms=WAIT, max_records=most)
        return self._group.share, found

    def _pause_full(self, kafka: Any) -> None:
        """No further records of a partition with as many open ones as a commit can tell of."""
        paused = kafka.paused()
        for place, tenure in self._group.tenures.items():
            full = len(tenure.progress.open) >= MOST_OPEN
            if full != (place in paused):
                (kafka.pause if full else kafka.resume)(place)

    def _wake(self) -> None:
        """End a take that waits for records."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # delivering

    def _deliver_all(self, found: _Found) -> list[KafkaDelivery]:
        deliveries: list[KafkaDelivery] = []
        for place, records in found.items():
            tenure = self._group.tenures.get(place)
            for record in records if tenure is not None else ():
                delivery = self._deliver(self._of_this_log(place, record), record)
                if delivery is not None:
                    deliveries.append(delivery)
        return deliveries

    def _of_this_log(self, place: TopicPartition, record: ConsumerRecord) -> Tenure:
        """The tenure; a new one where the log lost its end or was deleted and made again, so that it is read from its start."""
        tenure = self._group.tenures[place]
        if record.offset < tenure.upcoming:
            log.warning("partition %d of %s begins again at record %d", place.partition, place.topic, record.offset)
            tenure = self._group.begin_again(tenure, record.offset)
        tenure.upcoming = record.offset + 1
        return tenure

    def _deliver(self, tenure: Tenure, record: ConsumerRecord) -> KafkaDelivery | None:
        progress, offset = tenure.progress, record.offset
        if offset >= progress.upcoming:
            progress.take(offset)
        elif offset not in progress.open or offset in tenure.held:
            return None
        mark = progress.open[offset]
        if mark.attempts and offset not in tenure.gone and self._group.runs_elsewhere(mark.owner):
            tenure.elsewhere[offset] = record
            message_id = id_of_key(record.key)
            if message_id is not None:
                tenure.ids.see(message_id, record)
            return None
        return self._make(tenure, record)

    def _make(self, tenure: Tenure, record: ConsumerRecord) -> KafkaDelivery:
        born = number_in(record, BORN)
        if born is None:
            born = min(number_in(record, SENT) or record.timestamp, record.timestamp)
        crashes = number_in(record, CRASHES)
        if crashes is not None:
            self._continue(tenure, record)
        attempt = tenure.progress.open[record.offset].attempts + 1 + (crashes or 0)
        delivery = KafkaDelivery(self._endings, tenure, record, facts_of(record), attempt, self._age(born), born)
        tenure.held[record.offset] = delivery
        return delivery

    def _continue(self, tenure: Tenure, record: ConsumerRecord) -> None:
        """A call that was given back is here: the record that it continues ends, unless that one has begun."""
        message_id, earlier = id_of_key(record.key), number_in(record, CONTINUES)
        if message_id is None or earlier is None or earlier >= record.offset:
            return
        follows, held, mark = tenure.ids.follow(message_id, record), tenure.held.get(earlier), tenure.progress.open.get(earlier)
        if held is None:
            if follows and mark is not None and not mark.attempts:
                self._group.replaced(tenure, earlier)
        elif held.id == message_id and (earlier in tenure.returning or not held.started):
            held.lost = True
            self._group.ended(held)

    def _age(self, born: float) -> float:
        """Rather too old than too young: what has expired must not start."""
        return max(0.0, self._latest() - born / 1000)

    def _deliver_again(self, tenure: Tenure, record: ConsumerRecord) -> None:
        """It turned out that the record is ours to run."""
        self._ready.append(self._make(tenure, record))
        self._wake()
        self._tell_lost()

    # leaving

    async def stop(self) -> None:
        """See Consumer."""
        self._stopping.set()
        self._endings.stopping = True
        self._wake()
        await self._rest.wait()
        self._ready.clear()

    async def close(self) -> None:
        """See Consumer."""
        await self.stop()
        if self._closed:
            return
        self._closed = True
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # Kafka may be away for good
            async with asyncio.timeout(self._patience):
                await self._endings.flush()
        await self._group.close()
        self._control.detach(self._hear)
