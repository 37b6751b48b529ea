"""Deadlines of a client's calls by a clock that is moved by hand."""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import partial
from uuid import UUID

from prpc.client.channel import Channel
from prpc.client.client import CallPump

__all__ = ["Hastener"]

#: Most seconds that a moved clock waits for a loop that is busy.
_BUSY_SECONDS = 5.0


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
            if pump.usable and pump.loop.is_running():
                done = threading.Event()
                # In the order in which the calls were posted: what was sent before is at the broker, or never gets there.
                pump.post(partial(self._look, pump, seconds), done)
                done.wait(_BUSY_SECONDS)

    def _look(self, pump: CallPump, seconds: float, done: threading.Event) -> None:
        with self._lock:
            for call in pump.pending.calls():
                self._moved[call.message_id] += seconds
                if call.timeout is not None and self._moved[call.message_id] >= call.timeout:
                    pump._expire(call.message_id)
        done.set()
