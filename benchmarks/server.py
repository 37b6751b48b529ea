"""The server that the benchmarks call: `add` on each kind of worker."""

from __future__ import annotations

from prpc import AppServer

app = AppServer(max_number_worker=256)


@app.function("async", name="add_async")
async def add_async(a: int, b: int) -> int:
    """Add on the event loop."""
    return a + b


@app.function("async", name="add_repeatable", idempotent=True)
async def add_repeatable(a: int, b: int) -> int:
    """Add on the event loop; running it twice does no harm."""
    return a + b


@app.function("thread", name="add_thread")
def add_thread(a: int, b: int) -> int:
    """Add on a thread."""
    return a + b


if __name__ == "__main__":
    app.start()
