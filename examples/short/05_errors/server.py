"""A function that raises as any function does: nothing about errors has to be registered."""

from prpc import AppServer

app = AppServer()
STOCK = {"tea": 12}


class SoldOut(ValueError):
    """An error class that only the server knows."""


@app.function()
def order(item: str, count: int = 1) -> int:
    """What is left after the order."""
    if STOCK[item] < count:
        raise SoldOut(f"only {STOCK[item]} of {item} left")
    return STOCK[item] - count


if __name__ == "__main__":
    app.start()
