"""The reading side of SimBroker: a blocking read on a connection of its own, a lease that its own loop renews, take-over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prpc.brokers.base import Reply
from prpc.exceptions import BrokerUnavailableError
from tests.sim.held import Given, Lease
from tests.sim.network import Broken, Later

if TYPE_CHECKING:
    from tests.sim.broker import SimBroker

__all__ = ["SimConsumer", "SimDelivery"]

#: Seconds that a read blocks at the broker, and after which it is given up.
BLOCK, GIVE_UP = 4.0, 6.5


@dataclass(slots=True, eq=False)
class SimDelivery:
    """See prpc.brokers.base.Delivery."""

    _consumer: SimConsumer
    given: Given
    #: Seconds since the broker took it, as far as this process knows the broker's clock.
    age: float

    @property
    def body(self) -> bytes | None:
        return self.given.entry.body

    @property
    def facts(self) -> Any:
        return self.given.entry.facts

    @property
    def attempt(self) -> int:
        return self.given.attempt

    @property
    def raw(self) -> bool:
        return self.given.entry.raw

    @property
    def admitted(self) -> bool:
        return self.given.admitted

    @property
    def lost(self) -> bool:
        return self.given.consumer != self._consumer._name

    def claim(self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False) -> Awaitable[bool]:
        return self._consumer.claim(self.given, message_id, address, repeatable=repeatable, again=again)

    def settle(self, reply: Reply | None) -> Awaitable[bool]:
        consumer, given = self._consumer, self.given
        work = lambda: consumer.store.settle(consumer.queue, given, reply, consumer.expire)  # noqa: E731
        return consumer.end("settle", given, work, nothing=reply is None)

    def release(self) -> Awaitable[bool]:
        consumer, given = self._consumer, self.given
        return consumer.end("release", given, lambda: consumer.store.release(consumer.queue, given))

    def bury(
        self, reason: str, reply: Reply | None = None, *, details: str = "", keep: bool = True, claim: bool = False
    ) -> Awaitable[bool]:
        consumer, given, settings = self._consumer, self.given, self._consumer.broker.settings
        seconds = consumer.expire if keep else 0.0
        work = lambda: consumer.store.bury(  # noqa: E731
            consumer.queue, given, reason, reply, details, seconds, settings.duplicate_window, settings.dead_letters_kept, claim
        )
        return consumer.end("bury", given, work)


class SimConsumer:
    """See prpc.brokers.base.Consumer."""

    #: Part of a lease for which a renewal holds surely.
    surely = 1.0
    #: Whether `take` goes through every error by itself and holds back what it finds as it is stopped.
    patient = True

    def __init__(self, broker: SimBroker, queue: str, name: str) -> None:
        from tests.sim.broker import SimLink

        self.broker, self.queue, self._name, self._first_name = broker, queue, name, name
        self._epoch = 0
        #: Others whose lease had run out as ours was renewed.
        self._lapsed: list[str] = []
        #: Loop time at which the last renewal that went through was sent.
        self._confirmed = float("-inf")
        self.store = broker.site.store
        self.expire = float(broker.settings.redis_expire)
        self._server = broker.link.host.name if broker.link.host is not None else name
        self._link = SimLink(broker.site, broker.settings, self._opened)
        self._found: deque[Given] = deque()
        #: Deliveries that were handed over or wait here: name, and what the broker knows it by.
        self._known: dict[str, tuple[int, int, str]] = {}
        #: When to look for what we were given without our knowing (loop time).
        self._checks: list[float] = []
        self._news = asyncio.Event()
        #: At the broker: what ends the read that blocks there.
        self._end_block: Callable[[], None] = lambda: None
        self._stopped = self._closed = False
        self._tell_lost: Callable[[], object] = lambda: None
        self._keeper: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[list[Given]] | None = None

    async def open(self) -> None:
        """See Consumer."""

    # taking

    async def take(self, most: int) -> Sequence[SimDelivery]:
        if self._keeper is None and not self._stopped:
            await self._begin()
        while not self._stopped:
            if self._checks and self._checks[0] <= asyncio.get_running_loop().time():
                await self._look()
            if self._found and not await self._is_ours():
                continue
            if self._found:
                return self._deliver_found(most)
            if self.patient and self._is_stale():  # nobody reads under a name that has no lease
                await self._is_ours()
            else:
                await self._read(most)
        if self.patient:
            return ()
        await self._unblock()
        return self._deliver_found(most) or ()

    def _deliver_found(self, most: int) -> Sequence[SimDelivery]:
        return [self._deliver(self._found.popleft()) for _ in range(min(most, len(self._found)))]

    async def _is_ours(self) -> bool:
        """Whether what was found is surely ours; what came under a lost name and nobody took over is kept."""
        try:
            while self._is_stale():
                await self._renew()
            if strange := [given for given in self._found if given.consumer != self._name]:
                kept = await self.broker.link.ask(
                    "take back", lambda: self.store.take_back(self.queue, strange, self._name, self._server)
                )
                self._found = deque(given for given in self._found if given not in strange)
                self._keep_found(kept)
        except BrokerUnavailableError:
            if not self.patient:
                raise
            await asyncio.sleep(0.1)
            return False
        return True

    def _is_stale(self) -> bool:
        """Whether it was so long without a word of the broker that others may have what is ours."""
        return asyncio.get_running_loop().time() - self._confirmed > self.surely * self.broker.settings.redis_recover

    async def _opened(self, _: object) -> None:
        if self._link.generation:
            self._look_soon()

    def take_lost(self) -> Sequence[SimDelivery]:
        found, self._found = self._found, deque(given for given in self._found if given.attempt <= 1)
        return [self._deliver(given) for given in found if given.attempt > 1]

    def on_lost(self, tell: Callable[[], object]) -> None:
        self._tell_lost = tell

    async def _begin(self) -> None:
        while not self._stopped:
            try:
                await self._link.open()
                await self._renew()
                break
            except BrokerUnavailableError:
                if not self.patient:
                    raise
                await asyncio.sleep(0.1)
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="sim lease")

    def _deliver(self, given: Given) -> SimDelivery:
        self.broker.site.note("delivered", delivery=given.name, server=self._server)
        return SimDelivery(self, given, max(0.0, self.clock_shows() - self.broker.site.wall - given.entry.born))

    def clock_shows(self) -> float:
        """What the broker's clock shows, for ages."""
        return self.broker.clock.now()

    async def _read(self, most: int) -> None:
        """One blocking read, or until something is found in another way."""
        if self._reading is None:
            connection = self._link.connection
            if connection is None:
                self._doubt()
                await self._first(self._link.usable())
                return
            name = self._name
            self._reading = connection.ask("take", lambda: self._take(connection, name, most), patience=GIVE_UP)
        self._news.clear()
        await self._first(self._reading)
        if self._reading.done():
            self._take_in()

    def _take_in(self) -> None:
        """What a read that has ended brought."""
        reading, self._reading = self._reading, None
        assert reading is not None
        try:
            self._keep_found(reading.result())
        except Broken:
            self._doubt()

    async def _first(self, awaited: Awaitable[Any]) -> None:
        """Wait for it or for news."""
        news = asyncio.ensure_future(self._news.wait())
        task = asyncio.ensure_future(awaited)
        await asyncio.wait([news, task], return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        if task is not awaited and not task.done():
            task.cancel()

    def _keep_found(self, found: Sequence[Given]) -> None:
        for given in found:
            if given.name not in self._known:
                self._known[given.name] = given.key
                self._found.append(given)

    def _take(self, connection: Any, name: str, most: int) -> Any:
        """At the broker: what is there, or a future for what comes."""
        store, queue = self.store, self.queue
        if store.queue(queue).limits is None:
            self.broker._declare(queue)
        found = store.take(queue, name, self._server, most)
        if found:
            return found
        answer = Later()
        blocked = store.blocked.setdefault(queue, {})
        key = object()

        def end(found: list[Given]) -> None:
            blocked.pop(key, None)
            timer.cancel()
            answer.set(found)

        def wake() -> None:
            if found := store.take(queue, name, self._server, most):
                end(found)

        timer = self.broker.site.network.later(BLOCK, lambda: end([]))
        connection.hung_up.append(lambda: (blocked.pop(key, None), timer.cancel()))
        blocked[key] = wake
        self._end_block = lambda: end([])
        return answer

    # the lease

    async def _renew(self) -> None:
        store, queue, name, sent = self.store, self.queue, self._name, asyncio.get_running_loop().time()
        seconds = self.broker.settings.redis_recover

        def renew() -> tuple[Lease, list[str], float]:
            return store.renew(queue, name, self._server, seconds), store.lapsed(queue, name), store.clock()

        lease, self._lapsed, told = await self.broker.link.ask("renew", renew)
        self.broker.learn(told, sent)
        if lease is Lease.LOST:
            self._lose()
        else:
            self._confirmed = sent

    def _lose(self) -> None:
        """Others have what we held; we go on under a name of our own."""
        self._epoch += 1
        self._confirmed = float("-inf")
        self._doubt()
        self._name = f"{self._first_name}.{self._epoch}"

    async def _keep(self) -> None:
        settings = self.broker.settings
        while True:
            await asyncio.sleep(settings.redis_heartbeat)
            try:
                name = self._name
                await self._renew()
                if self._name != name:
                    await self._renew()
                if self._lapsed:
                    await self._take_over()
            except BrokerUnavailableError:
                self._doubt()
                self._news.set()

    async def _take_over(self) -> None:
        store, queue, name = self.store, self.queue, self._name
        self._keep_found(await self.broker.link.ask("reclaim", lambda: store.reclaim(queue, name, self._server)))
        if self._stopped:
            self._give_back_found()
        elif self._found:
            self._news.set()
            self._tell_lost()

    def _doubt(self) -> None:
        """Something may be ours without our knowing, and be given to us still by a read that is on its way."""
        self._look_soon()
        if self._link.connection is not None:
            self._link.connection.give_up()

    def _look_soon(self) -> None:
        now = asyncio.get_running_loop().time()
        self._checks = [now, now + GIVE_UP]

    async def _look(self) -> None:
        """What was given to us on a connection that broke stands under our name without our knowing."""
        if self._reading is not None:  # what it brings is not unknown
            await asyncio.wait([self._reading])
            self._take_in()
        self._checks.pop(0)
        try:
            held = await self.broker.link.ask("held", lambda: self.store.held(self.queue, self._name))
            known = set(self._known.values())
            self._keep_found([given for given in held if given.key not in known])
        except BrokerUnavailableError:
            self._doubt()
            await asyncio.sleep(0.1)

    # ending

    def claim(self, given: Given, message_id: UUID, address: str | None, *, repeatable: bool, again: bool) -> Awaitable[bool]:
        if again and self.store.admits:
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            future.set_result(True)
            return future
        window = self.broker.settings.duplicate_window
        return self._ask_for(given, lambda: self.store.claim(self.queue, given, message_id, address, window, again=again))

    def _ask_for(self, given: Given, work: Callable[[], bool]) -> asyncio.Task[bool]:
        task = self.broker.keep_task(self._claim(given, work), "sim claim")
        task.add_done_callback(lambda done: self._claimed(given, done))
        return task

    async def _claim(self, given: Given, work: Callable[[], bool]) -> bool:
        """Whether it was granted, and the lease has surely not run out meanwhile."""
        granted = await self.broker.link.insist("claim", work)
        while granted and self._is_stale():
            try:
                await self._renew()
            except BrokerUnavailableError:
                await asyncio.sleep(0.1)
        return granted and given.consumer == self._name

    def _claimed(self, given: Given, done: asyncio.Task[bool]) -> None:
        if not done.cancelled() and done.exception() is None and not done.result():
            self.broker.site.note("ending", delivery=given.name, how="claim")
            self._known.pop(given.name, None)

    def end(self, how: str, given: Given, work: Callable[[], bool], *, nothing: bool = False) -> Awaitable[bool]:
        """Begin to settle, release or bury. `nothing`: there is nothing to hand over."""
        self.broker.site.note("ending", delivery=given.name, how=how)
        task = self.broker.start(how, work, insist=True)
        task.add_done_callback(lambda _: self._known.pop(given.name, None))
        return task

    async def stop(self) -> None:
        self._stopped = True
        self._news.set()

    async def _unblock(self) -> None:
        """Have the read that blocks end, and see what it brings."""
        reading = self._reading
        if reading is None:
            return
        while not reading.done():
            try:
                await self.broker.link.ask("unblock", lambda: self._end_block())
                await asyncio.wait([reading], timeout=0.05)
            except BrokerUnavailableError:
                break
        if reading.done():
            self._take_in()

    def _give_back_found(self) -> list[asyncio.Task[Any]]:
        found, self._found = self._found, deque()
        store, queue = self.store, self.queue
        return [self.broker.start("release", lambda each=each: store.release(queue, each), insist=True) for each in found]

    async def close(self) -> None:
        await self.stop()
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        store, queue, name = self.store, self.queue, self._name
        await self._unblock()
        await self._link.close()
        if given_back := self._give_back_found():
            await asyncio.wait(given_back)
        try:
            left = await self.broker.link.ask("held", lambda: store.held(queue, name))
            for each in left:
                if each.key not in self._known.values():
                    await self.broker.link.insist("release", lambda each=each: store.release(queue, each))
            await self.broker.link.ask("leave", lambda: store.leave(queue, name))
        except BrokerUnavailableError:
            pass
