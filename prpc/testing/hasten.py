"""Deadlines of calls by a clock that is moved by hand: in the client that made them, and in the server that runs them."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

from prpc.client.channel import Channel
from prpc.client.client import CallPump
from prpc.client.portal import running_loop

__all__ = ["Hastener", "Overdue"]

#: Most seconds that a moved clock waits for a loop that is busy.
_BUSY_SECONDS = 5.0
#: How often it is looked whether calls were sent, and the seconds in between.
_TRIES, _BETWEEN_TRIES = 1000, 0.001


class Hastener:
    """Ends the calls of one channel when the clock was moved by their whole timeout since they were made.

    What is moved before a call is made does not count, and neither does the time that really passes: the pump's own timers
    look after that.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: Seconds that the clock was moved since the call was made.
        self._moved: defaultdict[UUID, float] = defaultdict(float)
        self._lock = threading.Lock()

    def hasten(self, seconds: float) -> None:
        """The clock moves so much further. In any thread; done in every loop when this returns."""
        for pump in list(self._channel._pumps.values()):
            if pump.loop is running_loop():
                self._look(pump, seconds)
            elif pump.usable and pump.loop.is_running():
                done = threading.Event()
                pump.post(partial(self._look_soon, pump, seconds), done)
                done.wait(_BUSY_SECONDS)

    def _look_soon(self, pump: CallPump, seconds: float, done: threading.Event, tries: int = _TRIES) -> None:
        """Once every call is at the broker that was made before, as its age counts from there."""
        if tries and not all(call.sent for call in pump.pending.calls()):
            pump.loop.call_later(_BETWEEN_TRIES, self._look_soon, pump, seconds, done, tries - 1)
            return
        self._look(pump, seconds)
        done.set()

    def _look(self, pump: CallPump, seconds: float) -> None:
        with self._lock:
            for call in pump.pending.calls():
                self._moved[call.message_id] += seconds
                if call.timeout is not None and self._moved[call.message_id] >= call.timeout:
                    pump._expire(call.message_id)
                elif call.expires is not None and not call.sent:
                    call.expires -= seconds


class Overdue:
    """Ends the calls of one server whose deadline came as the clock was moved.

    The server's loop stands still meanwhile: a call whose age it has just read would else begin with a deadline that the move
    does not reach any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
        """`end`: ends, in the server's loop, what is overdue."""
        self._loop, self._end = loop, end
        self._go_on = threading.Event()

    def hold(self, _: float) -> None:
        """Before the clock moves, in any thread."""
        if running_loop() is self._loop:
            return
        held, self._go_on = threading.Event(), threading.Event()
        with suppress(RuntimeError):  # the loop is closed: the server has ended by itself
            self._loop.call_soon_threadsafe(self._stand, held, self._go_on)
            held.wait(_BUSY_SECONDS)

    def _stand(self, held: threading.Event, go_on: threading.Event) -> None:
        held.set()
        go_on.wait(_BUSY_SECONDS)

    def let_go(self) -> None:
        """After the clock has moved."""
        self._go_on.set()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)
