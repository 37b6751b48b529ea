"""The functions behind a web application: it needs the queue's name, not this code."""

import asyncio

from prpc import AppServer

app = AppServer()
PRICES = {"bread": 3.2, "bun": 0.5}


@app.function("async")
async def price(item: str) -> float:
    """Raises KeyError for what is not baked here."""
    await asyncio.sleep(0.01)
    return PRICES[item]


if __name__ == "__main__":
    app.start()
