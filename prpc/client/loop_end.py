"""To learn that a loop ends, while everything in it still works."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

__all__ = ["LoopEnd"]


class LoopEnd:
    """`asyncio.run` ends by cancelling tasks (not ours, see `background`) and by closing open async generators: this is one."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        """`close` is awaited as the loop ends."""
        self._close = close
        self._guardian: AsyncGenerator[None, None] | None = None

    def watch(self) -> None:
        """Watch the running loop from now on. Idempotent."""
        if self._guardian is None:
            self._guardian = self._guard()
            with suppress(StopIteration):  # run to its yield, so that the loop knows of it
                self._guardian.__anext__().__await__().__next__()

    async def leave(self) -> None:
        """Watch it no more. Idempotent."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            await guardian.aclose()

    async def _guard(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._guardian = None
            await self._close()
