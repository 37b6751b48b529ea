"""Events: calls of broadcast functions, run by every server that hears them. Nobody is answered.

They have workers of their own beside those of the calls, so that neither waits for the other. Of one function they start in
the order heard, and so do those of all functions of one kind of worker, but for what has as many running as it may. What cannot
start waits here, within bounds.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prpc.call_context import CurrentCall
from prpc.codec import Codec
from prpc.deadline import Clock
from prpc.exceptions import BadArgumentsError, DeadlineExceededError, DecodeError
from prpc.failure import describe, failure_of
from prpc.protocol.call_table import remaining_time
from prpc.protocol.facts import CallFacts, Event
from prpc.protocol.heard import HeardEvents
from prpc.prpcmessage import PRPCMessage
from prpc.server.logs import log_call, logger
from prpc.server.middleware import Middleware
from prpc.server.outcomes import server_shutdown
from prpc.server.registry import RegisteredFunction, Registry
from prpc.server.run import job_of
from prpc.server.wrapped_call import WrappedCall
from prpc.settings import Settings
from prpc.workers.base import Execution, Outcome, WorkerKind, WorkerPool
from prpc.workers.promise import Coming

__all__ = ["Events", "workers_for_events"]

#: Most threads, and most processes, that run events.
MOST_WORKERS = 4
#: Most events that wait in one server, and most bytes of their calls together.
MOST_WAITING, MOST_BYTES = 1000, 64 * 1024 * 1024
#: Shortest time in seconds for which an event is remembered, and after which one that comes late is not run.
LEAST_WINDOW = 60.0
#: Seconds that a stopping server waits for events that were ended.
_SECONDS_TO_END = 5.0


def workers_for_events(kind: WorkerKind, slots: int) -> int:
    """How many events of a kind run at once in a server of so many slots."""
    return slots if kind is WorkerKind.ASYNC else min(slots, MOST_WORKERS)


@dataclass(slots=True, eq=False)
class _Heard:
    """One event in this server's hands."""

    message: PRPCMessage
    facts: CallFacts
    function: RegisteredFunction
    strict: bool
    #: Bytes of its call.
    size: int
    #: Seconds between its publication and its start; until then: its hearing.
    queued: float
    #: When it was heard, by the monotonic clock.
    came: float
    #: Grows in the order of hearing.
    number: int
    attempt: int = 1


