"""For tests of programs that use PRPC: a server in memory, and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prpc.app_client import Client
from prpc.app_server import AppServer

__all__ = ["ManualClock", "running"]

#: Seconds that a server in memory gets to start and to end.
_START_SECONDS = 30.0


class ManualClock:
    """A Clock that stands still until it is moved: no test has to wait for a timeout."""

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._passed

    def now(self) -> datetime:
        """The start plus what was advanced."""
        return self._start + timedelta(seconds=self._passed)

    def advance(self, seconds: float) -> None:
        """Move on; never back (ValueError)."""
        if seconds < 0:
            raise ValueError(f"a clock cannot be moved back by {-seconds:g} s")
        self._passed += seconds


@contextmanager
def running(app: AppServer) -> Iterator[Client]:
    """Run the server in a thread of this process on a memory broker of its own, and give a client for it.

        with running(app) as client:
            assert client.call("summ", 1, 2).result() == 3.5

    Whatever broker the server names is left alone. Everything goes the whole way: codec, queue, worker, reply. At the end the
    server drains.
    """
    url = f"memory://{uuid.uuid4().hex}"
    started: Future[asyncio.AbstractEventLoop] = Future()
    with app._in_memory(url) as settings:
        thread = threading.Thread(target=_serve, args=(app, started), name="prpc-testing-server", daemon=True)
        thread.start()
        loop = started.result(_START_SECONDS)
        try:
            with Client("memory", url, settings.queue_name, secret_key=settings.secret_key) as client:
                yield client
        finally:
            asyncio.run_coroutine_threadsafe(app.stop(), loop).result(_START_SECONDS + settings.shutdown_grace)
            thread.join(_START_SECONDS)


def _serve(app: AppServer, started: Future[asyncio.AbstractEventLoop]) -> None:
    async def serve() -> None:
        serving = asyncio.ensure_future(app.serve())
        await asyncio.wait([serving, asyncio.ensure_future(app.ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            started.set_result(asyncio.get_running_loop())
        await serving

    try:
        asyncio.run(serve())
    except BaseException as exc:
        if started.done():
            raise
        started.set_exception(exc)
