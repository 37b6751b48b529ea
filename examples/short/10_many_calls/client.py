"""Many calls: a few at once, or any number of them with a bound on how many are on their way."""

import asyncio

from server_func import double, most_at_once

import prpc

print(prpc.gather(*(double(n) for n in range(5))).result(timeout=20))
print(sorted(task.result(timeout=20) for task in prpc.as_completed(double(n) for n in range(5))))

# Items are taken and results are given one by one: neither has to fit into memory.
total = 0
for result in double.map(range(1000), max_in_flight=50):
    total += result
print(total, "- at most 50 at once:", most_at_once().result(timeout=20) <= 50)


async def main() -> None:
    print([result async for result in double.map(range(5), max_in_flight=2)])


asyncio.run(main())
