"""An asyncio client: a stub is awaited, and whatever works with coroutines works with its tasks."""

import asyncio

from server_func import fetch_price, total

import prpc


async def main() -> None:
    print("one:     ", await fetch_price("bread"))

    # A call is sent when the stub is called: these two are on their way together.
    prices = await prpc.gather(fetch_price("bread"), fetch_price("bun"))
    print("together:", prices)

    task = total(prices)
    async with asyncio.timeout(20):
        print("total:   ", await task)


asyncio.run(main())
