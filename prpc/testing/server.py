"""An app that is served for the length of a block: in a thread for plain code, in the running loop for coroutines."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar

from prpc.app_client import AsyncClient, Client
from prpc.app_server import AppServer
from prpc.brokers import calls_age_by
from prpc.exceptions import ConfigurationError
from prpc.settings import Settings
from prpc.testing.clock import ManualClock
from prpc.testing.default import default_client
from prpc.testing.hasten import Hastener, Overdue

__all__ = ["Running", "ServerFactory", "running"]

C = TypeVar("C", Client, AsyncClient)

#: Seconds that a server gets to start and to end.
_START_SECONDS = 30.0
#: The loop of a server in a thread, and the event that makes it leave.
_Handle: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class ServerFactory(Protocol):
    """Type of the fixture `prpc_server`: serves an app until the test ends; parameters as for `running`."""

    def __call__(
        self,
        app: AppServer,
        type_broker: str = "memory",
        url: str | None = None,
        *,
        queue: str | None = None,
        use: bool = False,
        clock: ManualClock | None = None,
    ) -> Client: ...


def running(
    app: AppServer,
    type_broker: str = "memory",
    url: str | None = None,
    *,
    queue: str | None = None,
    use: bool = False,
    clock: ManualClock | None = None,
) -> Running:
    """Serve the app within a block, and give a client for it.

        with running(app) as client:
            assert client.call("summ", 1, 2).result() == 3.5

        async with running(app) as client:
            assert await client.call("summ", 1, 2) == 3.5

    `with` serves in a thread of its own and gives a `Client`, `async with` serves in the running loop and gives an
    `AsyncClient`. Everything goes the whole way: lifespan, codec, queue, middleware, worker, reply. Whatever broker the server
    names is left alone. At the end the server drains.

    `type_broker`, `url`: another broker than one in memory. `queue`: its queue there (default: in memory the app's own name,
    elsewhere a new one). `use`: calls that name no client, as those of stubs, go to this server, too. `clock`: deadlines of
    calls and of functions come when it is moved, and `current_call()` tells its time.

    Raises what the start of the server raises, and ConfigurationError for a broker without a URL.
    """
    return Running(app, type_broker, url, queue, use, clock)


class Running:
    """What `running` gives: a context manager for plain code and for coroutines."""

    def __init__(
        self, app: AppServer, type_broker: str, url: str | None, queue: str | None, use: bool, clock: ManualClock | None
    ) -> None:
        in_memory = type_broker == "memory"
        if url is None and not in_memory:
            raise ConfigurationError(f"running(app, {type_broker!r}) needs the broker's address: url=...")
        self._app = app
        self._type_broker = type_broker
        self._url = url or f"memory://{uuid.uuid4().hex}"
        # Where others may serve or call, a name that nobody else has.
        self._queue = queue or (app.settings.queue_name if in_memory else f"test_{uuid.uuid4().hex}")
        self._use = use
        self._clock = clock
        self._plain: AbstractContextManager[Client] | None = None
        self._async: AbstractAsyncContextManager[AsyncClient] | None = None

    def __enter__(self) -> Client:
        self._check_free()
        block = self._in_thread()
        client = block.__enter__()
        self._plain = block
        return client

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        block, self._plain = self._plain, None
        if block is not None:
            block.__exit__(kind, error, trace)

    async def __aenter__(self) -> AsyncClient:
        self._check_free()
        block = self._in_loop()
        client = await block.__aenter__()
        self._async = block
        return client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        block, self._async = self._async, None
        if block is not None:
            await block.__aexit__(kind, error, trace)

    def _check_free(self) -> None:
        if self._plain is not None or self._async is not None:
            raise RuntimeError("this block is entered already; call running(app) again for another one")

    @contextmanager
    def _in_thread(self) -> Iterator[Client]:
        started, ended = Future[_Handle](), Future[None]()
        with self._placed() as settings:
            thread = threading.Thread(target=_serve, args=(self._app, started, ended), name="prpc-testing-server", daemon=True)
            thread.start()
            loop, leave = started.result()
            try:
                with _client(Client, settings) as client, self._taken(client, loop):
                    yield client
            finally:
                with suppress(RuntimeError):  # the loop is closed: the server has ended by itself
                    loop.call_soon_threadsafe(leave.set)
                ended.result(_START_SECONDS + settings.shutdown_grace)
                thread.join(_START_SECONDS)

    @asynccontextmanager
    async def _in_loop(self) -> AsyncIterator[AsyncClient]:
        with self._placed() as settings:
            async with _served(self._app), _client(AsyncClient, settings) as client:
                with self._taken(client, asyncio.get_running_loop()):
                    yield client

    @contextmanager
    def _placed(self) -> Iterator[Settings]:
        with ExitStack() as stack:
            settings = stack.enter_context(self._app._moved(self._type_broker, self._url, self._queue, self._clock))
            if self._clock is not None and self._type_broker == "memory":
                stack.enter_context(calls_age_by(self._clock.monotonic, self._url))
            yield settings

    @contextmanager
    def _taken(self, client: Client | AsyncClient, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """The block takes the clock's moves, and the calls that name no client."""
        with ExitStack() as stack:
            if self._use:
                stack.enter_context(default_client(client))
            if self._clock is not None:
                overdue = Overdue(loop, self._app._end_overdue)
                stack.enter_context(self._clock.watched(Hastener(client.channel).hasten, lambda: None))
                stack.enter_context(self._clock.watched(overdue.hold, overdue.let_go))
            yield


def _client(kind: type[C], settings: Settings) -> C:
    place = settings.type_broker, settings.url_broker, settings.queue_name
    return kind(*place, secret_key=settings.secret_key)


def _serve(app: AppServer, started: Future[_Handle], ended: Future[None]) -> None:
    """Body of the thread: `started` gets what ends the server, `ended` what came of it."""

    async def serve() -> None:
        async with _served(app) as serving:
            leave = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), leave))
            await asyncio.wait([serving, asyncio.ensure_future(leave.wait())], return_when=asyncio.FIRST_COMPLETED)

    try:
        asyncio.run(serve())
    except BaseException as exc:
        (ended if started.done() else started).set_exception(exc)
    else:
        ended.set_result(None)


@asynccontextmanager
async def _served(app: AppServer) -> AsyncIterator[asyncio.Task[None]]:
    """Serve in a task of the running loop. At the end it drains; what ended it before is raised."""
    serving = asyncio.create_task(app.serve(), name="prpc-testing-server")
    await _until_ready(app, serving)
    try:
        yield serving
    finally:
        await app.stop()
        await serving


async def _until_ready(app: AppServer, serving: asyncio.Task[None]) -> None:
    """Raises what ended the server before it was ready, TimeoutError where it is neither ready nor ended for long."""
    ready = asyncio.ensure_future(app.ready.wait())
    await asyncio.wait([serving, ready], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done() and ready.done():
        return
    timed_out = not serving.done()
    serving.cancel()
    ready.cancel()
    await asyncio.gather(serving, ready, return_exceptions=True)
    if timed_out:
        raise TimeoutError(f"the server was not ready within {_START_SECONDS:g} s")
    serving.result()
    raise RuntimeError("the server ended before it was ready")
