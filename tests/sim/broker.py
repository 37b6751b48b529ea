"""SimBroker: an adapter behind prpc/brokers/base.py whose broker is a `Store` and whose wires are a `Network`.

What its contract asks is kept as the real adapters keep it: settling is repeated through reconnects until it is decided,
publishing is not repeated and says so, reading goes on by itself, a mailbox tells of a gap.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

from prpc.brokers.base import Capabilities, DeadLetter, Mail, Outgoing, QueueState, ServerRecord, queue_full
from prpc.brokers.clock import BrokersClock
from prpc.brokers.kafka_bound import QueueBound
from prpc.exceptions import BrokerUnavailableError
from prpc.names import QueueNames
from prpc.settings import Settings
from tests.sim.consumer import SimConsumer
from tests.sim.hosts import HOST, Host
from tests.sim.network import Broken, Connection, Network
from tests.sim.sharing import SharingConsumer
from tests.sim.store import Note, Store

__all__ = ["SimBroker", "SimLink", "Site"]

T = TypeVar("T")
#: Seconds of the pauses between attempts to connect.
BACKOFF = (0.05, 0.1, 0.25, 0.5, 1.0)
#: Seconds after which an idle connection that only listens is found dead.
IDLE = 10.0


class Site:
    """One broker in the world: its store, the ways to it, and the ledger's ear. `wall`: seconds since 1970 at time 0."""

    def __init__(self, store: Store, network: Network, wall: float = 0.0, note: Note = lambda *_, **__: None) -> None:
        self.store, self.network, self.wall, self.note = store, network, wall, note
        self.tokens = itertools.count()

    def host_of(self, settings: Settings) -> Host | None:
        """Whose connections those with these settings are."""
        return HOST.get(None)


