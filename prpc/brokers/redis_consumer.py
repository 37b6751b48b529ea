"""A server's reading side on Redis: blocking reads on a connection of their own, a lease, and the take-over of lost ones.

What was delivered to a connection that broke is pending under our name without our knowing: after every trouble the pending
entries are compared with the held ones, at once and again when the last blocked read of the old connection must have ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError, ResponseError

from prpc.brokers.redis_batch import Ending, RedisDelivery, milliseconds, read_entry
from prpc.brokers.redis_lease import Entry, Lease, LeaseKeeper
from prpc.brokers.redis_link import Backoff, Link
from prpc.brokers.redis_scripts import LEAVE, LOST, RECLAIM
from prpc.brokers.redis_wire import Wire, pack
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings

__all__ = ["RedisConsumer"]

log = logging.getLogger(__name__)

#: Seconds that one read waits at Redis; the answer may take half of PRPC_BROKER_SILENCE_SEC longer before the connection
#: counts as dead.
BLOCK = 4.0
#: Turns of the loop for which the next read waits after one that brought a single entry: a short function is answered first,
#: as the write that wakes Redis costs more than it does. Where there are more, the next ones are read while they run.
TURNS = 4
#: Seconds between two tries to end a blocked read, and tries before its connection is thrown away.
UNBLOCK_EVERY, UNBLOCK_TRIES = 0.05, 10
#: Pending entries that are looked through in one command.
PAGE = 500


class RedisConsumer:
    """See prpc.brokers.base.Consumer."""

    def __init__(
        self, link: Link, queue: str, consumer: str, settings: Settings, declare: Callable[[str], Awaitable[None]]
    ) -> None:
        self._link, self._queue, self._settings, self._declare = link, queue, settings, declare
        self._names = QueueNames(queue)
        self._streams = (self._names.calls, self._names.raw_calls)
        self._ending = Ending(link, self._names, settings)
        self._keeper = LeaseKeeper(
            link, queue, consumer, settings, declare=declare, found=self._take_found, lost=self._drop_found, doubt=self._doubt
        )
        self._found: deque[RedisDelivery] = deque()
        self._tell_lost: Callable[[], object] = lambda: None
        self._connection: Wire | None = None
        self._connection_id = 0
        self._checks: list[float] = []  # monotonic seconds at which to look for unknown pending entries
        self._single: int | None = None  # the stream to read alone next, while both are busy
        self._alone = False
        self._reading = False
        self._slack = settings.broker_silence / 2
        self._late: asyncio.TimerHandle | None = None  # gives a silent connection up
        self._rest = asyncio.Event()
        self._rest.set()
        self._stopping = asyncio.Event()
        self._closed = False

    # taking

    async def open(self) -> None:
        """See Consumer."""

    async def take(self, most: int) -> Sequence[RedisDelivery]:
        """See Consumer."""
        self._rest.clear()
        try:
            backoff = Backoff()
            while not self._stopping.is_set():
                try:
                    taken = await self._take(most)
                except (RedisError, OSError, BrokerUnavailableError) as exc:
                    await self._trouble(exc, backoff)
                    continue
                if taken and self._stopping.is_set():
                    self._found.extend(taken)
                elif taken:
                    return taken
            return ()
        finally:
            self._rest.set()

    async def _take(self, most: int) -> Sequence[RedisDelivery]:
        while self._keeper.stale and not self._stopping.is_set():
            await self._unless_stopped(self._keeper.renew())
        if not self._stopping.is_set():
            self._keeper.start()
        if self._checks and self._checks[0] <= time.monotonic():
            await self._unless_stopped(self._check())
        if self._connection is None:
            await self._unless_stopped(self._open())
        if self._found:
            return [self._aged(self._found.popleft()) for _ in range(min(most, len(self._found)))]
        if self._connection is None or self._stopping.is_set():
            return ()
        if self._alone and not await self._let_run():
            return ()
        lease, taken = self._keeper.lease, await self._read(most)
        self._alone = len(taken) == 1
        if taken and self._keeper.stale:
            try:
                await self._keeper.renew()
            except BaseException:
                self._found.extend(taken)
                raise
        return await self._reclaim(lease, taken) if taken and lease.lost else taken

    async def _reclaim(self, lost: Lease, taken: Sequence[RedisDelivery]) -> Sequence[RedisDelivery]:
        """Those of them that came after others had taken the lost name's calls over; the others have the rest."""
        while self._keeper.lease.lost:
            await self._keeper.renew()
        lease, entries = self._keeper.lease, [word for d in taken for word in (int(d.raw), d.id)]
        words = (*self._keeper.head(lease), lost.name, *entries)
        try:
            mine = await self._link.run(RECLAIM, (lease.key, *self._streams), words)
        except BaseException:
            self._doubt()
            raise
        if mine == LOST:
            self._keeper.take_new_name(lease)
            return ()
        found = [replace(taken[place], lease=lease) for place in mine]
        lease.held.update(delivery.key for delivery in found)
        return found

    async def _let_run(self) -> bool:
        """Whether to read on afterwards."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return self._connection is not None and not self._stopping.is_set()

    async def _unless_stopped(self, work: Any) -> None:
        """Do it, but give it up when `stop` is called."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _trouble(self, exc: Exception, backoff: Backoff) -> None:
        refusal = exc.__cause__ if isinstance(exc, BrokerUnavailableError) else exc  # commands on the link come back mapped
        if isinstance(refusal, ResponseError) and ("NOGROUP" in str(refusal) or "UNBLOCKED" in str(refusal)):
            log.warning("the streams of queue %s are gone, making them again", self._queue)
            await self._unless_stopped(self._declare(self._queue))
            return
        log.warning("reading queue %s failed (%s); trying again", self._queue, exc)
        await self._drop_connection()
        await self._unless_stopped(asyncio.sleep(backoff.next()))

    async def _open(self) -> None:
        connection = await self._link.address.open()
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                self._connection_id = int(await connection.ask(pack(("CLIENT", "ID"))))
        except BaseException:
            await connection.hang_up()
            raise
        self._connection = connection

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.hang_up()
        now = time.monotonic()
        self._checks = [now, now + BLOCK + self._slack]

    # reading

    async def _read(self, most: int) -> Sequence[RedisDelivery]:
        """One read. While both streams are busy they are read in turns, so that nothing is taken that cannot be started."""
        if self._single is not None:
            for number in (self._single, 1 - self._single):
                taken = await self._ask(most, (number,), block=False)
                if taken:
                    self._single = 1 - number
                    return taken
            self._single = None
        taken = await self._ask(most, (0, 1), block=True)
        if len(taken) > most:
            taken, surplus = taken[:most], taken[most:]
            self._single = int(surplus[0].raw)
            self._give_back(surplus)
        return taken

    async def _ask(self, most: int, numbers: Sequence[int], *, block: bool) -> list[RedisDelivery]:
        connection, lease = self._connection, self._keeper.lease
        assert connection is not None
        words: list[Any] = ["XREADGROUP", "GROUP", self._settings.group_name, lease.name, "COUNT", most]
        if block:
            words += ("BLOCK", round(BLOCK * 1000))
        words += ("STREAMS", *(self._streams[n] for n in numbers), *(">" for _ in numbers))
        self._reading = True
        self._expect(BLOCK + self._slack, connection)
        try:
            answer = await connection.ask(pack(tuple(words)))
        except ResponseError:
            raise
        except BaseException:
            await self._drop_connection()
            raise
        finally:
            if self._late is not None:
                self._late.cancel()
            self._reading = False
        taken: list[RedisDelivery] = []
        for stream, entries in answer or ():
            number = int(stream != self._streams[0].encode())
            taken += [self._deliver(lease, (number, id_, fields, 1)) for id_, fields in entries]
        return taken

    def _expect(self, seconds: float, connection: Wire) -> None:
        """Something must arrive within these seconds; what arrives in pieces may go on."""
        self._late = asyncio.get_running_loop().call_later(seconds, self._too_late, connection, connection.heard)

    def _too_late(self, connection: Wire, heard: int) -> None:
        if connection.heard == heard:
            connection.give_up(TimeoutError("no answer"))
        else:
            self._expect(self._slack, connection)

    def _deliver(self, lease: Lease, entry: Entry) -> RedisDelivery:
        number, id_, fields, deliveries = entry
        body, facts, crashes, born, own = read_entry(fields)
        born_ms = milliseconds(id_) if born is None else born
        age = self._age(born_ms)
        attempt, raw = deliveries + crashes, number == 1
        delivery = RedisDelivery(self._ending, lease, id_, body, facts, attempt, raw, age, born_ms, own == id_)
        lease.held.add((number, id_))
        return delivery

    def _age(self, born_ms: int) -> float:
        return max(0.0, self._link.clock.now() - born_ms / 1000)

    def _aged(self, delivery: RedisDelivery) -> RedisDelivery:
        """One that has waited here for room: its deadline may have come meanwhile."""
        delivery.age = self._age(delivery.born_ms)
        return delivery

    def _give_back(self, deliveries: Sequence[RedisDelivery]) -> None:
        for lease in {delivery.lease.key: delivery.lease for delivery in deliveries}.values():
            for raw in (False, True):
                some = [d for d in deliveries if d.lease is lease and d.raw == raw]
                for at in range(0, len(some), PAGE):
                    self._ending.release(some[at : at + PAGE])

    # what the lease's keeper tells

    def take_lost(self) -> Sequence[RedisDelivery]:
        """See Consumer."""
        lost = [self._aged(delivery) for delivery in self._found if delivery.attempt > 1]
        self._found = deque(delivery for delivery in self._found if delivery.attempt <= 1)
        return lost

    def on_lost(self, tell: Callable[[], object]) -> None:
        """See Consumer."""
        self._tell_lost = tell

    async def _take_found(self, lease: Lease, entries: Sequence[Entry]) -> None:
        self._found.extend(self._deliver(lease, entry) for entry in entries)
        if self._stopping.is_set():  # here they would wait until the calls that still run have ended
            return self._give_back_found()
        self._tell_lost()
        if self._reading:
            await self._unblock()

    def _drop_found(self, lost: Lease) -> None:
        self._found = deque(delivery for delivery in self._found if delivery.lease is not lost)

    def _doubt(self) -> None:
        self._checks.insert(0, time.monotonic())

    # pending entries that we know nothing of

    async def _check(self) -> None:
        await self._find_unknown()
        self._checks.pop(0)

    async def _find_unknown(self) -> None:
        """Put them among the found ones, one by one: a take that is cancelled here must not lose any."""
        lease, group = self._keeper.lease, self._settings.group_name
        for number, stream in enumerate(self._streams):
            start = b"-"
            while True:
                pending = await self._link.call("XPENDING", stream, group, start, "+", PAGE, lease.name)
                for id_, _, _, deliveries in pending:
                    if (number, id_) in lease.held:
                        continue
                    entries = await self._link.call("XRANGE", stream, id_, id_)
                    if entries:
                        self._found.append(self._deliver(lease, (number, id_, entries[0][1], deliveries)))
                    else:
                        await self._link.call("XACK", stream, group, id_)
                if len(pending) < PAGE:
                    break
                start = b"(" + pending[-1][0]

    # leaving

    async def stop(self) -> None:
        """See Consumer."""
        self._stopping.set()
        for attempt in range(UNBLOCK_TRIES):
            if self._rest.is_set():
                break
            if self._reading:
                await self._unblock()
            try:
                async with asyncio.timeout(UNBLOCK_EVERY * (1 + attempt / 4)):
                    await self._rest.wait()
            except TimeoutError:
                continue
        else:
            await self._drop_connection()
            await self._rest.wait()
        self._give_back_found()

    def _give_back_found(self) -> None:
        found = list(self._found)
        self._found.clear()
        self._give_back(found)

    async def _unblock(self) -> None:
        """End the blocked read; what Redis gave it in the same moment still comes."""
        try:
            async with asyncio.timeout(UNBLOCK_EVERY * 2):
                await self._link.call("CLIENT", "UNBLOCK", self._connection_id, patience=UNBLOCK_EVERY)
        except (TimeoutError, BrokerUnavailableError) as exc:
            log.debug("a blocked read could not be ended: %s", exc)

    async def close(self) -> None:
        """See Consumer."""
        await self.stop()
        if self._closed:
            return
        self._closed = True
        await self._keeper.stop()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.hang_up()
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._leave()
        except (TimeoutError, BrokerUnavailableError) as exc:
            log.warning("leaving queue %s without Redis's consent: %s", self._queue, str(exc) or "it does not answer")

    async def _leave(self) -> None:
        await self._ending.flush()
        lease = self._keeper.lease
        if not self._keeper.kept or lease.lost:
            return
        await self._find_unknown()
        self._give_back_found()
        await self._ending.flush()
        await self._link.run(LEAVE, (lease.key, *self._streams), self._keeper.head(lease))
