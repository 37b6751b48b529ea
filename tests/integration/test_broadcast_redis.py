"""Broadcast functions over Redis: fakeredis as well as a real one, and connections that are cut."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.dev_broker import Server, start_dev_broker
from prpc.exceptions import BrokerUnavailableError

PATIENCE = 50.0


class Servers:
    """Two servers of one queue, and what each heard."""

    def __init__(self, url: str, queue: str) -> None:
        self.url, self.queue = url, queue
        self.heard: list[list[int]] = [[], []]
        self.news = asyncio.Event()

    def app(self, number: int) -> AppServer:
        app, heard = AppServer("redis", self.url, "async", 8, name_queue=self.queue), self.heard[number]

        @app.function(broadcast=True)
        async def tell(what: int) -> None:
            heard.append(what)
            self.news.set()

        return app

    async def until_all_heard(self, what: int) -> None:
        while not all(what in heard for heard in self.heard):
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def serving(url: str, queue: str) -> AsyncIterator[tuple[Servers, AsyncClient]]:
    servers = Servers(url, queue)
    apps = [servers.app(number) for number in range(2)]
    tasks = [asyncio.create_task(app.serve()) for app in apps]
    try:
        for app in apps:
            await app.ready
        async with AsyncClient("redis", url, queue) as client:
            yield servers, client
    finally:
        for app, task in zip(apps, tasks, strict=True):
            await app.stop(grace=5)
            await task


def test_fakeredis_brings_events_too() -> None:
    pytest.importorskip("fakeredis")
    pytest.importorskip("lupa", exc_type=ImportError)

    async def scenario(url: str) -> None:
        async with asyncio.timeout(PATIENCE), serving(url, "q") as (servers, client):
            for number in range(10):
                assert await client.call("tell", number) is None
            await servers.until_all_heard(9)
        assert servers.heard == [list(range(10))] * 2

    with start_dev_broker(server=Server("fakeredis", None)) as broker:
        asyncio.run(scenario(broker.url))


@pytest.mark.real_redis
def test_cut_connections_make_no_event_run_twice(redis_url: str, queue: str) -> None:
    name = f"cut_{uuid.uuid4().hex}"

    def cut() -> int:
        with redis.Redis.from_url(redis_url) as admin:
            mine = [c["id"] for c in admin.client_list() if c["name"] == name]
            return sum(admin.client_kill_filter(_id=i) for i in mine)

    async def call(client: AsyncClient, number: int) -> bool:
        """Whether it went out for sure."""
        try:
            assert await client.options(timeout=20).call("tell", number) is None
        except BrokerUnavailableError:
            return False
        return True

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), serving(f"{redis_url}?client_name={name}", queue) as (servers, client):
            below = itertools.count(-1, -1)
            for start in range(0, 200, 40):
                while not await call(client, next(below)):  # until there is something to cut again
                    pass
                calls = [asyncio.create_task(call(client, number)) for number in range(start, start + 40)]
                await asyncio.sleep(0)
                assert await asyncio.to_thread(cut) > 0
                await asyncio.gather(*calls)
            later = 1000
            while not all(heard and heard[-1] >= 1000 for heard in servers.heard):  # until both listen again
                later += 1
                await call(client, later)
                await asyncio.sleep(0.01)
            await call(client, 9999)
            await servers.until_all_heard(9999)
        for heard in servers.heard:
            assert max(Counter(heard).values()) == 1
            assert len(heard) > 1

    asyncio.run(scenario())
