"""The objects as a service: `python -m examples.srpc.worker`"""

from __future__ import annotations

from typing import Any

from prpc import AppServer

# Threads, whatever the environment says: worker processes would each have objects of their own.
app = AppServer(default_type_worker="thread")
objects: dict[str, Any] = {}


@app.function()
def put(obj: str, val: Any) -> str:
    """Store an object under a name; gives "ok"."""
    objects[obj] = val
    return "ok"


@app.function(idempotent=True)
def get(obj: str) -> Any:
    """The object of this name; None where there is none."""
    return objects.get(obj)


if __name__ == "__main__":
    app.start()
