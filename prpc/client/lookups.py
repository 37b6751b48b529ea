"""Names of hosts, looked up in threads of their own, and forks that wait for them.

A resolver holds locks of the C library while it looks a name up, and a process forked in that moment inherits them taken,
with no thread to give them back: every later look-up in the child would hang for ever. So a fork waits for what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from functools import partial
from typing import Any

__all__ = ["LookupLoop", "Lookups"]

#: Seconds that a fork waits for look-ups, at most: how long a resolver waits for a name server before it tries the next.
FORK_WAIT = 5.0


class Lookups:
    """Look-ups under way in this process: a fork waits for them, and none starts while it lasts."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._count = 0

    def resolve(self, *args: Any) -> list[Any]:
        """`socket.getaddrinfo(*args)`, of which forks know."""
        with self._change:
            self._count += 1
        try:
            return socket.getaddrinfo(*args)
        finally:
            with self._change:
                self._count -= 1
                self._change.notify_all()

    def hold(self) -> None:
        """Before a fork: wait until none is under way, and let none start."""
        self._change.acquire()
        self._change.wait_for(lambda: not self._count, FORK_WAIT)

    def forget(self) -> None:
        """In the forked child: those that were under way are the parent's."""
        self._count = 0

    def go_on(self) -> None:
        """After a fork, on both sides."""
        self._change.release()


class LookupLoop(asyncio.SelectorEventLoop):
    """Resolves names without an executor: executors take no more work once the main thread has ended, and calls may be made,
    or their connection be under way, in that moment."""

    def __init__(self, lookups: Lookups) -> None:
        super().__init__()
        self._lookups = lookups

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        resolve = partial(self._lookups.resolve, host, port, family, type, proto, flags)
        found: asyncio.Future[list[Any]] = self.create_future()

        def look_up() -> None:
            outcome: Any
            try:
                outcome = resolve()
            except Exception as exc:
                outcome = exc
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(_resolved, found, outcome)

        try:
            threading.Thread(target=look_up, name="prpc-resolver", daemon=True).start()
        except RuntimeError:  # the interpreter ends: there are no new threads any more, and nobody whom waiting would harm
            return resolve()
        return await found


def _resolved(found: asyncio.Future[list[Any]], outcome: Any) -> None:
    if found.done():
        return
    if isinstance(outcome, Exception):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)
