"""How a call ends: the reply to every caller of it, the log line, and what becomes of its entries."""

from __future__ import annotations

import logging

from prpc.brokers.base import Reply
from prpc.deadline import Clock
from prpc.failure import Failure
from prpc.server.lingering import Lingering
from prpc.server.logs import logger
from prpc.server.outcomes import details_of, is_shutdown, is_worker_lost, log_outcome, with_queue_time
from prpc.server.progress import Reports
from prpc.server.replies import ReplyWriter
from prpc.server.run import Run
from prpc.server.settlements import Settlements
from prpc.workers.base import Outcome

__all__ = ["Endings"]


class Endings:
    """Ends the calls of one server. `reports`: what their functions say of their progress, which is to come before."""

    def __init__(self, replies: ReplyWriter, settlements: Settlements, reports: Reports | None, clock: Clock) -> None:
        self._replies, self._settlements, self._reports, self._clock = replies, settlements, reports, clock
        self._lingering = Lingering(lambda delivery, reply: settlements.watch(delivery.settle(reply)))

    def end(self, run: Run, outcome: Outcome, dead: str | None = None, *, more: bool = False) -> None:
        """`dead`: why the entry is kept as a dead letter; None where it is not. `more`: others are about to end."""
        failure = outcome.failure
        give_back = run.give_back and failure is not None and (is_shutdown(failure) or is_worker_lost(failure))
        superseded = False
        if run.streaming is not None:
            outcome, superseded = run.streaming.finish(outcome, given_back=give_back), run.streaming.superseded
        if self._reports is not None and self._reports.open:
            self._reports.flush(run)
        failure = outcome.failure
        if failure is not None:
            failure = with_queue_time(failure, run.queued)
        if run.followers or give_back or superseded or dead:
            self._end_all(run, outcome, failure, dead, give_back=give_back, superseded=superseded)
            return
        delivery = run.delivery
        reply, failure = self._reply(run, outcome, failure)
        self._log(run, outcome, failure)
        self._lingering.add(delivery, reply, more=more)

    def flush(self) -> None:
        """Hand over what waits for more."""
        self._lingering.flush()

    def _end_all(
        self, run: Run, outcome: Outcome, failure: Failure | None, dead: str | None, *, give_back: bool, superseded: bool
    ) -> None:
        ends: list[tuple[Run, Reply | None, bool]] = []
        for entry in (run, *run.followers) if run.followers else (run,):
            # The reader of a superseded run reads one that has lost its lease where that run's entry came here.
            back = give_back or (superseded and entry is not run and entry.facts.reply_to == run.facts.reply_to)
            reply: Reply | None = None
            if not back:
                reply, failure = self._reply(entry, outcome, failure)
            ends.append((entry, None if superseded and entry is run else reply, back))
        self._log(run, outcome, failure)
        run.followers = None  # from here on each has its end, also where that of another one fails
        for entry, reply, back in ends:
            if back:
                self._settlements.watch(entry.delivery.release())
            elif dead is None or failure is None or entry is not run:
                self._settlements.watch(entry.delivery.settle(reply))
            else:
                self._settlements.watch(entry.delivery.bury(dead, reply, details=details_of(failure)))

    def _reply(self, run: Run, outcome: Outcome, failure: Failure | None) -> tuple[Reply, Failure | None]:
        address, raw = run.facts.reply_to, run.delivery.raw
        return self._replies.write(run.message, outcome.value, failure, when=self._clock.now(), address=address, raw=raw)

    def _log(self, run: Run, outcome: Outcome, failure: Failure | None) -> None:
        if logger.isEnabledFor(logging.INFO):
            log_outcome(run.message, outcome.worker, run.queued, outcome.running, failure)
