"""Progress of functions in worker processes: on its way out of the process, and on to the call in the server."""

from __future__ import annotations

import pickle
import threading
import time

from prpc.call_context import current_call
from prpc.progress import Progress
from prpc.workers.process_wire import Channel, Kind
from prpc.workers.slots import SlotExecution

__all__ = ["PipeReports", "pass_on"]

#: Least seconds between two frames.
EVERY = 0.1


class PipeReports:
    """In a worker: a ProgressSink that sends the newest through the pipe. A slow function needs no thread for it.

    What comes too soon after the last frame is sent by a thread that waits for its time; there is at most one at work.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: The call that runs; what others say comes too late.
        self._message_id: str | None = None
        self._newest: Progress | None = None
        self._sent: Progress | None = None
        #: Monotonic seconds before which nothing more is sent.
        self._next = float("-inf")
        self._waiting = False
        self._ended = threading.Event()
        #: Held while a frame is written, so that a newer one never goes first; a finalizer may speak meanwhile.
        self._lock = threading.RLock()

    def close(self) -> None:
        """Say nothing any more: for a process that user code forked."""
        self._message_id = None

    def begin(self, message_id: str) -> None:
        """A call begins."""
        self._newest = self._sent = None
        self._next, self._waiting, self._ended = float("-inf"), False, threading.Event()
        self._message_id = message_id

    def end(self) -> None:
        """It has returned: send what was not sent yet."""
        message_id = self._message_id
        if message_id is not None and self._newest is not None:
            self._ended.set()
            self._send(message_id)
        self._message_id = None

    def report(self, message_id: str, progress: Progress) -> None:
        """See ProgressSink."""
        if message_id != self._message_id:
            return
        self._newest = progress
        if self._waiting:  # lowered before the newest is taken
            return
        left = self._next - time.monotonic()
        if left <= 0:
            self._send(message_id)
        else:
            self._waiting = True
            waiter = threading.Thread(target=self._wait, args=(message_id, left, self._ended), name="prpc-progress", daemon=True)
            try:
                waiter.start()
            except RuntimeError:  # the system gives no more threads: a later word, or the end, sends it
                self._waiting = False

    def _wait(self, message_id: str, seconds: float, ended: threading.Event) -> None:
        if not ended.wait(seconds):
            self._waiting = False
            self._send(message_id)

    def _send(self, message_id: str) -> None:
        with self._lock:
            newest = self._newest
            if message_id != self._message_id or newest is None or newest is self._sent:
                return
            self._sent, self._next = newest, time.monotonic() + EVERY
            body = pickle.dumps((message_id, newest.done, newest.total, newest.message))
            self._channel.send(Kind.PROGRESS, body)


def pass_on(execution: SlotExecution | None, body: bytes | bytearray) -> None:
    """In the server: what a worker says of the call that it runs."""
    message_id, done, total, message = pickle.loads(body)
    if execution is not None and execution.job.message_id == message_id:
        try:
            call = execution.job.context.run(current_call)
        except LookupError:
            return
        call.progress(done, total, message)
