"""The worker: keeps the measurements and serves `put` and `get` through PRPC. `python -m examples.metrics.worker`

Its memory is the only place where they are: run one worker, and know that a restart begins anew.
"""

from __future__ import annotations

from examples.metrics.store import MetricStore, Series
from prpc import AppServer

__all__ = ["Metrics", "create_app"]


class Metrics:
    """The service. Its methods run on the server's event loop, one after the other, so that they need no lock."""

    def __init__(self) -> None:
        self._store = MetricStore()

    async def put(self, key: str, value: float, timestamp: int) -> None:
        """Keep a value; one of the same key and second is overwritten."""
        self._store.put(key, value, timestamp)

    async def get(self, key: str) -> dict[str, Series]:
        """What was measured for the key, or for all keys where it is `*`."""
        return self._store.get(key)


def create_app() -> AppServer:
    """The server, with an empty store; broker and queue come from the environment."""
    app = AppServer(default_type_worker="async", max_number_worker=8)
    app.register_service(Metrics())
    return app


if __name__ == "__main__":
    create_app().start()
