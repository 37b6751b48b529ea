"""SimConsumer where the broker gives out shares of the queue (Kafka): starts are committed, outcomes handed over before ends are.

What the consumer itself knows decides as in the real adapter: what it has read under this share, what it has started, and how
long ago the broker confirmed it as a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prpc.brokers.awaiting import answered
from prpc.exceptions import BrokerUnavailableError
from tests.sim.consumer import SimConsumer
from tests.sim.held import Given, Lease
from tests.sim.kafka_store import KafkaGiven, KafkaStore

if TYPE_CHECKING:
    from tests.sim.broker import SimBroker

__all__ = ["SharingConsumer"]

#: Seconds over which ends are gathered, and between two tries to be confirmed.
ENDS_EVERY, AGAIN_AFTER = 0.1, 0.2


class SharingConsumer(SimConsumer):
    """See the module."""

    store: KafkaStore
    surely = 0.9
    patient = False

    def __init__(self, broker: SimBroker, queue: str, name: str) -> None:
        super().__init__(broker, queue, name)
        #: Number of our share, and names of the deliveries that are ours: those read under it, and those that have started.
        self._share = 0
        self._unstarted: set[str] = set()
        self._started: set[str] = set()
        self._leaving = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._ends: set[asyncio.Task[Any]] = set()
        #: What commits the ends of what was handed over; a commit of a start does, too.
        self._ended: dict[str, Callable[[], bool]] = {}

    # membership

    async def _renew(self) -> None:
        async with self._renewing:
            await self._renew_alone()

    async def _renew_alone(self) -> None:
        queue, name, sent = self.queue, self._name, asyncio.get_running_loop().time()
        seconds, share = self.broker.settings.redis_recover, self._share

        def renew() -> tuple[Lease, float]:
            return self.store.renew(queue, name, self._server, seconds, share), self.store.clock()

        lease, told = await self.broker.link.ask("renew", renew)
        self.broker.learn(told, sent)
        if lease is Lease.MOVED:
            self._unread()
            share, ended = self._share, list(self._ended.values())

            def join() -> Lease:
                for finish in ended:
                    finish()
                return self.store.join(queue, name, self._server, share)

            lease = await self.broker.link.ask("join", join)
        if lease is Lease.LOST:
            self._lose()
        else:
            self._confirmed = sent

    def clock_shows(self) -> float:
        """As the adapter does: records are stamped within a round trip, and none is to be taken for younger than it is."""
        return self.broker.clock.latest()

    def _unread(self) -> None:
        """What was not started is read again by whoever gets it."""
        self._share += 1
        self._found.clear()
        self._unstarted.clear()

    def _lose(self) -> None:
        super()._lose()
        self._unread()
        self._started.clear()

    def _keep_found(self, found: Sequence[Given]) -> None:
        here = [given for given in found if isinstance(given, KafkaGiven) and given.share == self._share]
        super()._keep_found([given for given in here if given.consumer == self._name and given.name not in self._started])
        self._unstarted.update(given.name for given in self._found)

    # starting

    def claim(self, given: Given, message_id: UUID, address: str | None, *, repeatable: bool, again: bool) -> Awaitable[bool]:
        if given.name not in self._unstarted:
            return self._refused(given)
        store, queue, window = self.store, self.queue, self.broker.settings.duplicate_window
        ended = list(self._ended.values())

        def work() -> bool:
            for finish in ended:
                finish()
            return store.claim(queue, given, message_id, address, window, again=again)

        self._unstarted.discard(given.name)
        if repeatable and given.attempt == 1 and store.admit(queue, given, message_id, window, again):
            self._started.add(given.name)
            self.broker.start("claim", work, insist=True)
            return answered(True)
        return self._ask_for(given, work)

    def _refused(self, given: Given) -> Awaitable[bool]:
        self.broker.site.note("ending", delivery=given.name, how="claim")
        self._known.pop(given.name, None)
        return answered(False)

    def _claimed(self, given: Given, done: asyncio.Task[bool]) -> None:
        super()._claimed(given, done)
        if not done.cancelled() and done.exception() is None and done.result() and given.consumer == self._name:
            self._started.add(given.name)

    # ending

    def end(self, how: str, given: Given, work: Callable[[], bool], *, nothing: bool = False) -> Awaitable[bool]:
        """Where `work` hands something over, the end is committed some moments later."""
        self.broker.site.note("ending", delivery=given.name, how=how)
        if not self._may_end(given):
            return answered(False)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if nothing and not self._is_stale():
            self._decide(given, done, True)
            self._ended[given.name] = lambda: self.store.finish(self.queue, given, how)
        task = self.broker.keep_task(self._end(how, given, work, done), f"sim {how}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        task.add_done_callback(lambda _: self._known.pop(given.name, None))
        return done

    def _may_end(self, given: Given) -> bool:
        return given.name in self._started or given.name in self._unstarted

    async def _end(self, how: str, given: Given, work: Callable[[], bool], done: asyncio.Future[bool]) -> None:
        while not done.done() and self._is_stale():
            try:
                await self._renew()
            except BrokerUnavailableError:
                await asyncio.sleep(AGAIN_AFTER)
            if not self._may_end(given):
                return self._decide(given, done, False)
        if not done.done():
            self._decide(given, done, await self.broker.link.insist(how, work))
        if how != "release":
            finish = self._ended[given.name] = lambda: self.store.finish(self.queue, given, how)
            try:
                await asyncio.wait_for(self._leaving.wait(), ENDS_EVERY)
            except TimeoutError:
                pass
            await self.broker.link.insist("finish", finish)
            del self._ended[given.name]

    def _decide(self, given: Given, done: asyncio.Future[bool], result: bool) -> None:
        self._started.discard(given.name)
        self._unstarted.discard(given.name)
        if not done.done():
            done.set_result(result)

    async def close(self) -> None:
        await self.stop()
        if self._closed:
            return
        self._closed = True
        self._leaving.set()
        if self._ends:
            await asyncio.wait(self._ends, timeout=self.broker.settings.connect_timeout)
        if self._keeper is not None:
            self._keeper.cancel()
        await self._link.close()
        try:
            await self.broker.link.ask("leave", lambda: self.store.leave(self.queue, self._name))
        except BrokerUnavailableError:
            pass