class Events:
    """Runs what one server hears. Bound to one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        codec: Codec,
        registry: Registry,
        pools: Mapping[WorkerKind, WorkerPool],
        clock: Clock,
        now: Callable[[], float],
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """`pools` hold `workers_for_events` beside those of the calls. `now`: seconds by the broker's clock."""
        self._codec, self._registry, self._pools = codec, registry, pools
        self._clock, self._now, self._timeout = clock, now, settings.timeout_worker
        self._middleware = tuple(middleware)
        self._heard = HeardEvents(max(LEAST_WINDOW, settings.duplicate_window))
        self._numbers = itertools.count()
        #: Function -> its waiting events, oldest first; never empty.
        self._lines: dict[str, deque[_Heard]] = {}
        self._waiting = self._bytes = self._dropped = 0
        self._free = {kind: workers_for_events(kind, settings.max_number_worker) for kind in WorkerKind}
        #: Function -> its events that hold a worker.
        self._held: Counter[str] = Counter()
        self._running: dict[_Heard, tuple[CurrentCall, Execution]] = {}
        self._stopping = False
        #: Ends when none runs.
        self._quiet: asyncio.Future[None] | None = None

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running)

    def hear(self, event: Event) -> None:
        """Run it, if it is for a function of this server, now or when its turn comes.

        Raises DecodeError where its call cannot be read or it was sent too long ago to know whether it ran.
        """
        if self._stopping:
            return
        message = self._codec.read_raw_call(event.call) if event.raw else self._codec.read_call(event.call)
        message_id, name = message.message_id, message.func_name
        function = self._registry.get(name)
        if function is None or not function.broadcast:
            logger.debug("%s: an event of %r, which is no broadcast function of this server", message_id, name[:200])
            return
        now = self._now()
        age = self._heard.age(event.sent, now)
        if age is None:
            raise DecodeError(f"an event of {name} was sent {now - event.sent:.0f} s before it was heard", reason="form")
        if not self._heard.is_new(message_id, event.sent, now):
            logger.debug("%s: an event of %s was heard before", message_id, name)
            return
        came, number = self._clock.monotonic(), next(self._numbers)
        self._wait(_Heard(message, event.facts, function, event.strict, len(event.call), age, came, number))
        self._fill()
        while self._waiting > MOST_WAITING or self._bytes > MOST_BYTES:
            self._drop()

    async def drain(self, grace: float) -> int:
        """Start no further ones, wait `grace` seconds for those that run, end the rest; returns how many those were."""
        self._stopping = True
        if self._waiting:
            logger.warning("%d events that were heard are not run: the server stops", self._waiting)
            self._lines.clear()
        await self._until_quiet(grace)
        rest = list(self._running.items())
        for heard, (current, execution) in rest:
            current.mark_cancelled()
            execution.cancel(server_shutdown(heard.function.name))
        await self._until_quiet(_SECONDS_TO_END)
        return len(rest)

    async def _until_quiet(self, seconds: float) -> None:
        if self._running:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=seconds)

    # An event waits.

    def _wait(self, heard: _Heard) -> None:
        self._lines.setdefault(heard.function.name, deque()).append(heard)
        self._waiting += 1
        self._bytes += heard.size

    def _take_first(self, name: str) -> _Heard:
        line = self._lines[name]
        heard = line.popleft()
        if not line:
            del self._lines[name]
        self._waiting -= 1
        self._bytes -= heard.size
        return heard

    def _oldest(self, may_be: Callable[[RegisteredFunction], bool] = lambda _: True) -> str | None:
        """The function whose first event was heard before those of all others that may be."""
        firsts = [line[0] for line in self._lines.values() if may_be(line[0].function)]
        return min(firsts, key=lambda heard: heard.number).function.name if firsts else None

    def _drop(self) -> None:
        name = self._oldest()
        assert name is not None
        self._take_first(name)
        if not self._dropped:
            logger.warning("events come faster than they are run: beyond %d that wait, the oldest are dropped", self._waiting)
        self._dropped += 1

    # An event runs.

    def _fill(self) -> None:
        while (name := self._oldest(self._has_room)) is not None:
            self._begin(self._take_first(name))
        if self._dropped and not self._waiting:
            logger.info("%d events were dropped", self._dropped)
            self._dropped = 0

    def _has_room(self, function: RegisteredFunction) -> bool:
        limit = function.events_at_once
        return self._free[function.kind] > 0 and (limit is None or self._held[function.name] < limit)

    def _begin(self, heard: _Heard) -> None:
        heard.queued += self._clock.monotonic() - heard.came
        try:
            self._start(heard)
        except (BadArgumentsError, DeadlineExceededError) as exc:
            self._log(heard, Outcome(failure=failure_of(exc)))
        except BaseException as exc:  # validators of the arguments are user code, and may raise anything
            self._log(heard, Outcome(failure=describe(exc)))

    def _start(self, heard: _Heard) -> None:
        function, message, timeout = heard.function, heard.message, heard.facts.timeout
        if timeout is not None and heard.queued >= timeout:
            raise DeadlineExceededError(f"{function.name}() was not started", function=function.name, timeout=timeout)
        args, kwargs = function.binder.bind(message.func_args, message.func_kwargs, strict=heard.strict)
        limit = remaining_time(self._timeout, function.timeout)
        job, current = job_of(heard, function, args, kwargs, limit=limit, clock=self._clock)
        pool = self._pools[function.kind]
        execution = WrappedCall(job, pool, self._middleware, current, event=True) if self._middleware else pool.submit(job)
        self._running[heard] = current, execution
        self._free[function.kind] -= 1
        self._held[function.name] += 1
        execution.outcome.add_done_callback(functools.partial(self._ended, heard))
        execution.released.add_done_callback(functools.partial(self._released, function))

    def _ended(self, heard: _Heard, outcome: Coming[Outcome]) -> None:
        del self._running[heard]
        self._log(heard, outcome.result())
        if self._quiet is not None and not self._quiet.done() and not self._running:
            self._quiet.set_result(None)

    def _released(self, function: RegisteredFunction, _: object) -> None:
        self._free[function.kind] += 1
        self._held[function.name] -= 1
        if not self._stopping:
            self._fill()

    def _log(self, heard: _Heard, outcome: Outcome) -> None:
        """Nobody else hears of a failure, so it is a warning."""
        failure, message_id = outcome.failure, str(heard.message.message_id)
        log_call(
            message_id=message_id,
            function=heard.function.name,
            worker=outcome.worker or "server",
            queued=heard.queued,
            running=outcome.running,
            outcome="ok" if failure is None else failure.type_name,
            level=logging.INFO if failure is None else logging.WARNING,
        )
        if failure is not None and failure.traceback and logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s", message_id, failure.traceback)
