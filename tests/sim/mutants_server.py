"""Mutants of the server: the call table, the dispatcher, its line and its end."""

from __future__ import annotations

import asyncio
from typing import Any

from prpc.exceptions import EncodeError
from prpc.protocol.call_table import CallTable
from prpc.server import dispatcher as dispatcher_module
from prpc.server.ahead import Ahead
from prpc.server.dispatcher import Dispatcher
from prpc.server.line import Line
from prpc.server.lingering import Lingering
from prpc.server.outcomes import is_worker_lost
from prpc.server.replies import ReplyWriter
from prpc.server.run import Run
from prpc.server.settlements import Settlements
from prpc.workers.base import Outcome
from prpc.workers.slots import SlotExecution
from tests.sim.consumer import SimConsumer
from tests.sim.mutants import Patch, mutant, nothing
from tests.sim.workers import SimProcessPool


def _refusal(patch: Patch, **changes: Any) -> None:
    patch.around(CallTable, "refusal", lambda old, self, *args, **given: old(self, *args, **{**given, **changes}))


@mutant("a call that may run once only is not run again after its server was lost")
def plain_calls_run_again(patch: Patch) -> None:
    _refusal(patch, idempotent=True)


@mutant("a call whose time is over is not started")
def late_calls_are_started(patch: Patch) -> None:
    _refusal(patch, timeout=None)


@mutant("an idempotent call runs again after its server was lost")
def nothing_runs_again(patch: Patch) -> None:
    _refusal(patch, idempotent=False)


@mutant("a call that was cancelled before it came is not started")
def early_cancellations_are_forgotten(patch: Patch) -> None:
    patch.set(CallTable, "_was_cancelled", lambda self, message_id, now: False)


@mutant("a call that runs is ended where its caller cancels it")
def running_calls_are_not_cancelled(patch: Patch) -> None:
    def cancel(old: Any, self: CallTable[Run], *rest: Any) -> list[Run]:
        old(self, *rest)
        return []

    patch.around(CallTable, "cancel", cancel)


@mutant("a call that comes back while it runs here waits for its own outcome")
def nobody_joins(patch: Patch) -> None:
    patch.set(Dispatcher, "_joined", lambda self, run: False)


@mutant("entries that joined a running call get its outcome")
def followers_are_dropped(patch: Patch) -> None:
    def end(old: Any, self: Dispatcher, run: Run, *rest: Any) -> None:
        run.followers = None
        old(self, run, *rest)

    patch.around(Dispatcher, "_end", end)


@mutant("the caller of a lost server is told so")
def lost_calls_are_dropped(patch: Patch) -> None:
    def end(old: Any, self: Dispatcher, run: Run, outcome: Outcome, *rest: Any) -> None:
        if outcome.failure is not None and is_worker_lost(outcome.failure):
            self._settlements.watch(run.delivery.settle(None))
        else:
            old(self, run, outcome, *rest)

    patch.around(Dispatcher, "_end", end)


@mutant("a server without room tells the callers of a lost one at once")
def lost_calls_wait_for_room(patch: Patch) -> None:
    patch.set(SimConsumer, "take_lost", lambda self: ())


@mutant("time that a call waited for its claim counts", "kafka")
def the_claim_takes_no_time(patch: Patch) -> None:
    def claimed(old: Any, self: Dispatcher, run: Run, asked: float, may_run: bool) -> None:
        old(self, run, self._clock.monotonic(), may_run)

    patch.around(Dispatcher, "_claimed", claimed)


@mutant("a server that stops ends its calls")
def nothing_is_drained(patch: Patch) -> None:
    async def drain(self: Dispatcher, grace: float) -> int:
        self._stopping = True
        await self._consumer.stop()
        self._look_again()
        return 0

    patch.set(Dispatcher, "drain", drain)


@mutant("a server that stops gives back what may run twice")
def nothing_is_given_back(patch: Patch) -> None:
    def stop(old: Any, self: Dispatcher, run: Run, reason: Any) -> None:
        run.give_back = False
        old(self, run, reason)

    patch.around(Dispatcher, "_stop_run", stop)


@mutant("a server that stops gives back only what may run twice")
def everything_is_given_back(patch: Patch) -> None:
    def stop(old: Any, self: Dispatcher, run: Run, reason: Any) -> None:
        run.give_back = self._stopping
        old(self, run, reason)

    patch.around(Dispatcher, "_stop_run", stop)


@mutant("what comes to a server that stops goes back", broker="kafka")
def a_stopping_server_drops_what_comes(patch: Patch) -> None:
    patch.around(Dispatcher, "_accept", lambda old, self, delivery: None if self._stopping else old(self, delivery))


