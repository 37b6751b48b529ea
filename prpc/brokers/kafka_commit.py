"""Commits of one consumer: at once for calls that are about to start, now and then for those that have ended.

A commit is fenced: Kafka takes it only from the member that owns the partition in the current generation. So a call that starts
after its commit starts in one server only, and each commit that goes through proves that this server is still a member.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from prpc.brokers.awaiting import background
from prpc.brokers.kafka_marks import write_marks
from prpc.brokers.kafka_tenure import KafkaDelivery, Tenure
from prpc.settings import Settings

__all__ = ["Committer"]

log = logging.getLogger(__name__)

#: Part of the lease after which a server that was not confirmed as a member neither starts a call nor hands an outcome over.
STALE_AFTER = 0.9
#: Seconds over which ends are gathered.
ENDS_EVERY = 0.1

Commit = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[Any]]


class Committer:
    """Bound to one event loop."""

    def __init__(
        self, owner: Callable[[], str], commit: Commit, tenures: Callable[[], Iterable[Tenure]], settings: Settings
    ) -> None:
        self._owner, self._commit, self._tenures = owner, commit, tenures
        self._heartbeat, self._stale_after = settings.redis_heartbeat, STALE_AFTER * settings.redis_recover
        self._asked: list[KafkaDelivery] = []
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        #: Monotonic second at which the last commit that went through was sent.
        self.confirmed = float("-inf")

    @property
    def is_stale(self) -> bool:
        """Whether it was so long without a commit that others may have decided."""
        return time.monotonic() - self.confirmed > self._stale_after

    def start(self) -> None:
        self._task = background(self._run(), "prpc-kafka-commit")

    async def stop(self) -> None:
        """Commit nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._answer(self._take_asked(), ())

    def ask(self, delivery: KafkaDelivery) -> asyncio.Future[bool]:
        """Commit the start of a delivery: whether that went through in time. What is asked during a commit makes the next."""
        delivery.start = asyncio.get_running_loop().create_future()
        self._asked.append(delivery)
        self._wake.set()
        return delivery.start

    def soon(self) -> None:
        """Something has ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ENDS_EVERY, self._due)

    def _due(self) -> None:
        self._timer = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.commit()

    async def commit(self) -> bool:
        """Commit what has changed, or else anything, as a sign of life. False: it did not go through."""
        async with self._lock:
            asked, tenures = self._take_asked(), [tenure for tenure in self._tenures() if tenure.live]
            wanted = {tenure.place: tenure for tenure in tenures if tenure.progress.changes != tenure.committed}
            if not wanted and tenures:
                wanted = {tenures[0].place: tenures[0]}
            went_through = False
            try:
                went_through = bool(wanted) and await self._send(wanted)
            finally:
                self._answer(asked, set(wanted.values()) if went_through and not self.is_stale else ())
            return went_through

    async def _send(self, wanted: Mapping[TopicPartition, Tenure]) -> bool:
        states = [(t, t.progress.changes, frozenset(t.uncommitted), frozenset(t.unstarted)) for t in wanted.values()]
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for place, tenure in wanted.items():
            marks = tenure.progress.marks
            offsets[place] = OffsetAndMetadata(marks.base, write_marks(marks, self._owner()))
        sent = time.monotonic()
        try:
            await self._commit(offsets)
        except (KafkaError, IllegalStateError, OSError) as exc:
            log.debug("a commit did not go through: %s", exc)
            return False
        self.confirmed = sent
        for tenure, changes, ended, unstarted in states:
            tenure.committed = changes
            tenure.uncommitted -= ended
            tenure.unstarted -= unstarted
        return True

    def _take_asked(self) -> list[KafkaDelivery]:
        asked, self._asked = self._asked, []
        return asked

    @staticmethod
    def _answer(asked: Iterable[KafkaDelivery], committed: Collection[Tenure]) -> None:
        for delivery in asked:
            if delivery.start is not None and not delivery.start.done():
                delivery.start.set_result(delivery.tenure in committed)
