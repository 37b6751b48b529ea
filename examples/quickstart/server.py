"""A first server. Start it with `python server.py`; it serves until Ctrl-C."""

from prpc import AppServer

app = AppServer()


@app.function()
def summ(a: int | float, b: int | float, z: float = 0.5) -> float:
    """Add three numbers."""
    return a + b + z


if __name__ == "__main__":
    app.start()
