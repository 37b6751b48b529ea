"""A server's word to its peers, to callers and to people: the announcement, and what runs.

It is repeated every few seconds, and each time it gets through is the proof of health: one command serves both.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from prpc.brokers.base import Broker, ServerRecord
from prpc.call_context import CurrentCall
from prpc.exceptions import BrokerUnavailableError
from prpc.server.health import Health, Phase
from prpc.server.logs import logger
from prpc.settings import Settings
from prpc.workers.base import Execution, WorkerKind, WorkerPool

__all__ = ["Presence"]

#: Announcements in one window of health: one may be late without the server counting as not ready.
PER_WINDOW = 2
#: Windows for which an announcement holds: so long after its sudden end a server still counts as there.
WINDOWS_HELD = 2.5
#: Running calls that are told one by one.
CALLS_TOLD = 200

Running = Callable[[], Iterable[tuple[CurrentCall, Execution]]]


class Presence:
    """Announces one server and keeps its health up to date."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        facts: Callable[[], Mapping[str, object]],
        *,
        health: Health,
        running: Running,
        pools: Mapping[WorkerKind, WorkerPool],
    ) -> None:
        """`facts`: what the server can do. `running`: the calls that run now, oldest first."""
        self._broker = broker
        self._queue, self._instance = settings.queue_name, settings.instance_name
        self._every = settings.health_window / PER_WINDOW
        self._holds = settings.health_window * WINDOWS_HELD
        self._patience = settings.connect_timeout
        self._facts = facts
        self._place = {"host": socket.gethostname(), "pid": os.getpid()}
        self._health = health
        self._running = running
        self._pools = pools
        self._news = asyncio.Event()
        self._silent = False

    async def announce(self) -> None:
        """Say it once. Raises BrokerUnavailableError."""
        self._news.clear()
        await self._broker.announce(self._queue, self._record(), self._holds)
        self._health.answered()

    async def run(self) -> None:
        """Say it every few seconds and whenever there is news, until cancelled. Trouble of the broker is ridden out."""
        while True:
            try:
                async with asyncio.timeout(self._every):
                    await self._news.wait()
            except TimeoutError:
                pass
            try:
                await self.announce()
            except BrokerUnavailableError as exc:
                if not self._silent:
                    logger.warning("not ready: the broker does not answer: %s", exc)
                self._silent = True
            else:
                if self._silent:
                    logger.info("the broker answers again")
                self._silent = False

    def change(self, phase: Phase) -> None:
        """The server is in this phase from now on; said at once."""
        self._health.phase = phase
        self._news.set()

    async def withdraw(self) -> None:
        """Take the announcement back, within the connect timeout and without raising: it runs out by itself, too."""
        try:
            async with asyncio.timeout(self._patience):
                await self._broker.withdraw(self._queue, self._instance)
        except (BrokerUnavailableError, TimeoutError) as exc:
            logger.warning("the announcement could not be taken back: %s", str(exc) or "the broker does not answer")

    def _record(self) -> ServerRecord:
        running = list(self._running())
        states = [pool.state() for pool in self._pools.values()]
        return ServerRecord(
            self._instance,
            {
                **self._facts(),
                **self._place,
                "running": len(running),
                "draining": self._health.phase is Phase.DRAINING,
                "abandoned": sum(state.abandoned for state in states),
                "replaced": sum(state.replaced for state in states),
                "calls": [_told(*run) for run in islice(running, CALLS_TOLD)],
            },
        )


def _told(call: CurrentCall, execution: Execution) -> dict[str, Any]:
    """A running call as plain facts; times in seconds at this moment."""
    left = call.remaining()
    return {
        "id": call.message_id,
        "function": call.function,
        "worker": execution.worker,
        "running": round(execution.running, 3),
        "left": None if left is None else round(left, 3),
        "attempt": call.attempt,
    }
