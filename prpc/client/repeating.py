"""Calls that are sent again: the rules of protocol/repeats.py on the pump's timer wheel. Other calls do not pass through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random
from time import monotonic
from uuid import UUID

from prpc.client.call import Call
from prpc.exceptions import BrokerUnavailableError, ClientTimeOutError
from prpc.protocol.repeats import Repeats, Step
from prpc.timers import TimerWheel

__all__ = ["Repeating", "timed_out"]


class Repeating:
    """The repeats of one pump. Belongs to its loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timers: TimerWheel[int],
        send: Callable[[Call], None],
        fail: Callable[[Call, Exception], None],
    ) -> None:
        """`send` sends a call again; `fail` is told the error that ends one."""
        self._loop = loop
        self._timers = timers
        self._send = send
        self._fail = fail
        #: Calls that the broker has not got yet: they are sent even where nobody holds them any more.
        self._held: dict[UUID, Call] = {}

    def attempted(self, call: Call, repeats: Repeats, attempt: int, error: Exception | None) -> None:
        """The broker has this attempt, or the error came instead."""
        if call.done:
            return
        if error is None:
            repeats.accepted(attempt, monotonic(), random())
        elif not repeats.failed(attempt, monotonic(), random(), passing=_passes(error), sent=call.sent):
            self._fail(call, _in_doubt(call, error) if repeats.in_doubt and not _passes(error) else error)
            return
        elif repeats.unsent:
            self._held[call.message_id] = call
        self._arm(call, repeats)

    def outlives(self, call: Call, reason: Exception) -> bool:
        """Whether a call goes on after its connection ended for this reason; its timer is set anew then."""
        repeats = call.repeats
        if repeats is None or call.done or not repeats.lost(monotonic(), random(), passing=_passes(reason), sent=call.sent):
            return False
        self._held[call.message_id] = call
        self._arm(call, repeats)
        return True

    def let_go(self, call: Call) -> None:
        """The call has its outcome."""
        self._held.pop(call.message_id, None)

    def due(self, call: Call) -> bool:
        """The call's moment has come; False where it is its deadline."""
        repeats = call.repeats
        step = Step.EXPIRE if repeats is None else repeats.due(monotonic())
        if repeats is None or step is Step.EXPIRE:
            return False
        call.tick = 0
        if step is Step.SEND:
            self._held.pop(call.message_id, None)
            self._send(call)
        if not call.done:
            self._arm(call, repeats)
        return True

    def _arm(self, call: Call, repeats: Repeats) -> None:
        if call.tick:
            self._timers.remove(call.message_id.int, call.tick)
        at = repeats.moment
        call.tick = 0 if at is None else self._timers.add(call.message_id.int, self._loop.time() + at - monotonic())


def _passes(error: Exception) -> bool:
    return isinstance(error, BrokerUnavailableError)


def _in_doubt(call: Call, error: Exception) -> BrokerUnavailableError:
    """What ends a call whose last attempt was refused, but whose earlier ones may run."""
    doubt = BrokerUnavailableError(
        f"the last attempt of {call.message.func_name}() was refused ({error}); whether an earlier one arrived is not known"
    )
    doubt.__cause__ = error
    return doubt


def timed_out(call: Call) -> ClientTimeOutError:
    """What ends a call at its deadline."""
    name, timeout = call.message.func_name, call.timeout or 0.0
    attempts = None if call.repeats is None else call.repeats.attempts
    often = "" if attempts is None else f", in {attempts} attempt{'s' * (attempts != 1)}"
    where = "it was sent and may wait, run or have run" if call.sent else "it was not sent: the broker was not there"
    text = f"no outcome of {name}() within its timeout of {timeout:g} s{often}; {where}"
    return ClientTimeOutError(text, message_id=str(call.message_id), timeout=timeout, attempts=attempts, sent=call.sent)