@mutant("a server that stops waits until the broker has the outcomes")
def settlements_are_not_awaited(patch: Patch) -> None:
    async def finish(self: Settlements, seconds: float) -> int:
        for future in self._open:
            future.cancel()
        return 0

    patch.set(Settlements, "finish", finish)


@mutant("a result that cannot be written is answered with an error")
def unwritable_results_are_dropped(patch: Patch) -> None:
    def write(self: ReplyWriter, message: Any, value: Any, failure: Any, *, when: Any, address: Any, raw: Any) -> Any:
        return self._write(message, value, failure, when, address, raw), failure

    patch.set(ReplyWriter, "write", write)
    patch.set(Dispatcher, "_give_up", nothing)


@mutant("a fault of the server's own ends the entry and is told to the caller")
def what_fails_here_is_given_up_silently(patch: Patch) -> None:
    def end(old: Any, self: Dispatcher, run: Run, outcome: Outcome, *rest: Any) -> None:
        if outcome.failure is not None and outcome.failure.type == "ValueError":
            raise EncodeError("a fault")
        old(self, run, outcome, *rest)

    patch.around(Dispatcher, "_end", end)
    patch.set(Dispatcher, "_give_up", nothing)


@mutant("the caller of a lost worker is told so")
def lost_workers_are_not_noticed(patch: Patch) -> None:
    def lose(old: Any, self: SimProcessPool, execution: SlotExecution) -> None:
        self._kill(execution)

    patch.around(SimProcessPool, "lose", lose)


@mutant("an idempotent call runs again where its worker was lost")
def lost_workers_end_calls(patch: Patch) -> None:
    patch.set(Dispatcher, "_may_run_twice", lambda self, run, outcome: False)


@mutant("a call that may run once only does not run again where its worker was lost")
def lost_workers_never_end_calls(patch: Patch) -> None:
    def may(self: Dispatcher, run: Run, outcome: Outcome) -> bool:
        return outcome.failure is not None and is_worker_lost(outcome.failure)

    patch.set(Dispatcher, "_may_run_twice", may)
    _refusal(patch, idempotent=True)  # which would refuse it all the same: two safeguards for one promise


@mutant("only what was lost too often becomes a dead letter")
def failures_become_dead_letters(patch: Patch) -> None:
    def end(old: Any, self: Dispatcher, run: Run, outcome: Outcome, dead: Any = None) -> None:
        old(self, run, outcome, "attempts" if outcome.failure is not None else dead)

    patch.around(Dispatcher, "_end", end)


@mutant("a call that waits for room in its function has its turn")
def the_line_loses_a_call(patch: Patch) -> None:
    patch.set(Line, "wait", nothing)


@mutant("a function runs no more often at once than it may")
def limits_of_functions_are_ignored(patch: Patch) -> None:
    patch.set(Line, "has_room", lambda self, function, limit: True)


@mutant("time that a call waited in line counts")
def the_line_takes_no_time(patch: Patch) -> None:
    patch.around(Dispatcher, "_start_from_line", lambda old, self, run, waited: old(self, run, 0.0))


@mutant("a call that was taken ahead of the workers has its turn")
def calls_taken_ahead_are_lost(patch: Patch) -> None:
    def start(old: Any, self: Ahead[Run]) -> None:
        if len(self) % 4 == 3:
            self._waiting.popleft()
        else:
            old(self)

    patch.around(Ahead, "start_next", start)


@mutant("what was taken ahead goes back where the calls before it take long")
def calls_taken_ahead_are_not_given_back(patch: Patch) -> None:
    patch.around(Ahead, "clear", lambda old, self: self._waiting.clear())


@mutant("what waited in a worker and did not begin goes back")
def calls_that_come_back_from_workers_are_lost(patch: Patch) -> None:
    patch.around(Dispatcher, "_come_back", lambda old, self, run: self._table.end(run.message.message_id))


@mutant("outcomes that were gathered are handed over")
def gathered_outcomes_are_lost(patch: Patch) -> None:
    def flush(old: Any, self: Lingering) -> None:
        del self._gathered[1:2]
        old(self)

    patch.around(Lingering, "flush", flush)


@mutant("a slot is free again once its run has ended")
def slots_leak(patch: Patch) -> None:
    def release(old: Any, self: Dispatcher, run: Run, _: object = None) -> None:
        if run.attempt > 1 or run.message.func_name != "process":
            old(self, run)

    patch.around(Dispatcher, "_release_slot", release)


@mutant("a server that could not read tries again", broker="kafka")
def reading_ends_with_the_first_error(patch: Patch) -> None:
    async def sleep(_: float) -> None:
        await asyncio.get_running_loop().create_future()

    class Asyncio:
        def __getattr__(self, name: str) -> Any:
            return sleep if name == "sleep" else getattr(asyncio, name)

    patch.set(dispatcher_module, "asyncio", Asyncio())
