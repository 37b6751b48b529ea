"""Two functions that stop when their caller no longer wants the result, and tell what happens to them."""

import asyncio
import queue
import time

import prpc
from prpc import AppServer

app = AppServer()
events: queue.Queue[str] = queue.Queue()


@app.function("async")
async def bake(minutes: float) -> None:
    """A cancelled coroutine gets CancelledError where it waits."""
    events.put("baking")
    try:
        await asyncio.sleep(60 * minutes)
    finally:
        events.put("oven off")


@app.function("thread")
def knead() -> None:
    """Python cannot stop a thread: it has to look by itself."""
    events.put("kneading")
    while not prpc.current_call().cancelled:
        time.sleep(0.01)
    events.put("hands washed")


@app.function("thread")
def next_event() -> str:
    return events.get()


if __name__ == "__main__":
    app.start()
