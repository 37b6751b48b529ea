"""One run of a server: opens everything from the broker to the pump, and takes it down again in the right order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import Broker, Listener
from prpc.codec import Codec, Limits
from prpc.deadline import Clock
from prpc.exceptions import DecodeError
from prpc.protocol.facts import read_cancel
from prpc.server.catalogue import Catalogue
from prpc.server.dispatcher import Dispatcher
from prpc.server.health import Health, Phase
from prpc.server.health_http import HealthPort
from prpc.server.logs import logger
from prpc.server.middleware import Middleware
from prpc.server.overdue import end_overdue
from prpc.server.presence import Presence
from prpc.server.registry import Registry
from prpc.server.seal import Seal
from prpc.settings import Settings, safe_url
from prpc.workers import create_pool
from prpc.workers.base import WorkerKind, WorkerPool

__all__ = ["Service"]

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
        self._dispatcher: Dispatcher | None = None
        #: Calls that ended otherwise than by themselves, or whose outcome the broker did not take, when the server stopped.
        self.cut_short = 0
        self.health = Health(clock, settings.health_window)

    def runs(self, kind: WorkerKind) -> bool:
        """Whether a function of this kind that is registered now can be run: pools are made when calls are about to be taken."""
        return not self._opened or kind in self._pools

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
            listener = await broker.listen(queue)
            stack.push_async_callback(listener.close)
            consumer = broker.consume(queue, consumer=f"{self._settings.instance_name}_{uuid.uuid4().hex[:12]}")
            stack.push_async_callback(consumer.close)
            await consumer.open()
            dispatcher = self._dispatcher = Dispatcher(
                consumer=consumer,
                codec=_codec(self._settings),
                registry=self._registry,
                pools=self._pools,
                slots=self._settings.max_number_worker,
                timeout=self._settings.timeout_worker,
                clock=self._clock,
                built_ins=self._catalogue.built_ins,
                schema_of=self._catalogue.schema_of,
                middleware=self._middleware,
                max_deliveries=self._settings.max_deliveries,
                seal=seal,
            )
            presence = Presence(
                broker, self._settings, self._facts, health=self.health, running=lambda: dispatcher.running, pools=self._pools
            )
            presence.change(Phase.SERVING)
            await presence.announce()
            logger.info(
                "serving %d functions from queue %r on %s", len(self._registry), queue, safe_url(self._settings.url_broker)
            )
            on_ready()
            await self._pump(presence, dispatcher, listener, seal)
        logger.info("stopped serving queue %r", queue)

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
            functions = [f.function for f in self._registry if f.kind is kind]
            if not functions:
                continue
            pool = create_pool(kind, self._settings.max_number_worker, self._settings, functions=functions)
            stack.push_async_callback(pool.stop)
            await pool.start()
            self._pools[kind] = pool
        for function in self._registry:
            _ = function.binder

    async def _pump(self, presence: Presence, dispatcher: Dispatcher, listener: Listener, seal: Seal) -> None:
        pump = asyncio.create_task(dispatcher.run(), name="prpc-pump")
        ear = asyncio.create_task(_hear_cancellations(listener, dispatcher, seal), name="prpc-cancellations")
        voice = asyncio.create_task(presence.run(), name="prpc-presence")
        stop = asyncio.create_task(self._stop.wait(), name="prpc-stop")
        helpers = [ear, voice, stop]
        try:
            await asyncio.wait([pump, ear, stop], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._grace = 0.0
            raise
        finally:
            logger.info("stopping: %d calls run", len(dispatcher.running))
            presence.change(Phase.DRAINING)
            self.cut_short = await dispatcher.drain(self._grace)
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


async def _hear_cancellations(listener: Listener, dispatcher: Dispatcher, seal: Seal) -> None:
    while True:
        for body in await listener.receive():
            try:
                dispatcher.cancel(read_cancel(seal.open_control(body)))
            except DecodeError as exc:
                logger.warning("a control message was refused: %s", exc)
