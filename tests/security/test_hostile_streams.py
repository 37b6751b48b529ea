"""Hostile mail about streams, to servers and clients, between good streams: nobody is stopped, and nothing of it is run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hostile_bodies import CANARY_FILE, CANARY_MODULE, changed_bytes, changed_tree, nested, reference_tree, tag_tree
from hostile_replies import garbage, new_id
from hostile_world import SEED

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers import create_broker
from prpc.protocol.streams import LEFT
from prpc.settings import Settings

#: Hostile mails, and how many of them stand between two good streams.
MAILS, BETWEEN = 3000, 60
#: Numbers of which one of a mail is made.
NUMBERS = (0, 1, 2, 255, 10**6, LEFT - 1, LEFT, 2**63 - 1, 2**63, 10**30, -1)

pytestmark = pytest.mark.timeout(180)


def mail_body(rng: Random, message_id: UUID) -> bytes:
    """Items or words about this stream, damaged in any way or in none."""
    number = lambda: rng.choice(NUMBERS)  # noqa: E731 - one of them, each time
    parameter = rng.choice(("", "0", "numbers", "x" * 600, "\ud800"))
    if rng.random() < 0.5:
        row = [message_id.hex, parameter, *(number() for _ in range(5))]
        text = json.dumps(
            {"prpc_mail": "words", "reader": rng.choice(("", "nobody", "\n", "9:x")), "words": [row] * rng.randrange(3)}
        )
    else:
        members = {"id": str(message_id), "run": number(), "first": number(), "writer": "nobody", "items": ["HERE"]}
        if parameter:
            members["parameter"] = parameter
        if rng.random() < 0.3:
            members["total"] = number()
        text = json.dumps({"prpc_mail": "items", **members})
    kind = rng.randrange(8)
    if kind == 0:
        return b'{"prpc_mail": "items", ' + garbage(rng)
    if kind == 1:
        return changed_bytes(rng, text.encode())
    if kind == 2:
        return changed_tree(rng, text).encode("utf-8", "surrogatepass")
    if kind == 3:
        return text.replace('"HERE"', tag_tree(rng)).encode()
    if kind == 4:
        return text.replace('"HERE"', reference_tree(rng)).encode()
    if kind == 5:
        return text.replace('"HERE"', nested(rng, rng.choice((99, 101, 3000)))).encode()
    return text.encode()


class Site:
    """A server, its client, and somebody hostile who knows both of their mailboxes."""

    def __init__(self, settings: Settings) -> None:
        self.rng = Random(SEED)
        self.uncaught: list[str] = []
        self.settings = settings
        self.app = AppServer(settings.type_broker, settings.url_broker, "thread", name_queue=settings.queue_name)
        self.app.register_funcs(count, total)
        self.app.register_funcs(doubled, worker_type="async")

    async def run(self, scenario: Callable[[Site], Any]) -> None:
        settings = self.settings
        serving = asyncio.create_task(self.app.serve())
        await self.app.ready
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.uncaught.append(str(context)))
        self.stranger = create_broker(settings)
        await self.stranger.connect()
        async with AsyncClient(settings.type_broker, settings.url_broker, settings.queue_name) as self.client:
            stream = self.client.stream("count", 10**6)
            await anext(stream)
            self.addresses = [stream._reading.writer, self.client.channel.pump().streams._address()]
            await stream.aclose()
            await scenario(self)
            await self.good()
        assert self.app.ready.is_set()
        await self.stranger.close()
        await self.app.stop()
        await serving
        assert not self.uncaught
        assert CANARY_MODULE not in sys.modules
        assert not Path(CANARY_FILE).exists()

    async def good(self) -> None:
        number = self.rng.randrange(600)
        assert [item async for item in self.client.stream("count", number)] == list(range(number))
        assert await self.client.call("total", range(number)) == sum(range(number))
        assert [item async for item in self.client.stream("doubled", range(number))] == [2 * item for item in range(number)]

    async def attack(self, message_id: UUID | None, count: int) -> None:
        for _ in range(count):
            body = mail_body(self.rng, message_id or new_id(self.rng))
            for address in self.addresses:
                await self.stranger.post(self.settings.queue_name, address, body, message_id=new_id(self.rng))


def count(number: int) -> Iterator[int]:
    yield from range(number)


def total(numbers: Iterator[int]) -> int:
    return sum(numbers)


async def doubled(numbers: AsyncIterator[int]) -> AsyncIterator[int]:
    async for number in numbers:
        yield 2 * number


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real_redis), "kafka"])
def site(request: pytest.FixtureRequest, settings_for: Callable[..., Settings]) -> Site:
    return Site(settings_for(request.param))


def played(site: Site, scenario: Callable[[Site], Any]) -> None:
    try:
        asyncio.run(site.run(scenario))
    except BaseException as exc:
        exc.add_note(f"seed {SEED}")
        raise


def test_mail_about_no_stream(site: Site) -> None:
    async def scenario(site: Site) -> None:
        for _ in range(MAILS // BETWEEN):
            await site.attack(None, BETWEEN)
            await site.good()

    played(site, scenario)


def test_mail_about_a_stream_that_runs(site: Site) -> None:
    """Without a key, who knows its id may spoil that stream; whatever becomes of it, its reader is told, and nobody else."""

    async def scenario(site: Site) -> None:
        for _ in range(10):
            victims = [site.client.stream("count", 10**6), site.client.stream("doubled", range(10**6))]
            for victim in victims:
                await anext(victim)
                await site.attack(victim.message.message_id, BETWEEN)
                await victim.aclose()
            await site.good()

    played(site, scenario)
