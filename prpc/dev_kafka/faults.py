"""Faults that tests ask for, and the journal of what was requested. Thread-safe."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Fault", "Faults", "Journal", "Kind", "Seen"]

#: Requests that the journal keeps.
JOURNAL_LENGTH = 10_000


class Kind(Enum):
    #: The request has its effect, then the connection is cut instead of an answer.
    LOSE_REPLY = "lose reply"
    #: The connection is cut before the request has any effect.
    REFUSE = "refuse"
    #: The request waits before it is looked at; so do those behind it on its connection.
    DELAY = "delay"
    #: Everything in the request is answered with an error code; it has no effect.
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    api: str
    #: Only for requests that name this topic; None is for all.
    topic: str | None = None
    #: Seconds of a delay.
    seconds: float = 0.0
    #: Error code of a failure.
    code: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that arrived."""

    #: Kafka's name of it, such as "Produce".
    api: str
    client_id: str
    #: aiokafka's struct, with the request's fields as attributes.
    request: Any


class Faults:
    """Faults in the order in which they were asked for; each is used up by one request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault, times: int = 1) -> None:
        with self._lock:
            self._waiting.extend([fault] * times)

    def take(self, api: str, topics: set[str]) -> Fault | None:
        """The first fault that fits a request, used up by this."""
        with self._lock:
            for index, fault in enumerate(self._waiting):
                if fault.api == api and (fault.topic is None or fault.topic in topics):
                    return self._waiting.pop(index)
        return None

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()


class Journal:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: deque[Seen] = deque(maxlen=JOURNAL_LENGTH)

    def add(self, seen: Seen) -> None:
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()

    def entries(self, api: str | None = None) -> list[Seen]:
        with self._changed:
            return [seen for seen in self._seen if api is None or seen.api == api]

    def clear(self) -> None:
        with self._changed:
            self._seen.clear()

    def wait_for(self, fits: Callable[[Seen], bool], times: int, timeout: float) -> bool:
        """Whether so many fitting requests are in the journal, or come within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: sum(map(fits, self._seen)) >= times, timeout)
