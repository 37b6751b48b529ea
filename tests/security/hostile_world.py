"""A server, its client, and somebody hostile at the broker: all in one process, so that nothing can happen unseen."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hostile_bodies import CANARY_FILE, CANARY_MODULE
from hostile_doors import Door, open_door, until
from hostile_ledger import Ledger, LogWatch
from hostile_server import GoodCall, Watch, make_server

from prpc import AppServer
from prpc.app_client import AsyncClient, AwaitableTask
from prpc.brokers import create_broker
from prpc.server import service
from prpc.server.dispatcher import Dispatcher
from prpc.settings import Settings

__all__ = ["SEED", "World", "opened"]

#: What the entries follow from.
SEED = os.environ.get("PRPC_TEST_HOSTILE_SEED", "1")
#: Seconds that a good call may take at most.
GOOD_SECONDS = 20.0


@dataclass
class World:
    """Everything that a hostile test looks at."""

    app: AppServer
    client: AsyncClient
    door: Door
    log: LogWatch
    watch: Watch
    ledger: Ledger
    dispatcher: Dispatcher
    #: Reply addresses: one that nobody answers from, and the client's own.
    mailboxes: list[str]
    processes: bool
    #: What the event loop met that nobody caught.
    uncaught: list[str] = field(default_factory=list)

    def start_good(self, rng: Random) -> tuple[GoodCall, AwaitableTask[Any]]:
        good = GoodCall(rng, processes=self.processes)
        task = self.client.options(timeout=GOOD_SECONDS).call(good.name, *good.args, **good.kwargs)
        self.ledger.known.add(task.message.message_id)
        return good, task

    async def start_gated(self, token: str) -> tuple[AwaitableTask[Any], asyncio.Event]:
        """A good call that runs, and what lets it end: its result is the token."""
        entered, opened = self.watch.gates[token] = asyncio.Event(), asyncio.Event()
        task = self.client.options(timeout=GOOD_SECONDS).call("gate", token)
        self.ledger.known.add(task.message.message_id)
        async with asyncio.timeout(GOOD_SECONDS):
            await entered.wait()
        return task, opened

    async def check_good(self, good: GoodCall, task: AwaitableTask[Any]) -> None:
        result = await task
        assert result == good.expected, f"{good.name}{good.args}"

    def check_server(self) -> None:
        """It serves as before, holds nothing any more, and did nothing that it was not asked to."""
        assert self.app.ready.is_set()
        assert not self.uncaught and not self.log.errors
        assert not self.watch.canary
        assert CANARY_MODULE not in sys.modules
        assert not Path(CANARY_FILE).exists()
        twice = {run: times for run, times in list(self.watch.ran.items()) if times > 1}
        assert not twice, f"ran more than once: {twice}"

    async def close_account(self, what: str) -> None:
        """Everything that was booked has ended, and is accounted for."""
        await until(self.door.quiet, "entries are left in the queue")
        await self.ledger.close()
        problems, account = self.ledger.problems, self.ledger.account
        ran = {UUID(message_id) for _, message_id in self.watch.ran}
        problems += [f"ran, and nobody had called it: {message_id}" for message_id in ran - self.ledger.known]
        assert not problems, f"seed {SEED}, {what}:\n" + "\n".join(problems[:20])
        assert account.sum == account.sent
        await self.check_table()

    async def check_table(self) -> None:
        """Nothing is kept of a call that has ended; the last one's end may be known to its caller first."""

        async def is_empty() -> bool:
            server, free = self.dispatcher, self.app.settings.max_number_worker
            holds = len(server.running) + len(server._table) + len(server._settlements) + len(self.client.channel.pump().pending)
            return not holds and server._free == free

        await until(is_empty, "the server or the client holds calls that have ended")


@asynccontextmanager
async def opened(settings: Settings, monkeypatch: pytest.MonkeyPatch, *, processes: bool) -> AsyncIterator[World]:
    """The world, with the server ready; at the end it stops, and what it leaves behind is looked at."""
    dispatchers: list[Dispatcher] = []

    def seen(**parts: Any) -> Dispatcher:
        dispatchers.append(Dispatcher(**parts))
        return dispatchers[-1]

    monkeypatch.setattr(service, "Dispatcher", seen)
    watch, door = Watch(), await open_door(settings)
    app = make_server(settings, watch, processes=processes)
    client = AsyncClient(settings.type_broker, settings.url_broker, settings.queue_name, secret_key=settings.secret_key)
    nobody = create_broker(settings)
    with LogWatch() as log:
        serving = asyncio.create_task(app.serve())
        try:
            await app.ready
            await nobody.connect()
            box = await nobody.open_mailbox(settings.queue_name)
            await client.ping()
            connection = client.channel.pump()._connection
            assert connection is not None
            addresses = [box.address, connection.mailbox.address]
            world = World(app, client, door, log, watch, Ledger(door, log), dispatchers[0], addresses, processes)
            asyncio.get_running_loop().set_exception_handler(lambda _, context: world.uncaught.append(str(context)))
            yield world
            await client.close()
            await app.stop()
            await serving
            assert await door.left_over() == []
        finally:
            await client.close()
            await nobody.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await door.close()
