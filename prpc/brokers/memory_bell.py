"""What whoever waits for a change of the memory broker's state waits on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """Wakes one waiting coroutine from any thread or loop. Made in the loop that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._event.set()
        else:
            with suppress(RuntimeError):  # the loop was closed, nobody waits there
                self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """Call before looking at the state, so that a ring in between is not lost."""
        self._event.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Until it rings, or for so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
