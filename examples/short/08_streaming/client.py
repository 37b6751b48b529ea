"""A stream is read by `for` or `async for`. Leaving its block early ends the function on the server."""

import asyncio

from server_func import next_end, ticks, words

for word in words("one item after another"):
    print(word)


async def main() -> None:
    async for i in ticks(3):
        print(i)
    print("read to its end:", await next_end())


asyncio.run(main())

with ticks(10**9) as stream:
    for i in stream:
        if i == 2:
            break
print("left in the middle:", next_end().result(timeout=20))
