"""Where streams meet the rest: callers that go away, attempts, shutdown, middleware, threads. Whole servers over the memory broker."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from stream_kit import Book

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer

QUEUE = "q"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def until(check: Callable[[], object]) -> None:
    """A state that other tasks bring about."""
    while not check():
        await asyncio.sleep(0.001)


def make_app(url: str = "", **settings: Any) -> AppServer:
    return AppServer("memory", url or f"memory://{uuid.uuid4().hex}", "async", 4, name_queue=QUEUE, **settings)


@asynccontextmanager
async def serving(*apps: AppServer, grace: float = 5, **client: Any) -> AsyncIterator[AsyncClient]:
    """These servers, and a client of theirs."""
    servers = [asyncio.create_task(app.serve()) for app in apps]
    try:
        for app in apps:
            await app.ready.wait()
        async with AsyncClient("memory", apps[0].settings.url_broker, QUEUE, **client) as caller:
            yield caller
    finally:
        await asyncio.gather(*(app.stop(grace) for app in apps))
        await asyncio.gather(*servers)


def test_an_upload_that_nobody_waits_for_ends_with_its_call() -> None:
    book = Book()
    app = make_app()

    @app.function()
    async def listen(numbers: AsyncIterator[int]) -> None:
        async for _ in numbers:
            book.count("heard")
        await asyncio.to_thread(book.wait, "gate")

    async def sent() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def scenario() -> None:
        async with serving(app) as client:
            client.call("listen", sent())
            await until(lambda: book.made["heard"] == 5)
            gc.collect()
            book.open("gate")
            await until(lambda: not client.channel.pump().streams._desk.writers)

    run(scenario)
