"""A server like any other: its test stands beside it, in test_server.py."""

from dataclasses import dataclass

from prpc import AppServer

app = AppServer()


@dataclass
class Order:
    item: str
    count: int = 1


@app.function()
def price(order: Order) -> float:
    """What an order costs."""
    if order.count < 1:
        raise ValueError("count must be 1 or more")
    return 2.5 * order.count


if __name__ == "__main__":
    app.start()
