"""A function that tells how far it is, while it runs."""

import queue

import prpc
from prpc import AppServer

app = AppServer()
eaten: queue.Queue[str] = queue.Queue()


@app.function("thread")
def bake(loaves: list[str]) -> str:
    """Bakes one loaf after another, each when the one before is eaten."""
    call = prpc.current_call()
    for number, loaf in enumerate(loaves, 1):
        call.progress(number, len(loaves), f"{loaf} is baked")
        eaten.get()
    return "the oven is off"


@app.function("thread")
def eat() -> None:
    eaten.put("a loaf")


if __name__ == "__main__":
    app.start()
