"""SIGTERM or Ctrl-C: the server takes no new calls, lets running ones finish, cleans up, and exits with code 0."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prpc import AppServer


@asynccontextmanager
async def lifespan(app: AppServer) -> AsyncIterator[None]:
    print("opened", flush=True)
    yield
    print("closed, after the last call", flush=True)


# Calls that still run after 30 seconds would be ended and answered with ServerShutdownError.
app = AppServer(lifespan=lifespan, shutdown_grace=30)


@app.function("thread")
def process_id() -> int:
    return os.getpid()


@app.function("thread")
def work_until(signal: str) -> str:
    """Works until that file is there."""
    while not Path(signal).exists():
        time.sleep(0.01)
    return "the work is done"


if __name__ == "__main__":
    app.start()
