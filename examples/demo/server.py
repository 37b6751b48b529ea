"""The demo's server: functions on threads, in processes and on the event loop."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from prpc import AppServer

app = AppServer(max_number_worker=32)

STOCK = {"tea": 12, "coffee": 3}


class Size(Enum):
    """Size of a cup."""

    SMALL = "small"
    LARGE = "large"


@dataclass
class Order:
    """What a guest wants."""

    guest: str
    items: list[str]
    size: Size = Size.SMALL


@dataclass
class Receipt:
    """What the guest gets back."""

    order: Order
    total: float
    paid_at: datetime


@app.function("thread")
def summ(a: int | float, b: int | float, z: float = 0.5) -> float:
    """Add three numbers, on a thread."""
    return a + b + z


@app.function("process")
def count_primes(below: int) -> tuple[int, int]:
    """Count primes in a process of its own: (how many, process id)."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below)), os.getpid()


@app.function("async")
async def greet(name: str, *, pause: float = 0.0) -> str:
    """Greet after a pause, on the server's event loop."""
    await asyncio.sleep(pause)
    return f"Hello, {name}!"


@app.function("thread")
def place_order(order: Order) -> Receipt:
    """Take an order: a dataclass comes in, a dataclass goes out."""
    price = 2.5 if order.size is Size.SMALL else 3.5
    return Receipt(order, price * len(order.items), datetime.now(UTC))


@app.function("thread")
def stock(item: str) -> int:
    """How many are left; raises KeyError for what was never sold here."""
    return STOCK[item]


if __name__ == "__main__":
    app.start()
