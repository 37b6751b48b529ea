"""The server's face: `AppServer` registers functions and serves them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, overload

from typing_extensions import Unpack

from prpc.deadline import Clock, SystemClock
from prpc.exceptions import PRPCError
from prpc.server import logs
from prpc.server.alone import ended_by_signals, freeze, run_alone
from prpc.server.middleware import Middleware
from prpc.server.registry import RegisteredFunction, Registry, needs_loop, public_methods
from prpc.server.service import Service
from prpc.settings import Settings

__all__ = ["AppServer", "Readiness", "ServerSettings"]

F = TypeVar("F", bound=Callable[..., Any])

#: Exit code of a server that had to end calls when it stopped.
FORCED = 3
#: What `lifespan=` takes: called with the server, gives what is entered before the first call and left after the last.
Lifespan = Callable[["AppServer"], AbstractAsyncContextManager[Any]]


class ServerSettings(TypedDict, total=False):
    """Further settings of a server by keyword; meaning, units and variables stand in `prpc.settings.Settings`."""

    instance_name: str
    max_streams: int
    stream_reader_timeout: float
    stream_window: int
    shutdown_grace: float
    event_loop: str
    health_port: int
    health_host: str
    health_window: float
    max_deliveries: int
    dead_letters_kept: int
    process_start_method: str
    process_max_calls: int
    process_max_bytes: int
    connect_timeout: float
    broker_silence: float
    max_message_bytes: int
    max_message_depth: int
    max_message_items: int
    duplicate_window: int
    max_queue_length: int
    secret_key: str
    log_format: str
    log_level: str
    redis_expire: int
    redis_heartbeat: float
    redis_recover: float
    kafka_feedback_partitions: int
    kafka_queue_partitions: int
    kafka_replication: int


class _DefaultText(str):
    """A parameter's default, told by its class from the same text given by a caller."""


class _DefaultNumber(int):
    """A parameter's default, told by its class from the same number given by a caller."""


def _given(value: Any) -> Any:
    """None for a default: then the environment decides."""
    return None if isinstance(value, _DefaultText | _DefaultNumber) else value


