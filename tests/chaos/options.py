"""What a run is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GROUP", "QUEUE", "Options"]

QUEUE = "chaos"
GROUP = "prpc_group_consumers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a world is made of; every time in seconds."""

    servers: int = 3
    clients: int = 2
    slots: int = 16
    functions: tuple[str, ...] = ("thread", "async", "thread_again", "async_again")
    #: Calls per second of each client, and the most that it has open.
    rate: float = 300.0
    window: int = 150
    #: Deadline of each call.
    timeout: float = 8.0
    #: Repeats of idempotent calls: enough of them for more than a deadline, with pauses that grow to the longest.
    attempt_timeout: float = 2.0
    backoff: float = 0.05
    longest_pause: float = 1.0
    retries: int = 40
    heartbeat: float = 0.3
    recover: float = 1.0
    connect_timeout: float = 2.0
    #: What a stopping server gives its calls.
    grace: float = 5.0
    #: Which broker, its nodes where it is Kafka, and arguments of redis-server.
    broker: str = "redis"
    nodes: int = 1
    redis: tuple[str, ...] = ()
    proxied: bool = False
    #: Whether a server that the broker refuses at its start is started again, as a supervisor does.
    supervised: bool = False
    #: Exit codes of a server that is told to stop.
    exits: tuple[int, ...] = (0,)
    #: Whether each program has a wall clock of its own, and what it may show at the start: seconds ahead.
    clocks: tuple[float, ...] = ()
    #: Whether Redis has a wall clock that can be set.
    redis_clock: bool = False
    #: Key that everything is signed with.
    secret: str | None = None
