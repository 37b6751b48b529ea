"""Mutants of the client: its pump, its repeats, and the table of what it waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from prpc.client.client import CallPump
from prpc.client.connection import Connection
from prpc.client.repair import Repair
from prpc.client.repeating import Repeating
from prpc.protocol.pending import PendingCalls
from prpc.protocol.repeats import Repeats, Step
from prpc.timers import TimerWheel
from tests.sim.broker import SimBroker, _Reader
from tests.sim.mutants import Patch, mutant, nothing


@mutant("after a gap in its mail a client looks for kept outcomes")
def gaps_are_not_repaired(patch: Patch) -> None:
    patch.set(Repair, "after_gap", nothing)


@mutant("a mailbox says that it may have missed mail")
def gaps_are_not_told(patch: Patch) -> None:
    def opened(old: Any, self: _Reader, connection: Any) -> Any:
        async def open_() -> None:
            await old(self, connection)
            self._gap = False

        return open_()

    patch.around(_Reader, "_opened", opened)


@mutant("an idempotent call is sent again")
def nothing_is_repeated(patch: Patch) -> None:
    patch.set(Repeats, "_plan", lambda self, start, chance: False)


@mutant("a call that is repeated ends with its deadline")
def repeats_have_no_deadline(patch: Patch) -> None:
    def due(self: Repeats, now: float) -> Step:
        return Step.SEND if self._next is not None and now >= self._next else Step.WAIT

    patch.set(Repeats, "due", due)
    patch.set(Repeats, "moment", property(lambda self: self._next))


@mutant("a call whose last attempt is refused may run by an earlier one")
def refusals_are_believed(patch: Patch) -> None:
    def failed(self: Repeats, attempt: int, now: float, chance: float, *, passing: bool) -> bool:
        if not self._is_current(attempt):
            return True
        self._sending = False
        planned = (passing or self._accepted) and self._plan(now, chance)
        return planned or self._accepted

    patch.set(Repeats, "failed", failed)


@mutant("what a server answers needs no answer of the broker's")
def answered_calls_wait_for_the_broker(patch: Patch) -> None:
    def answered(self: Repeats) -> None:
        self._answered, self._next = True, None

    patch.set(Repeats, "answered", answered)


@mutant("a call ends at its deadline")
def deadlines_are_lost(patch: Patch) -> None:
    patch.set(CallPump, "_due", nothing)


@mutant("a timeout comes when it is due")
def timeouts_come_early(patch: Patch) -> None:
    def add(old: Any, self: TimerWheel[Any], key: Any, at: float) -> int:
        now = self._loop.time()
        tick: int = old(self, key, now + (at - now) * 0.7)
        return tick

    patch.around(TimerWheel, "add", add)
    patch.set(Repeating, "due", lambda self, call: False)


@mutant("the first outcome of a call is the only one")
def a_late_outcome_replaces_the_first(patch: Patch) -> None:
    def take(self: PendingCalls[Any], message_id: Any) -> Any:
        return self.get(message_id)

    patch.set(PendingCalls, "take", take)


@mutant("servers are told of cancelled calls")
def cancellations_are_not_sent(patch: Patch) -> None:
    patch.set(Connection, "cancel", nothing)


@mutant("all attempts of a call have one id")
def attempts_have_ids_of_their_own(patch: Patch) -> None:
    def publish(old: Any, self: SimBroker, queue: str, call: Any) -> Any:
        return old(self, queue, replace(call, message_id=uuid4()) if call.again else call)

    patch.around(SimBroker, "publish", publish)


@mutant("a call that could not be sent ends with the error")
def unsent_calls_are_not_told(patch: Patch) -> None:
    def published(old: Any, self: Connection, batch: Any, future: Any) -> None:
        self._unconfirmed.discard(future)
        if self._last[1] is batch:
            self._last = (None, [])

    patch.around(Connection, "_published", published)


@mutant("calls whose connection is lost are sent again, or ended")
def calls_are_left_behind(patch: Patch) -> None:
    async def leave(self: CallPump, reason: Exception) -> None:
        connection, self._connection = self._connection, None
        self._timers.clear()
        self.streams.close()
        self._outbox.clear()
        self._repair.stop()
        if connection is not None:
            await connection.close()

    patch.set(CallPump, "_leave", leave)


@mutant("a call that waits for the connection is sent once it is there")
def the_outbox_is_lost(patch: Patch) -> None:
    async def connect(old: Any, self: CallPump) -> Any:
        self._outbox.clear()
        return await old(self)

    patch.around(CallPump, "_connect", connect)
