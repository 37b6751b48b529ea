"""How the programs stop: SIGTERM or Ctrl-C, once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["on_signal", "run_until_signal"]


def on_signal(stop: Callable[[], object]) -> None:
    """Call `stop` on the first SIGTERM or SIGINT; later ones are ignored, to the very end of the program.

    Stopping has bounds of its own, and a second signal must not turn a clean end into a kill.
    """

    def first(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, first)


def run_until_signal(serving: Coroutine[Any, Any, object]) -> None:
    """`asyncio.run(serving)`, cancelled by the first signal."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(serving)
        # Not the loop's own handlers: those end with the loop, a little before the program does.
        on_signal(lambda: loop.call_soon_threadsafe(task.cancel))
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
