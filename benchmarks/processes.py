"""The server whose function runs in process workers, of which there are as many as cores on a small machine."""

from __future__ import annotations

from prpc import AppServer

app = AppServer(max_number_worker=2)


@app.function("process", name="add_process")
def add_process(a: int, b: int) -> int:
    """Add in a process."""
    return a + b