class Readiness:
    """Whether a server takes calls: `await app.ready`, `await app.ready.wait()`, `app.ready.is_set()`."""

    def __init__(self) -> None:
        self._set = False
        self._error: BaseException | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether the server takes calls now."""
        return self._set

    async def wait(self) -> None:
        """Wait until the server takes calls. Raises what its start raised."""
        if self._set:
            return
        if self._error is not None:
            raise self._error
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
        if self._error is not None:
            raise self._error

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    def change(self, ready: bool, error: BaseException | None = None) -> None:
        """For the server: it takes calls now, or no more; `error` is what ended it."""
        self._set = ready
        self._error = error
        if ready or error is not None:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)


class AppServer:
    """Serves Python functions to other programs through a broker.

    What is not given comes from the environment (`PRPC_TYPE_BROKER`, `PRPC_URL_BROKER`, `PRPC_QUEUE_NAME`, ...), then the
    default. Raises ConfigurationError naming what cannot be used. Several servers may live in one process.
    """

    def __init__(
        self,
        type_broker: str | None = None,
        broker_url: str | None = None,
        default_type_worker: str = _DefaultText("thread"),
        max_number_worker: int = _DefaultNumber(4),
        timeout_worker: timedelta | float | None = None,
        name_queue: str = _DefaultText("task_prpc"),
        *,
        group_name: str = _DefaultText("prpc_group_consumers"),
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
        **settings: Unpack[ServerSettings],
    ) -> None:
        """Make a server; nothing is opened before it starts.

        `type_broker`: "redis", "kafka" or "memory". `default_type_worker`: "thread", "process" or "async".
        `max_number_worker`: calls that run at once. `timeout_worker`: longest run of one call (a number is seconds).
        `lifespan`: called with the server, gives an async context manager around its whole run.
        `middleware`: see `prpc.server.middleware`.
        """
        self.settings = Settings.from_env(
            type_broker=type_broker,
            url_broker=broker_url,
            default_type_worker=_given(default_type_worker),
            max_number_worker=_given(max_number_worker),
            timeout_worker=timeout_worker.total_seconds() if isinstance(timeout_worker, timedelta) else timeout_worker,
            queue_name=_given(name_queue),
            group_name=_given(group_name),
            **settings,
        )
        #: Set while the server takes calls; `await app.ready` waits for it.
        self.ready = Readiness()
        self._clock: Clock = SystemClock()
        self._registry = Registry()
        self._lifespan = lifespan
        self._middleware: list[Middleware] = list(middleware)
        self._service: Service | None = None
        self._ended: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"AppServer({self.settings.type_broker!r}, queue={self.settings.queue_name!r}, functions={len(self._registry)})"

    # Registration.

    @overload
    def decorator_reg_func(self, worker_type: F, /) -> F: ...
    @overload
    def decorator_reg_func(
        self,
        worker_type: str | None = None,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        idempotent: bool = False,
        max_concurrency: int | None = None,
        broadcast: bool = False,
    ) -> Callable[[F], F]: ...
    def decorator_reg_func(
        self,
        worker_type: Any = None,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        idempotent: bool = False,
        max_concurrency: int | None = None,
        broadcast: bool = False,
    ) -> Any:
        """Register the decorated function, which stays as it is and callable locally. Also available as `function`.

        `worker_type`: None for the server's default. `name`: under which clients call it. `timeout`: its longest run.
        `idempotent`: running it twice does no harm, so it is repeated when its server or worker is lost.
        `max_concurrency`: most calls of it that run at once in this server. A generator streams its items.
        `broadcast`: a call of it is an event for every server of the queue: each runs it, and nobody gets a result.
        Raises RegistrationError. Works without parentheses, too.
        """
        if callable(worker_type):
            self.register_func(worker_type)
            return worker_type

        def register(function: F) -> F:
            self.register_func(
                function,
                worker_type,
                name=name,
                timeout=timeout,
                idempotent=idempotent,
                max_concurrency=max_concurrency,
                broadcast=broadcast,
            )
            return function

        return register

    function = decorator_reg_func

    def register_func(
        self,
        func: Callable[..., Any],
        worker_type: str | None = None,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        idempotent: bool = False,
        max_concurrency: int | None = None,
        broadcast: bool = False,
    ) -> None:
        """Register a function; parameters and errors as for `decorator_reg_func`."""
        worker_type = worker_type or self.settings.default_type_worker
        self._registry.add(
            func,
            worker_type,
            name=name,
            timeout=timeout,
            idempotent=idempotent,
            max_concurrency=max_concurrency,
            broadcast=broadcast,
            lacks=None if self._service is None else self._service.lacks,
            max_streams=self.settings.max_streams,
        )

    def register_funcs(self, *funcs: Callable[..., Any], worker_type: str | None = None) -> None:
        """Register several functions under their own names."""
        for func in funcs:
            self.register_func(func, worker_type)

    def register_service(
        self,
        obj: object,
        prefix: str = "",
        *,
        worker_type: str | None = None,
        timeout: timedelta | float | None = None,
        idempotent: bool = False,
    ) -> None:
        """Register every public method of an object as `prefix` + its name.

        Methods with `async def` run async, plain ones by `worker_type` (default: the server's, "thread" where that is async).
        """
        plain = worker_type or self.settings.default_type_worker
        for name, method in public_methods(obj):
            kind = "async" if needs_loop(method) else ("thread" if plain == "async" else plain)
            self.register_func(method, kind, name=prefix + name, timeout=timeout, idempotent=idempotent)

    def add_middleware(self, middleware: Middleware) -> Middleware:
        """Put a further middleware inside the ones that are there; usable as a decorator. Counts from the next start."""
        self._middleware.append(middleware)
        return middleware

    @property
    def functions(self) -> tuple[RegisteredFunction, ...]:
        """The registered functions in the order of registration."""
        return tuple(self._registry)

    # Serving.

    def start(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return.

        Sets up the log as the settings say. The first signal stops taking calls and waits for those that run up to
        `shutdown_grace` seconds; a second one ends the process at once. Where calls had to be ended after that time, or
        outcomes could not be handed over, the process exits with 3. Where the server cannot start or fails, one line says
        why and the process exits with 1.
        """
        logs.configure(self.settings.log_format, self.settings.log_level)
        try:
            cut_short = run_alone(self._start, self.settings)
        except PRPCError as exc:
            print(f"prpc: {exc}", file=sys.stderr)  # noqa: T201 - for the person at the terminal, whatever the log's level
            raise SystemExit(1) from None
        if cut_short:
            raise SystemExit(FORCED)

    async def serve(self) -> None:
        """Serve in the running event loop until `stop`, or until cancelled (then calls that run are ended at once).

        Raises BrokerUnavailableError where the broker cannot be reached at the start. Later trouble is ridden out.
        """
        await self._serve(self._new_service(self.settings), lambda: None)

    async def stop(self, grace: float | None = None) -> None:
        """Drain as on SIGTERM and wait until `serve` is done. `grace`: seconds; None for the setting's. Idempotent."""
        if self._service is not None and self._ended is not None:
            self._service.request_stop(grace)
            await self._ended.wait()

    def _new_service(self, settings: Settings) -> Service:
        lifespan = self._lifespan
        entered = None if lifespan is None else (lambda: lifespan(self))
        return Service(settings, self._registry, clock=self._clock, lifespan=entered, middleware=self._middleware)

    async def _serve(self, service: Service, on_ready: Callable[[], None]) -> None:
        if self._service is not None:
            raise RuntimeError("this AppServer is serving already")
        self._service = service
        self._ended = asyncio.Event()

        def ready() -> None:
            on_ready()
            self.ready.change(True)

        self.ready.change(False)
        try:
            await service.serve(ready)
            self.ready.change(False)
        except BaseException as exc:
            self.ready.change(False, RuntimeError("the server was cancelled") if isinstance(exc, asyncio.CancelledError) else exc)
            raise
        finally:
            self._service = None
            self._ended.set()

    async def _start(self) -> int:
        service = self._new_service(self.settings)
        with ended_by_signals(asyncio.get_running_loop(), service):
            await self._serve(service, freeze)
        return service.cut_short

    @contextmanager
    def _moved(self, type_broker: str, url: str, queue: str, clock: Clock | None) -> Iterator[Settings]:
        """For `prpc.testing`: this server on another broker and, where one is given, by another clock."""
        before = self.settings, self._clock
        self.settings = replace(self.settings, type_broker=type_broker, url_broker=url, queue_name=queue)
        self._clock = clock or self._clock
        try:
            yield self.settings
        finally:
            self.settings, self._clock = before

    def _end_overdue(self) -> None:
        """For `prpc.testing`, in the server's loop: its clock was moved."""
        if self._service is not None:
            self._service.end_overdue()
