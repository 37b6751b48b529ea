"""Functions for a client that is written with asyncio. The server does not know the difference."""

import asyncio

from prpc import AppServer

app = AppServer(max_number_worker=100)


@app.function("async")
async def fetch_price(item: str) -> float:
    """Stands for a question to another service."""
    await asyncio.sleep(0.05)
    return {"bread": 3.2, "bun": 0.5}[item]


@app.function()
def total(prices: list[float]) -> float:
    """Add prices."""
    return round(sum(prices), 2)


if __name__ == "__main__":
    app.start()
