"""The store itself: a dict and a lock. It knows nothing of PRPC."""

from __future__ import annotations

import threading
from typing import Any


class KeyNotFoundError(LookupError):
    """The store has no such key. Not a KeyError, whose text would stand in quotes."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Key {key} not found")


class Store:
    """JSON values by key. Each method is one step for all threads; a value in the store is replaced, never changed."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()

    def put(self, key: str, value: Any, overwrite: bool) -> bool:
        """Store a value. False where the key has one already and `overwrite` is False: then nothing changed."""
        with self._lock:
            if key in self._values and not overwrite:
                return False
            self._values[key] = value
            return True

    def get(self, key: str) -> Any:
        """The key's value. Raises LookupError `Key <key> not found`."""
        with self._lock:
            return self._find(key)

    def append(self, key: str, value: Any) -> Any:
        """Make the key's value `old + value`, in Python's sense, and return it.

        Raises LookupError `Key <key> not found`, and TypeError where the two cannot be added.
        """
        with self._lock:
            new = self._values[key] = self._find(key) + value
            return new

    def remove(self, key: str) -> Any:
        """Remove the key and return the value that it had. Raises LookupError `Key <key> not found`."""
        with self._lock:
            self._find(key)
            return self._values.pop(key)

    def _find(self, key: str) -> Any:
        if key not in self._values:
            raise KeyNotFoundError(key)
        return self._values[key]
