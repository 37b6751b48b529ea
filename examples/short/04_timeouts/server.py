"""A function that waits for another call, and one that never ends by itself."""

import asyncio

from prpc import AppServer

app = AppServer()
parcels: asyncio.Queue[str] = asyncio.Queue()


@app.function("async")
async def wait_for_parcel() -> str:
    """Returns the next parcel, however long that takes."""
    return await parcels.get()


@app.function("async")
async def deliver(parcel: str) -> None:
    """Ends the waiting of one call."""
    await parcels.put(parcel)


@app.function("process", timeout=0.3)
def endless() -> None:
    """The server ends it after 0.3 seconds, by killing its process."""
    while True:
        pass


if __name__ == "__main__":
    app.start()
