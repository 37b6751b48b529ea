"""Asks the application of web.py, as its tests would: in this process, without a port. (pip install starlette httpx)"""

import asyncio

import httpx
from web import web


async def main() -> None:
    transport = httpx.ASGITransport(web)
    async with httpx.AsyncClient(transport=transport, base_url="http://bakery") as browser:
        for item in ("bread", "pizza"):
            answer = await browser.get(f"/price/{item}")
            print(answer.status_code, answer.json())


asyncio.run(main())
