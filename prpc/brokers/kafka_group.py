"""Membership of one consumer in the group of its queue: which partitions it owns, and what becomes of calls when they move.

Kafka takes all partitions back whenever it shares them out anew. Calls that run then go on: whoever gets their partition reads
from the committed marks who runs them, and waits while that server continues to be a member. It tells over the control topic
what has ended. Of a member that is gone the new owner takes the calls over. A member that Kafka gave up has lost all that it ran.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from prpc.brokers.awaiting import background
from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.brokers.kafka_assignor import QueueAssignor
from prpc.brokers.kafka_commit import Committer
from prpc.brokers.kafka_driver import commit_as, heartbeat_as, keep_first_connection, look_for_topics, stop_consumer
from prpc.brokers.kafka_history import History
from prpc.brokers.kafka_marks import Marks, Progress, read_marks
from prpc.brokers.kafka_starts import Ends, Starts, name_of
from prpc.brokers.kafka_tenure import KafkaDelivery, Tenure
from prpc.brokers.kafka_words import Place, Start, Word
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["KafkaGroup"]

log = logging.getLogger(__name__)

#: Milliseconds that a broker keeps a fetch open; a partition that becomes readable meanwhile waits for its end.
LONG_POLL = 100
#: Milliseconds without taking records after which aiokafka would leave the group: a server whose slots are all busy takes none.
NEVER = 2**31 - 1
#: Seconds that giving partitions back may take, with the last commit; of these, for calls that are on their way back.
LAST_COMMIT, LAST_RETURN = 3.0, 1.5
#: Seconds for which a server's word is remembered that came before its partition did.
WORD_HOLDS = 60.0


class KafkaGroup(ConsumerRebalanceListener):  # type: ignore[misc]
    """Bound to one event loop. `say` sends a word to the other servers, `again` gets records to deliver after all."""

    def __init__(
        self,
        address: KafkaAddress,
        settings: Settings,
        names: QueueNames,
        member: str,
        *,
        committed: Callable[[Iterable[TopicPartition]], Any],
        now: Callable[[], float],
        say: Callable[[Word], None],
        again: Callable[[Tenure, Any], None],
    ) -> None:
        self._address, self._settings, self._names = address, settings, names
        self._member, self._starts = member, Starts(member)
        self._read_committed, self._say, self._again = committed, say, again
        self._history = History(address, settings, now)
        self._assignor = QueueAssignor(member)
        self.tenures: dict[TopicPartition, Tenure] = {}
        #: Deliveries that run here while their partition is another's, by the place of their record.
        self._orphans: dict[Place, KafkaDelivery] = {}
        self._ends = Ends()
        self._had: set[TopicPartition] = set()
        self._words: list[tuple[float, Word]] = []
        #: Number of the share that is read from.
        self.share = 0
        #: Generation and member id of that share.
        self._membership = (-1, "")
        self.kafka: Any = None
        self._looking: asyncio.Task[None] | None = None
        self.committer = Committer(lambda: self.token, self._commit, lambda: self.tenures.values(), settings)

    @property
    def token(self) -> str:
        """What we mark calls with, one start of a record at most: see Starts."""
        return self._starts.token

    def runs_elsewhere(self, owner: str) -> bool:
        """Whether who marked a call so is another server that is still there."""
        word = self._assignor.word
        return word is not None and name_of(owner) in word.continuing and not self._starts.is_mine(owner)

    # coming and going

    async def open(self) -> None:
        """Join; returns with the first share. Raises BrokerUnavailableError."""
        settings = self._settings
        self.kafka = AIOKafkaConsumer(
            **self._address.client_options(client_id="prpc"),
            group_id=self._names.group(settings.group_name),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=round(settings.redis_recover * 1000),
            heartbeat_interval_ms=round(settings.redis_heartbeat * 1000),
            rebalance_timeout_ms=round((settings.redis_recover + LAST_COMMIT) * 1000),
            max_poll_interval_ms=NEVER,
            fetch_max_wait_ms=LONG_POLL,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=100,
            partition_assignment_strategy=[self._assignor],
        )
        keep_first_connection(self.kafka._client, self._address.options)
        self.kafka.subscribe([self._names.calls, self._names.raw_calls], listener=self)
        try:
            await self.kafka.start()
        except (KafkaError, OSError) as exc:
            await stop_consumer(self.kafka)
            raise explain(exc, self._address.shown) from exc
        except BaseException:
            await stop_consumer(self.kafka)
            raise
        self.committer.start()

    async def close(self) -> None:
        """Commit what is left and leave."""
        if self.kafka is None:
            return
        await self.committer.stop()
        if self._looking is not None:
            self._looking.cancel()
        for tenure in self.tenures.values():
            self._give_up_starts(tenure)
        try:
            async with asyncio.timeout(LAST_COMMIT):
                await self.committer.commit()
        except TimeoutError:
            log.warning("the last commit of queue %s did not go through in time", self._names.queue)
        for tenure in self.tenures.values():
            self._let_go(tenure)
        await stop_consumer(self.kafka)
        for delivery in self._orphans.values():
            delivery.lost = True

    async def _commit(self, offsets: Mapping[TopicPartition, Any]) -> Any:
        return await commit_as(self.kafka, *self._membership, offsets)

    # what the consumer tells

    def runs_here(self, place: Place) -> bool:
        """Whether the record at that place is in the hands of this server."""
        tenure = self.tenures.get(place[0])
        return place in self._orphans or (tenure is not None and place[1] in tenure.held)

    def holds(self, message_id: UUID) -> bool:
        """Whether that call was claimed here and has not ended."""
        if any(delivery.message_id == message_id for delivery in self._orphans.values()):
            return True
        return any(delivery.message_id == message_id for tenure in self.tenures.values() for delivery in tenure.held.values())

    def ask_others(self, message_id: UUID, address: str) -> None:
        """Let the server that has that call's outcome, or will have it, send it to this address too."""
        self._say(Word(self.token, asks=(message_id, address)))

    def begins(self, delivery: KafkaDelivery) -> None:
        """A delivery counts as started from now on, whatever became of its record before."""
        delivery.started, delivery.marked = True, self.token
        delivery.tenure.progress.start(delivery.offset, delivery.marked)
        self._ends.forget((delivery.tenure.place, delivery.offset))

    def ended(self, delivery: KafkaDelivery) -> None:
        """A delivery has ended, whichever way."""
        tenure, place = delivery.tenure, (delivery.tenure.place, delivery.offset)
        tenure.held.pop(delivery.offset, None)
        if tenure.live:
            self._end(tenure, delivery.offset, started=delivery.started)
        elif self._orphans.get(place) is delivery:
            del self._orphans[place]
            if delivery.started:
                self._ends.keep([place])
                self._say(Word(self.token, ended=(place,)))

    def replaced(self, tenure: Tenure, offset: int) -> None:
        """A record that is in nobody's hands is continued by a later one."""
        self._end(tenure, offset, started=False)

    def given_back(self, delivery: KafkaDelivery) -> None:
        """A delivery that was not started, and will not be here, is somebody's to start."""
        tenure, place = delivery.tenure, (delivery.tenure.place, delivery.offset)
        tenure.held.pop(delivery.offset, None)
        if not delivery.started:
            return
        delivery.started = False
        self._starts.rename()
        if tenure.live:
            tenure.progress.give_back(delivery.offset)
            tenure.unstarted.add((delivery.offset, delivery.marked))
            self.committer.soon()
        else:
            if self._orphans.get(place) is delivery:
                del self._orphans[place]
            self._forgo([(place, delivery.marked)])

    def _give_up_starts(self, tenure: Tenure) -> None:
        """Begin nothing that still waits for its commit, whatever becomes of that; left in our hands is what runs."""
        for delivery in list(tenure.held.values()):
            if not delivery.begins:
                delivery.give_up()
                self.given_back(delivery)

    def _let_go(self, tenure: Tenure) -> None:
        """A partition is not ours any more: what runs goes on, and others are told what never began."""
        self._give_up_starts(tenure)
        tenure.live = False
        self._orphans.update(((tenure.place, offset), delivery) for offset, delivery in tenure.held.items())
        self._forgo([((tenure.place, offset), token) for offset, token in tenure.unstarted])

    def _forgo(self, starts: Collection[Start]) -> None:
        """Starts never were whose partitions are not ours any more."""
        if starts:
            self._starts.forgo(starts)
            self._say(Word(self.token, unstarted=tuple(starts)))

    async def confirm(self) -> bool:
        """Whether this server is a member now. False: it is not, or nobody could say."""
        if any(tenure.live for tenure in self.tenures.values()):
            return await self.committer.commit()
        try:
            await heartbeat_as(self.kafka, *self._membership)
        except (KafkaError, OSError) as exc:
            log.debug("whether this server is a member of queue %s still is not known: %s", self._names.queue, exc)
            return False
        return True

    def begin_again(self, tenure: Tenure, offset: int) -> Tenure:
        """The partition is another one under the same name: what is in our hands of the old one ends unseen."""
        tenure.live = False
        self._starts.rename()  # the same offsets are other records from now on
        tenure.ids.move_away(tenure.place)
        fresh = Tenure(tenure.place, Progress(Marks(offset, offset)), tenure.ids, tenure.raw, offset)
        self.tenures[tenure.place] = fresh
        return fresh

    def _end(self, tenure: Tenure, offset: int, *, started: bool = True) -> None:
        tenure.progress.end(offset)
        if started:  # of one that was not, others know from the marks alone
            tenure.uncommitted.add(offset)
        self.committer.soon()

    # what other servers tell

    def is_mine(self, word: Word) -> bool:
        """Whether this server said it."""
        return self._starts.is_mine(word.member)

    def hear(self, word: Word) -> None:
        """A word of another server."""
        now = time.monotonic()
        self._words = [(at, each) for at, each in self._words if now - at < WORD_HOLDS]
        self._words.append((now, word))
        self._apply(word)

    def _apply(self, word: Word) -> None:
        for place, offset in word.ended:
            tenure, owner = self._started_by(place, offset)
            if tenure is not None and name_of(owner) == name_of(word.member):
                tenure.elsewhere.pop(offset, None)
                if (held := tenure.held.pop(offset, None)) is not None:
                    held.lost = True
                self._end(tenure, offset, started=False)
        for (place, offset), token in word.unstarted:
            tenure, owner = self._started_by(place, offset)
            if tenure is not None and owner == token and name_of(token) == name_of(word.member):
                tenure.progress.give_back(offset)
                self.committer.soon()
                self._deliver_again(tenure, offset)
        if word.holds is not None and self._assignor.word is not None and word.round >= self._assignor.word.round:
            self._compare(word.member, word.holds)

    def _started_by(self, place: TopicPartition, offset: int) -> tuple[Tenure | None, str]:
        """Our tenure and the name that the start is marked with, where the record is marked as started."""
        tenure = self.tenures.get(place)
        mark = None if tenure is None else tenure.progress.open.get(offset)
        return (tenure, mark.owner) if mark is not None and mark.attempts else (None, "")

    def _compare(self, member: str, holds: frozenset[Place]) -> None:
        """What is marked with a member and does not run there has been lost."""
        for tenure in self.tenures.values():
            for offset, mark in list(tenure.progress.open.items()):
                if mark.attempts and name_of(mark.owner) == name_of(member) and (tenure.place, offset) not in holds:
                    self._deliver_again(tenure, offset)

    def _deliver_again(self, tenure: Tenure, offset: int) -> None:
        record = tenure.elsewhere.pop(offset, None)
        if record is None:
            tenure.gone.add(offset)
        else:
            self._again(tenure, record)

    # assignments (called by aiokafka)

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # it takes functions and coroutines
        self, revoked: Iterable[TopicPartition]
    ) -> None:
        """All partitions go back: commit what we know of them, and keep what runs."""
        for tenure in self.tenures.values():
            tenure.leaving = True
        try:
            async with asyncio.timeout(LAST_COMMIT):
                if returning := [sent for tenure in self.tenures.values() for sent in tenure.returning.values()]:
                    # So that the next owner sees that what they continue has ended.
                    await asyncio.wait(returning, timeout=LAST_RETURN)
                await self.committer.commit()
        except TimeoutError:
            log.warning("the partitions of queue %s go back without a last commit", self._names.queue)
        tenures, self.tenures = self.tenures, {}
        for tenure in tenures.values():
            self._let_go(tenure)
            self._ends.keep((tenure.place, offset) for offset in tenure.uncommitted)

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]  # it takes functions and coroutines
        self, assigned: Iterable[TopicPartition]
    ) -> None:
        """Our share: read what its last owners knew, go on with what runs here, and say what runs here for others."""
        kafka: Any = self.kafka
        places, word = set(assigned), self._assignor.word
        if self.share and (word is None or self._member not in word.continuing):
            self._lose_all()
        tenures = await self._found(places)
        for place, tenure in tenures.items():
            tenure.unstarted |= self._starts.take(place)
            for offset, mark in list(tenure.progress.open.items()):
                if mark.attempts and self._starts.is_mine(mark.owner):
                    self._adopt(tenure, (place, offset), mark.owner)
        self.tenures = tenures
        self.share += 1
        self._membership = kafka._coordinator.generation, kafka._coordinator.member_id
        for place, tenure in tenures.items():
            # aiokafka has read ahead meanwhile, and `take` let go of what had no tenure.
            kafka.seek(place, tenure.progress.marks.base)
        self._had = places
        holds = frozenset(self._orphans)
        self._say(Word(self.token, self._ends.to_say(), self._starts.unstarted, 0 if word is None else word.round, holds))
        for at, heard in list(self._words):
            if time.monotonic() - at < WORD_HOLDS:
                self._apply(heard)
        if self._looking is None or self._looking.done():
            looking = look_for_topics(kafka, (self._names.calls, self._names.raw_calls), self._settings.redis_heartbeat)
            self._looking = background(looking, "prpc-kafka-topics")
        log.debug("queue %s: partitions %s", self._names.queue, sorted(place.partition for place in places))

    def _lose_all(self) -> None:
        log.warning("Kafka gave this server's membership up; %d calls that it ran count as lost", len(self._orphans))
        self._starts.rename()
        for delivery in self._orphans.values():
            delivery.lost = True
        self._orphans.clear()
        self._ends.clear()
        self._had = set()

    def _adopt(self, tenure: Tenure, place: Place, token: str) -> None:
        """A record that we had marked came back to us with its partition. What we know nothing of any more counts as lost."""
        offset, delivery = place[1], self._orphans.get(place)
        if delivery is not None and delivery.marked == token:
            delivery.tenure = tenure
            tenure.held[offset] = self._orphans.pop(place)
        elif self._ends.take(place):
            self._end(tenure, offset)
        elif delivery is None and (offset, token) in tenure.unstarted:
            tenure.progress.give_back(offset)

    async def _found(self, places: set[TopicPartition]) -> dict[TopicPartition, Tenure]:
        marks: dict[TopicPartition, Marks] = {}
        while True:
            try:
                committed = await self._read_committed(places)
                break
            except (BrokerUnavailableError, KafkaError, OSError) as exc:
                log.warning("what was committed for queue %s cannot be read, trying again: %s", self._names.queue, exc)
                await asyncio.sleep(0.2)
        for place in places:
            found = committed.get(place)
            marks[place] = Marks(0, 0) if found is None or found.offset < 0 else read_marks(found.offset, found.metadata or "")
        await self._history.learn(self.kafka, marks, self._had)
        return {
            place: Tenure(place, Progress(each), self._history.ids_of(place), place.topic == self._names.raw_calls, each.base)
            for place, each in marks.items()
        }
