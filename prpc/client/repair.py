"""Outcomes that did not come by themselves: the kept replies of calls are looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from prpc.brokers.awaiting import background
from prpc.client.call import Call
from prpc.client.connection import Connection
from prpc.exceptions import DecodeError
from prpc.protocol.pending import PendingCalls

__all__ = ["Repair"]

#: Seconds between two tries to collect after a gap: the first and the longest.
COLLECT_DELAYS = (0.1, 2.0)
#: Seconds between a reply of which not even the id can be read and the search for the call that it was meant for.
DOUBT = 0.1


class Repair:
    """Looks in the place of one pump. Belongs to its loop's thread."""

    def __init__(
        self,
        pending: PendingCalls[Call],
        connection: Callable[[], Connection | None],
        deliver: Callable[[Connection, Iterable[bytes]], None],
        unreadable: Callable[[Call, Exception], None] | None,
    ) -> None:
        """`deliver` takes the kept replies. `unreadable` is told of calls whose kept reply was none; None: there may be such, as
        anybody can write there and only what is signed is believed."""
        self._pending, self._connection, self._deliver, self._unreadable = pending, connection, deliver, unreadable
        self._tasks: set[asyncio.Task[bool | None]] = set()
        self._doubt: asyncio.TimerHandle | None = None

    def ask(self, message_id: UUID) -> None:
        """Look for this call's reply."""
        self._begin(background(self.collect([message_id])))

    def doubt(self) -> None:
        """Look soon for the call that an unreadable reply was meant for."""
        if self._doubt is None:
            self._doubt = asyncio.get_running_loop().call_later(DOUBT, self._look)

    def after_gap(self, connection: Connection) -> None:
        """Wake-ups may have been missed: look for the kept replies of everything that is waited for, until that worked."""
        self._begin(background(self._until_collected(connection)))

    def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()

    async def collect(self, message_ids: Iterable[UUID]) -> bool:
        """Look for kept replies of these calls; False where the broker could not be asked."""
        connection = self._connection()
        kept: Mapping[UUID, bytes] | None = None if connection is None else await connection.collect(message_ids)
        if connection is None or kept is None:
            return False
        self._deliver(connection, kept.values())
        for call in filter(None, map(self._pending.get, kept if self._unreadable is not None else ())):
            assert self._unreadable is not None
            text = "what is kept as its outcome cannot be read"
            self._unreadable(call, DecodeError(text, reason="form", message_id=str(call.message_id)))
        return True

    def _look(self) -> None:
        self._doubt = None
        self._begin(background(self.collect(self._pending.waiting())))

    async def _until_collected(self, connection: Connection) -> None:
        delay, longest = COLLECT_DELAYS
        while connection is self._connection() and not await self.collect(self._pending.waiting()):
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)

    def _begin(self, task: asyncio.Task[bool] | asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
