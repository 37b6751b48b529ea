"""The store as a service: `python -m examples.kv_store.server`"""

from __future__ import annotations

from examples.kv_store.store import Store
from prpc import AppServer

# Threads, whatever the environment says: worker processes would each have a store of their own.
app = AppServer(default_type_worker="thread")
store = Store()

# At most once is what every function is by default; reading twice does no harm, so a lost `get` is repeated.
app.register_funcs(store.put, store.append, store.remove)
app.register_func(store.get, idempotent=True)

if __name__ == "__main__":
    app.start()
