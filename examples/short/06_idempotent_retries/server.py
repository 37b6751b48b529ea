"""Two functions whose first run is lost with its process, as if the machine had been switched off."""

import os

import prpc
from prpc import AppServer

app = AppServer()


@app.function("process", idempotent=True)
def set_price(item: str, cents: int) -> str:
    """Twice is as good as once, so a lost run is repeated."""
    lose_the_first_run()
    return f"{item} costs {cents} cents, set by run {prpc.current_call().attempt}"


@app.function("process")
def raise_price(item: str, cents: int) -> str:
    """Twice is not once: this runs at most once, whatever happens."""
    lose_the_first_run()
    return f"{item} costs {cents} cents more"


def lose_the_first_run() -> None:
    if prpc.current_call().attempt == 1:
        os._exit(1)


if __name__ == "__main__":
    app.start()
