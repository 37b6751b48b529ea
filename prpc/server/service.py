"""One run of a server: opens everything from the broker to the pump, and takes it down again in the right order."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Consumer, Listener
from prpc.codec import Codec, Limits
from prpc.deadline import Clock
from prpc.exceptions import DecodeError
from prpc.protocol.facts import read_control
from prpc.server.catalogue import Catalogue
from prpc.server.dispatcher import Dispatcher
from prpc.server.events import Events, workers_for_events
from prpc.server.health import Health, Phase
from prpc.server.health_http import HealthPort
from prpc.server.logs import logger
from prpc.server.middleware import Middleware
from prpc.server.overdue import end_overdue
from prpc.server.presence import Presence
from prpc.server.publishing import Publisher
from prpc.server.registry import RegisteredFunction, Registry, check_feeds
from prpc.server.seal import Seal
from prpc.server.streams import Streams
from prpc.settings import Settings, safe_url
from prpc.workers import create_pool
from prpc.workers.base import WorkerKind, WorkerPool

__all__ = ["Service"]

#: What a stopping server waits for readers to have the last items of streams that have ended.
SECONDS_TO_READ = 5.0

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


class Service:
    """A server from `serve` to its end. Bound to the event loop that makes it."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        clock: Clock,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._lifespan = lifespan
        self._middleware = middleware
        self._catalogue = Catalogue(registry)
        self._grace = settings.shutdown_grace
        self._stop = asyncio.Event()
        self._pools: dict[WorkerKind, WorkerPool] = {}
        self._opened = False
        #: What there are workers for: the kind, and whether for events or for calls.
        self._served: set[tuple[WorkerKind, bool]] = set()
        #: Kinds that stream, and whether streams that are sent are heard.
        self._streaming, self._hears_streams = frozenset[WorkerKind](), False
        self._dispatcher: Dispatcher | None = None
        #: Calls that ended otherwise than by themselves, or whose outcome the broker did not take, when the server stopped.
        self.cut_short = 0
        self.health = Health(clock, settings.health_window)

    def lacks(self, function: RegisteredFunction) -> str | None:
        """What is missing for a function that is registered now: pools are made when calls are about to be taken.

        Raises RegistrationError as for a function that was there before.
        """
        if not self._opened:
            return None
        check_feeds(function)
        if function.streams:
            return None if function.kind in self._streaming else f"streaming function of type {function.kind.value!r}"
        if (function.kind, function.broadcast) not in self._served:
            return f"{'broadcast function' if function.broadcast else 'function'} of type {function.kind.value!r}"
        return None if self._hears_streams or not function.binder.feeds else "function that streams or reads a stream"

    def request_stop(self, grace: float | None = None) -> None:
        """Make `serve` drain and return. `grace`: seconds for the calls that run; None for the setting's."""
        if grace is not None:
            self._grace = grace
        self._stop.set()

    def end_overdue(self) -> None:
        """End the calls whose deadline has come by the clock; for one that is moved by hand, which no timer follows."""
        if self._dispatcher is not None:
            end_overdue(self._dispatcher.running, self._clock)

    async def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until `request_stop`. Raises BrokerUnavailableError where the broker cannot be reached at the start."""
        queue = self._settings.queue_name
        async with AsyncExitStack() as stack:
            await self._open_health_port(stack)
            broker = await self._open_broker(stack)
            seal = Seal(self._settings.secret_key, queue, broker.now)
            if self._lifespan is not None:  # before the pools: it may register functions, and outlives those that run
                await stack.enter_async_context(self._lifespan())
            await self._open_pools(stack)
            codec = _codec(self._settings)
            streams = await self._open_streams(stack, broker, codec, seal)
            listener = await broker.listen(queue)
            stack.push_async_callback(listener.close)
            consumer = broker.consume(queue, consumer=f"{self._settings.instance_name}_{uuid.uuid4().hex[:12]}")
            stack.push_async_callback(consumer.close)
            await consumer.open()
            dispatcher = self._dispatcher = self._make_dispatcher(broker, consumer, codec, seal, streams)
            events = self._make_events(broker, codec)
            presence = Presence(
                broker, self._settings, self._facts, health=self.health, running=lambda: dispatcher.running, pools=self._pools
            )
            presence.change(Phase.SERVING)
            await presence.announce()
            logger.info(
                "serving %d functions from queue %r on %s", len(self._registry), queue, safe_url(self._settings.url_broker)
            )
            on_ready()
            await self._pump(presence, dispatcher, events, listener, seal, streams)
        logger.info("stopped serving queue %r", queue)

    def _make_dispatcher(
        self, broker: Broker, consumer: Consumer, codec: Codec, seal: Seal, streams: Streams | None
    ) -> Dispatcher:
        queue = self._settings.queue_name
        return Dispatcher(
            consumer=consumer,
            codec=codec,
            registry=self._registry,
            pools=self._pools,
            slots=self._settings.max_number_worker,
            timeout=self._settings.timeout_worker,
            clock=self._clock,
            built_ins=self._catalogue.built_ins,
            schema_of=self._catalogue.schema_of,
            middleware=self._middleware,
            publisher=Publisher(broker, queue, seal),
            max_deliveries=self._settings.max_deliveries,
            seal=seal,
            streams=streams,
            mail=lambda address, body, message_id: broker.post(queue, address, seal.mail(body), message_id=message_id),
        )

    def _make_events(self, broker: Broker, codec: Codec) -> Events:
        return Events(
            self._settings,
            codec=codec,
            registry=self._registry,
            pools=self._pools,
            clock=self._clock,
            now=broker.now,
            middleware=self._middleware,
        )

    async def _open_health_port(self, stack: AsyncExitStack) -> None:
        """First to come and last to go: it tells of the start and of the draining, too."""
        settings = self._settings
        if settings.health_port:
            checks = {"/live": lambda: None, "/ready": self.health.obstacle}
            facts = {"queue": settings.queue_name, "instance": settings.instance_name}
            port = HealthPort(settings.health_host, settings.health_port, checks, facts)
            stack.push_async_callback(port.close)
            await port.open()

    async def _open_broker(self, stack: AsyncExitStack) -> Broker:
        broker = create_broker(self._settings)
        stack.push_async_callback(broker.close)
        await broker.connect()
        await broker.declare(self._settings.queue_name)
        return broker

    async def _open_pools(self, stack: AsyncExitStack) -> None:
        """Pools of those kinds that have functions; binders and descriptions are made before the first call needs them."""
        self._opened = True
        for kind in WorkerKind:
            functions = [function for function in self._registry if function.kind is kind and not function.streams]
            if not functions:
                continue
            pool = create_pool(kind, self._slots(functions, kind), self._settings, functions=[f.function for f in functions])
            stack.push_async_callback(pool.stop)
            await pool.start()
            self._pools[kind] = pool
        for function in self._registry:
            check_feeds(function)

    async def _open_streams(self, stack: AsyncExitStack, broker: Broker, codec: Codec, seal: Seal) -> Streams | None:
        """The way of the items of streaming functions; None where there is none."""
        slots = Counter[WorkerKind]()
        for function in self._registry:
            if function.streams:
                slots[function.kind] += function.max_concurrency or 1
        if not slots and not any(function.binder.feeds for function in self._registry):
            return None
        self._streaming, self._hears_streams = frozenset(slots), True
        streams = Streams(broker, self._settings, codec, seal)
        stack.push_async_callback(streams.close)
        await streams.open(slots)
        return streams

    def _slots(self, functions: Sequence[RegisteredFunction], kind: WorkerKind) -> int:
        """For calls and for events apart: neither shall wait for the other."""
        calls = self._settings.max_number_worker
        slots = {False: calls, True: workers_for_events(kind, calls)}
        wanted = {function.broadcast for function in functions}
        self._served |= {(kind, broadcast) for broadcast in wanted}
        return sum(slots[broadcast] for broadcast in wanted)

    async def _pump(
        self,
        presence: Presence,
        dispatcher: Dispatcher,
        events: Events,
        listener: Listener,
        seal: Seal,
        streams: Streams | None,
    ) -> None:
        pump = asyncio.create_task(dispatcher.run(), name="prpc-pump")
        ear = asyncio.create_task(_hear(listener, dispatcher, events, seal), name="prpc-control")
        voice = asyncio.create_task(presence.run(), name="prpc-presence")
        stop = asyncio.create_task(self._stop.wait(), name="prpc-stop")
        mail = [] if streams is None else [asyncio.create_task(streams.run(), name="prpc-streams")]
        helpers = [ear, voice, stop, *mail]
        try:
            await asyncio.wait([pump, ear, stop, *mail], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._grace = 0.0
            raise
        finally:
            logger.info("stopping: %d calls run", len(dispatcher.running) + events.running)
            presence.change(Phase.DRAINING)
            self.cut_short = sum(await asyncio.gather(dispatcher.drain(self._grace), events.drain(self._grace)))
            if streams is not None and not mail[0].done():
                await streams.drain(SECONDS_TO_READ)
            for task in helpers:
                task.cancel()
            results = await asyncio.gather(pump, *helpers, return_exceptions=True)
            await presence.withdraw()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _facts(self) -> dict[str, object]:
        return {
            "functions": {function.name: self._catalogue.schema_of(function.name) for function in self._registry},
            "schema": self._catalogue.schema,
            "capacity": self._settings.max_number_worker,
        }


def _codec(settings: Settings) -> Codec:
    return Codec(
        Limits(max_bytes=settings.max_message_bytes, max_depth=settings.max_message_depth, max_items=settings.max_message_items)
    )


async def _hear(listener: Listener, dispatcher: Dispatcher, events: Events, seal: Seal) -> None:
    while True:
        for body in await listener.receive():
            try:
                said = read_control(seal.open_control(body))
                dispatcher.cancel(said.cancelled)
                if said.event is not None:
                    events.hear(said.event)
            except DecodeError as exc:
                logger.warning("a control message was refused: %s", exc)
