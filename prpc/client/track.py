"""What a caller knows of the progress of its call, and whom it tells."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prpc.progress import Progress

__all__ = ["Listener", "Track"]

logger = logging.getLogger("prpc.client")


class Listener:
    """One that is told, until it wants no more."""

    __slots__ = ("_callback", "_name", "_wanted")

    def __init__(self, callback: Callable[[Progress], object], name: str) -> None:
        """`name`: the function's, for the log."""
        self._callback, self._name = callback, name
        self._wanted = True

    def stop(self) -> None:
        """Tell it no more. From any thread, also from the callback."""
        self._wanted = False

    def tell(self, progress: Progress) -> bool:
        """Whether it still wants to be told."""
        if self._wanted:
            try:
                self._callback(progress)
            except Exception:
                logger.exception("a callback for the progress of %s() failed", self._name)
        return self._wanted


class Track:
    """The progress of one call. In the thread of its home's loop, but `last` may be read in any."""

    __slots__ = ("_listeners", "last")

    def __init__(self) -> None:
        self.last: Progress | None = None
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Tell it what comes from now on, and the last one at once."""
        if self.last is None or listener.tell(self.last):
            self._listeners.append(listener)

    def note(self, progress: Progress) -> None:
        """The newest word."""
        self.last = progress
        if self._listeners:
            told = list(self._listeners)
            gone = {listener for listener in told if not listener.tell(progress)}
            if gone:
                self._listeners = [listener for listener in self._listeners if listener not in gone]
