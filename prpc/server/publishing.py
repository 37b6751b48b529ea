"""Calls of broadcast functions on their way to every server of the queue: the side that took the call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from prpc.brokers.base import Broker
from prpc.exceptions import CallError, PRPCError
from prpc.failure import describe, failure_of
from prpc.protocol.facts import CallFacts, Event, write_event
from prpc.server.entries import is_strict
from prpc.server.run import Run
from prpc.server.seal import Seal
from prpc.workers.base import Job, Outcome, Runner
from prpc.workers.promise import Promise

__all__ = ["Publisher"]


class Publisher:
    """Publishes calls as events of one queue."""

    def __init__(self, broker: Broker, queue: str, seal: Seal) -> None:
        self._broker, self._queue, self._seal = broker, queue, seal

    def of(self, run: Run) -> Runner:
        """What publishes this call in the place of running it."""
        return _Way(self, run)

    async def send(self, run: Run, waited: float) -> None:
        """Returns when the broker has the event. `waited`: seconds since the call was taken.

        Raises EncodeError for a call that is too large, and BrokerUnavailableError: whether it was heard is not known then.
        """
        body, facts, raw = run.delivery.body, run.facts, run.delivery.raw
        assert body is not None
        left = None if facts.timeout is None else facts.timeout - run.queued - waited
        event = Event(body, self._broker.now(), CallFacts(timeout=left, headers=facts.headers), raw, is_strict(facts, raw))
        await self._broker.broadcast(self._queue, self._seal.control(write_event(event)))


@dataclass(frozen=True, slots=True)
class _Way:
    """A Runner for one call."""

    publisher: Publisher
    run: Run
    taken: float = field(default_factory=lambda: time.monotonic())  # looked up then: a test may replace the clock

    def submit(self, job: Job) -> Publication:
        """Publish the call now."""
        return Publication(self.publisher.send(self.run, time.monotonic() - self.taken))


class Publication:
    """The Execution of a call that is published: it ends with None when the broker has the event."""

    def __init__(self, sending: Awaitable[None]) -> None:
        self.outcome: Promise[Outcome] = Promise()
        self.released: Promise[None] = Promise()
        self._began = time.monotonic()
        asyncio.ensure_future(sending).add_done_callback(self._sent)

    @property
    def worker(self) -> str:
        """As `Execution` says."""
        return "server"

    @property
    def running(self) -> float:
        """As `Execution` says."""
        return time.monotonic() - self._began

    def cancel(self, reason: CallError) -> None:
        """As `Execution` says; the event may be out all the same."""
        self._finish(Outcome(failure=failure_of(reason), running=self.running))

    def _sent(self, sending: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if sending.cancelled() else sending.exception()
        if error is None:
            self._finish(Outcome(running=self.running))
        else:
            failure = failure_of(error) if isinstance(error, PRPCError) else describe(error)
            self._finish(Outcome(failure=failure, running=self.running))
        self.released.set_result(None)

    def _finish(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
