"""A function that waits, on a server that runs a hundred calls at once; it counts how many there are."""

import asyncio

from prpc import AppServer

app = AppServer(max_number_worker=100)
running: list[int] = []
most = 0


@app.function("async")
async def double(n: int) -> int:
    global most
    running.append(n)
    most = max(most, len(running))
    await asyncio.sleep(0.001 * (n % 3))
    running.remove(n)
    return 2 * n


@app.function("async")
async def most_at_once() -> int:
    """How many calls of double() ran at the same time."""
    return most


if __name__ == "__main__":
    app.start()
