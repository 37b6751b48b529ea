"""A generator function streams: each item is sent when it is there, and a slow reader slows the function down."""

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator

from prpc import AppServer

app = AppServer()
ended: queue.Queue[str] = queue.Queue()


@app.function("thread")
def words(text: str) -> Iterator[str]:
    """A plain generator runs on a thread."""
    yield from text.split()


@app.function("async")
async def ticks(n: int) -> AsyncIterator[int]:
    """An async generator runs on the event loop; its `finally` runs also when the reader has gone."""
    try:
        for i in range(n):
            yield i
            await asyncio.sleep(0)
    finally:
        ended.put(f"ticks({n})")


@app.function("thread")
def next_end() -> str:
    """Waits until a ticks() has ended."""
    return ended.get()


if __name__ == "__main__":
    app.start()
