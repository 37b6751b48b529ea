"""The word in brackets chooses what runs a function; how many run at once is `max_number_worker`."""

import asyncio
import os

from prpc import AppServer

app = AppServer(max_number_worker=8)


@app.function("thread")
def first_line(path: str) -> tuple[str, int]:
    """Waits for the disk, as other code waits for a database: a thread is enough."""
    with open(path) as file:
        return file.readline().strip(), os.getpid()


@app.function("process")
def count_primes(below: int) -> tuple[int, int]:
    """Computes: in a process it has a processor core of its own, and is killed at its timeout."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below)), os.getpid()


@app.function("async")
async def greet(name: str) -> tuple[str, int]:
    """Waits without blocking: thousands of these run at once on the server's event loop."""
    await asyncio.sleep(0.01)
    return f"hello, {name}", os.getpid()


if __name__ == "__main__":
    app.start()