class SimLink:
    """One connection that is opened anew whenever it breaks, until it is closed."""

    def __init__(self, site: Site, settings: Settings, opened: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        """`opened`: what is to be done on each new connection before anybody else uses it."""
        self.site, self._settings = site, settings
        self.host = site.host_of(settings)
        self._opened = opened
        self.connection: Connection | None = None
        self._usable = asyncio.Event()
        self._opener: asyncio.Task[None] | None = None
        self._closed = False
        #: How often it was opened.
        self.generation = 0

    async def open(self) -> Connection:
        """Raises BrokerUnavailableError."""
        connection = Connection(self.site.network, self.host, self._settings.broker_silence)
        try:
            await connection.connect(self._settings.connect_timeout)
            if self._opened is not None:
                await self._opened(connection)
            if not connection.open:  # it broke as that was answered, in a process that stood still
                raise ConnectionError("the connection broke")
        except (OSError, TimeoutError, Broken) as exc:
            connection.give_up()
            raise self.unavailable(exc) from exc
        connection.broken = self._broken
        self.connection = connection
        self.generation += 1
        self._usable.set()
        return connection

    def unavailable(self, exc: BaseException) -> BrokerUnavailableError:
        url = self._settings.url_broker
        return BrokerUnavailableError(f"the broker at {url} cannot be reached: {str(exc) or type(exc).__name__}", url=url)

    def _broken(self) -> None:
        self.connection = None
        self._usable.clear()
        if not self._closed:
            self._opener = asyncio.get_running_loop().create_task(self._open_again(), name="sim reconnect")

    async def _open_again(self) -> None:
        for number in itertools.count():
            if self._closed:
                return
            try:
                await self.open()
                return
            except BrokerUnavailableError:
                await asyncio.sleep(BACKOFF[min(number, len(BACKOFF) - 1)])

    async def usable(self) -> Connection:
        """The connection, as soon as there is one."""
        while self.connection is None:
            await self._usable.wait()
        return self.connection

    async def ask(self, operation: str, work: Callable[[], T], *, patience: float | None = None) -> T:
        """Once; raises BrokerUnavailableError where it is not known whether it was done."""
        if self._closed:
            raise self.unavailable(ConnectionError("the connection was closed"))
        try:
            if self.connection is None:
                async with asyncio.timeout(self._settings.connect_timeout):
                    await self.usable()
            assert self.connection is not None
            answer: T = await self.connection.ask(operation, work, patience=patience)
            return answer
        except (Broken, TimeoutError) as exc:
            raise self.unavailable(exc) from exc

    async def insist(self, operation: str, work: Callable[[], T]) -> T:
        """Repeated through reconnects until it is decided; the work is done once all the same."""
        token = f"{next(self.site.tokens)}"
        while True:
            connection = await self.usable()
            try:
                answer: T = await connection.ask(operation, lambda: self.site.store.once(token, work))
                return answer
            except Broken:
                continue

    async def close(self) -> None:
        self._closed = True
        if self._opener is not None:
            self._opener.cancel()
        if self.connection is not None:
            self.connection.give_up()


#: What a reader asks the broker: from which position on, and whom to tell. It answers with the position and how to end it.
_Attach = Callable[[int | None, Callable[[bytes], None]], tuple[int, Callable[[], None]]]


class _Reader:
    """What listens on a connection of its own: mail for an address, or broadcasts."""

    def __init__(self, site: Site, settings: Settings, attach: _Attach) -> None:
        self._bodies: list[bytes] = []
        self._gap = False
        self._news = asyncio.Event()
        self._site, self._attach = site, attach
        #: Of what comes next in the log; None before the first connection.
        self._position: int | None = None
        self.link = SimLink(site, settings, self._opened)
        self._pinger: asyncio.Task[None] | None = None

    async def _opened(self, connection: Connection) -> None:
        position = self._position

        def attach() -> int:
            start, leave = self._attach(position, lambda body: connection.push(self._come, body))
            connection.hung_up.append(leave)
            return start

        start = await connection.ask("subscribe", attach)
        if position is None:
            self._position = start + (self._position or 0)
        elif not self._site.store.logs:
            self._gap = True
            self._news.set()

    async def open(self) -> None:
        await self.link.open()
        self._pinger = asyncio.get_running_loop().create_task(self._ping(), name="sim listening")

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(IDLE)
            if self.link.connection is not None:
                self.link.connection.ask("idle ping", lambda: None)

    def _come(self, body: bytes) -> None:
        self._position = (self._position or 0) + 1
        self._bodies.append(body)
        self._news.set()

    async def receive(self) -> Mail:
        while not (self._bodies or self._gap):
            self._news.clear()
            await self._news.wait()
        mail = Mail(self._bodies, gap=self._gap)
        self._bodies, self._gap = [], False
        return mail

    async def close(self) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        await self.link.close()


class _Mailbox:
    def __init__(self, broker: SimBroker, queue: str) -> None:
        self._broker, self._queue = broker, queue
        self.address = uuid4().hex
        self._reader = _Reader(
            broker.site, broker.settings, lambda *args: broker.site.store.open_mail(queue, self.address, *args)
        )

    async def open(self) -> _Mailbox:
        await self._reader.open()
        return self

    async def receive(self) -> Mail:
        return await self._reader.receive()

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        ids = list(message_ids)
        return await self._broker.link.ask("collect", lambda: self._broker.site.store.collect(self._queue, ids))

    def forget(self, message_ids: Iterable[UUID]) -> None:
        ids = list(message_ids)
        self._broker.start("forget", lambda: self._broker.site.store.forget(self._queue, ids))

    async def close(self) -> None:
        await self._broker.flush()
        await self._reader.close()


class _Listener:
    def __init__(self, broker: SimBroker, queue: str) -> None:
        self._reader = _Reader(broker.site, broker.settings, lambda *args: broker.site.store.listen(queue, *args))

    async def open(self) -> _Listener:
        await self._reader.open()
        return self

    async def receive(self) -> Sequence[bytes]:
        while not (bodies := (await self._reader.receive()).bodies):
            pass
        return bodies

    async def close(self) -> None:
        await self._reader.close()


class _DeadLetters:
    def __init__(self, broker: SimBroker, queue: str) -> None:
        self._link, self._store, self._queue = broker.link, broker.site.store, queue

    async def count(self) -> int:
        return await self._link.ask("dead letters", lambda: len(self._store.queue(self._queue).dead))

    async def read(self) -> AsyncIterator[DeadLetter]:
        for letter in await self._link.ask("dead letters", lambda: list(self._store.queue(self._queue).dead.values())):
            yield letter

    async def get(self, letter_id: str) -> DeadLetter | None:
        return await self._link.ask("dead letters", lambda: self._store.queue(self._queue).dead.get(letter_id))

    async def requeue(self, letter_id: str) -> bool:
        return await self._link.ask("requeue", lambda: self._store.take_letter(self._queue, letter_id, back=True))

    async def drop(self, letter_id: str) -> bool:
        return await self._link.ask("requeue", lambda: self._store.take_letter(self._queue, letter_id, back=False))


class SimBroker:
    """See prpc.brokers.base.Broker."""

    def __init__(self, settings: Settings, site: Site) -> None:
        self.settings, self.site = settings, site
        self.capabilities = Capabilities(keeps_replies=site.store.keeps, atomic_settle=site.store.atomic)
        self.link = SimLink(site, settings)
        #: The broker's clock, from `connect` on.
        self.clock = BrokersClock()
        self._parts: list[Any] = []
        self._bounds: dict[str, QueueBound] = {}
        self._started: set[asyncio.Task[Any]] = set()
        self._record: tuple[str, ServerRecord, float] | None = None

    async def connect(self) -> None:
        await self.link.open()
        self.clock = BrokersClock(asyncio.get_running_loop().time)
        asked = asyncio.get_running_loop().time()
        self.learn(await self.link.ask("time", self.site.store.clock), asked)

    def learn(self, told: float, asked: float) -> None:
        """The broker's clock showed `told` at a moment between `asked` (loop time) and now."""
        self.clock.learn(self.site.wall + told, self.site.wall + told, asked)

    async def close(self) -> None:
        parts, self._parts = self._parts, []
        for part in parts:
            await part.close()
        for bound in self._bounds.values():
            await bound.close()
        await self.flush()
        await self.link.close()

    async def flush(self) -> None:
        """Until everything that was started is decided."""
        while self._started:
            await asyncio.wait(list(self._started))

    def start(self, operation: str, work: Callable[[], T], *, insist: bool = False) -> asyncio.Task[T]:
        """Begin at once, whether or not somebody waits for it."""
        asked = self.link.insist(operation, work) if insist else self.link.ask(operation, work)
        return self.keep_task(asked, f"sim {operation}")

    def keep_task(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task that `flush` waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._started.discard(task)
        if not task.cancelled():
            task.exception()  # whoever does not await it has nothing to be told

    async def ping(self) -> float:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await self.link.ask("ping", lambda: None)
        return loop.time() - asked

    def now(self) -> float:
        return self.clock.now()

    async def declare(self, queue: str) -> None:
        QueueNames(queue)  # it may be none
        await self.link.ask("declare", lambda: self._declare(queue))

    def _declare(self, queue: str) -> None:
        self.site.store.declare(queue, self.settings.duplicate_window, self.settings.max_queue_length)
        if self._record is not None and self._record[1].instance not in self.site.store.queue(queue).servers:
            self.site.store.announce(*self._record)

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        settings, store = self.settings, self.site.store
        work = lambda: store.publish(queue, call, settings.duplicate_window, settings.max_queue_length)  # noqa: E731
        if store.admits or not settings.max_queue_length:
            return self.keep_task(self._publish(queue, self.start("publish", work)), "sim publish")
        if queue not in self._bounds:
            self._bounds[queue] = QueueBound(queue, settings.max_queue_length, lambda: self.state(queue))
        return self.keep_task(self._bounds[queue].send(lambda: self.start("publish", work)), "sim publish")

    async def _publish(self, queue: str, asked: asyncio.Task[int | None]) -> None:
        length = await asked
        if length is not None:
            raise queue_full(queue, length)

    def dead_letters(self, queue: str) -> _DeadLetters:
        return _DeadLetters(self, queue)

    def consume(self, queue: str, *, consumer: str) -> SimConsumer:
        kind = SimConsumer if self.site.store.atomic else SharingConsumer
        return self._keep(kind(self, queue, consumer))

    async def open_mailbox(self, queue: str) -> _Mailbox:
        return self._keep(await _Mailbox(self, queue).open())

    async def listen(self, queue: str) -> _Listener:
        return self._keep(await _Listener(self, queue).open())

    def _keep(self, part: T) -> T:
        self._parts.append(part)
        return part

    def post(self, queue: str, address: str, body: bytes, *, message_id: UUID) -> Awaitable[None]:
        return self.start("post", lambda: self.site.store.post(queue, address, body))

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        return self.start("broadcast", lambda: self.site.store.broadcast(queue, body))

    async def announce(self, queue: str, record: ServerRecord, ttl: float) -> None:
        self._record = queue, record, ttl
        await self.link.ask("announce", lambda: self.site.store.announce(queue, record, ttl))

    async def withdraw(self, queue: str, instance: str) -> None:
        self._record = None
        await self.link.ask("withdraw", lambda: self.site.store.withdraw(queue, instance))

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        return await self.link.ask("servers", lambda: self.site.store.servers(queue))

    async def state(self, queue: str) -> QueueState:
        return await self.link.ask("state", lambda: self.site.store.state(queue))
