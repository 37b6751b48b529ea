"""The demo's client: it knows nothing of the server but the generated server_func.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from server_func import Order, Size, count_primes, greet, place_order, stock, summ

import prpc

T = TypeVar("T")


def show(what: str, work: Callable[[], T]) -> T:
    """Run one step, print its result and its time."""
    start = time.perf_counter()
    value = work()
    print(f"  {what:<46} -> {str(value)[:44]:<44} {1000 * (time.perf_counter() - start):8.2f} ms")
    return value


def plain() -> None:
    """The sync face: no event loop in sight."""
    print("\nPlain code (the first call opens the connection):")
    show("summ(1, 2).result(timeout=20)", lambda: summ(1, 2).result(timeout=20))
    show("summ(1, 2, z=10).result(timeout=20)", lambda: summ(1, 2, z=10).result(timeout=20))
    show("count_primes(50_000)  in a process", lambda: count_primes(50_000).sync_wait_result_task(timedelta(seconds=20)))
    order = Order("Ada", ["tea", "cake"], Size.LARGE)
    receipt = show("place_order(Order(...))  a dataclass each way", lambda: place_order(order).result(timeout=20))
    print(f"    receipt.order.size is {receipt.order.size!r}, receipt.paid_at is a {type(receipt.paid_at).__name__}")
    try:
        stock("cocoa").result(timeout=20)
    except KeyError as exc:
        print(f"  stock('cocoa')  raises the real KeyError: {exc}; it is a RemoteError too: {isinstance(exc, prpc.RemoteError)}")
        if isinstance(exc, prpc.RemoteError) and exc.traceback:
            print("    the server's traceback ends: " + exc.traceback.strip().splitlines()[-1])


async def native() -> None:
    """The async face, and a thousand calls at once."""
    print("\nasyncio:")
    start = time.perf_counter()
    greeting = await greet("Grace")
    print(
        f"  await greet('Grace')  -> {greeting!r}  {1000 * (time.perf_counter() - start):.2f} ms (opens this loop's connection)"
    )
    start = time.perf_counter()
    names = await prpc.gather(*(greet(f"guest {i}", pause=0.2) for i in range(10)))
    print(f"  10 greetings that pause 0.2 s each, together: {time.perf_counter() - start:.2f} s, last {names[-1]!r}")
    print("\n1,000 calls at once:")
    start = time.perf_counter()
    sums = await prpc.gather(*(summ(i, i) for i in range(1000)), progress=True)
    seconds = time.perf_counter() - start
    assert sums == [2 * i + 0.5 for i in range(1000)]
    print(f"  all 1,000 results are right: {seconds:.3f} s, {1000 / seconds:,.0f} calls a second")


if __name__ == "__main__":
    plain()
    asyncio.run(native())
