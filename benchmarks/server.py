"""The server that the benchmarks call: `add` on each kind of worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from prpc import AppServer

app = AppServer(max_number_worker=256)


@app.function("async", name="add_async")
async def add_async(a: int, b: int) -> int:
    """Add on the event loop."""
    return a + b


@app.function("async", name="echo_async")
async def echo_async(text: str) -> str:
    """What came, on the event loop."""
    return text


@app.function("async", name="add_repeatable", idempotent=True)
async def add_repeatable(a: int, b: int) -> int:
    """Add on the event loop; running it twice does no harm."""
    return a + b


@app.function("thread", name="add_thread")
def add_thread(a: int, b: int) -> int:
    """Add on a thread."""
    return a + b


@app.function("async")
async def count_async(n: int) -> AsyncIterator[int]:
    """Numbers, made on the event loop."""
    for i in range(n):
        yield i


@app.function("thread")
def count_thread(n: int) -> Iterator[int]:
    """Numbers, made in a thread."""
    yield from range(n)


@app.function("async")
async def chunks(n: int, size: int) -> AsyncIterator[bytes]:
    """So many pieces of so many bytes."""
    for _ in range(n):
        yield bytes(size)


@app.function("async")
async def sum_async(numbers: AsyncIterator[int]) -> int:
    """The sum of what is sent."""
    total = 0
    async for number in numbers:
        total += number
    return total


_go_on = asyncio.Event()


@app.function("async")
async def wait_and_count(n: int) -> AsyncIterator[int]:
    """One number, and after `let_go` the others."""
    yield 0
    await _go_on.wait()
    for i in range(1, n):
        yield i


@app.function("async")
async def let_go() -> None:
    """End the waiting of those that wait now."""
    _go_on.set()
    _go_on.clear()


if __name__ == "__main__":
    app.start()
