"""One worker process as its pool sees it."""

from __future__ import annotations

import asyncio
import enum
import os
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from prpc.workers.process_boot import Boot
from prpc.workers.process_control import WorkerPipe, socket_pair
from prpc.workers.process_wire import Frame, Kind, Turns, pack_frame
from prpc.workers.slots import SlotExecution

__all__ = ["MOST_BEHIND", "State", "Worker"]

#: Jobs that wait in one worker, at most.
MOST_BEHIND = 15


class State(enum.Enum):
    """What a worker does."""

    STARTING = enum.auto()  # until it has imported the functions
    IDLE = enum.auto()
    BUSY = enum.auto()
    SPENT = enum.auto()  # busy for the last time
    ENDING = enum.auto()  # it gets no more jobs; its exit is awaited


class Worker:
    """The jobs that one worker process has, in their order: the first runs, those behind it wait in its pipe.

    A worker answers a job before it takes the turn of the next one, so one at most has begun of those that are not answered.
    """

    def __init__(self, token: int, frees: SlotExecution | None, loop: asyncio.AbstractEventLoop) -> None:
        self.token = token
        #: The ended job of a worker that this one replaces: its slot is free when this one is ready.
        self.frees = frees
        self.state = State.STARTING
        self.pid = 0
        #: Jobs that it has answered.
        self.answered = 0
        self.jobs: deque[SlotExecution] = deque()
        #: Traceback of an import that failed.
        self.broken = ""
        self._loop = loop
        self._turns = Turns()
        self._pipe: WorkerPipe | None = None
        #: Frames of jobs that are sent together, in this turn of the loop.
        self._unsent: list[bytes] = []
        #: Jobs that were taken back and that it has not skipped yet: until then a turn would not say which job it is for.
        self._stale = 0
        self._is_asked = False
        self._is_closed = False

    def open(self, boot: Boot, on_frame: Callable[[Frame], None], on_end: Callable[[], None]) -> tuple[int, int]:
        """Make the pipes; the descriptors that are the worker's. Raises OSError where the system gives no more of them."""
        with ExitStack() as undo:
            undo.callback(self._turns.close)
            turns = os.dup(self._turns.reading)
            undo.callback(os.close, turns)
            ours, theirs = socket_pair()
            undo.pop_all()
        self._pipe = WorkerPipe(self._loop, ours, on_frame, on_end)
        self._pipe.send(pack_frame(Kind.BOOT, pickle.dumps(boot)))
        return theirs.detach(), turns

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"prpc-process-{self.pid}"

    @property
    def is_settled(self) -> bool:
        """Whether it has nothing to do and nothing to skip."""
        return not self.jobs and not self._stale

    def has_room(self, most: int) -> bool:
        """Whether a further job may wait behind the one that runs. `most`: jobs that it runs in its life; 0 for any number."""
        return (
            self.state is State.BUSY
            and not self._stale
            and not self._is_asked
            and 0 < len(self.jobs) <= MOST_BEHIND
            and (not most or self.answered + len(self.jobs) < most)
        )

    def give(self, execution: SlotExecution, body: bytes) -> None:
        """Let it run the job: now, or once it is done with those before."""
        self.state = State.BUSY
        self.jobs.append(execution)
        if len(self.jobs) == 1:
            self._turns.offer(1)
            self._send(pack_frame(Kind.CALL, body))
            return
        if not self._unsent:
            self._loop.call_soon(self._send_unsent)
        self._unsent.append(b"".join(pack_frame(Kind.CALL, body)))

    def _send_unsent(self) -> None:
        frames, self._unsent = self._unsent, []
        if frames and self.state is not State.ENDING:
            self._turns.offer(len(frames))
            self._send((b"".join(frames),))

    def _send(self, pieces: Sequence[bytes]) -> None:
        assert self._pipe is not None
        self._pipe.send(pieces)

    def recall(self, most: int = MOST_BEHIND + 1) -> list[SlotExecution]:
        """Take back the last `most` of the jobs that have not begun, in their order."""
        unsent = min(most, len(self._unsent))
        del self._unsent[len(self._unsent) - unsent :]
        sent = self._turns.take_back(most - unsent) if most > unsent else 0
        self._stale += sent
        back = [self.jobs.pop() for _ in range(unsent + sent)]
        back.reverse()
        return back

    def ask(self) -> list[SlotExecution]:
        """Take back all that has not begun, and hear what it said before: what is left in `jobs` runs now, if anything does."""
        assert self._pipe is not None
        self._is_asked = True  # what it says may bring further jobs here: none is given to it meanwhile
        try:
            back = self.recall()
            while len(self.jobs) > 1 and self._pipe.read():
                pass
        finally:
            self._is_asked = False
        return back

    def skipped(self) -> None:
        """It has skipped a job that was taken back."""
        self._stale -= 1

    def retire(self) -> None:
        """Give it no more jobs; it ends when its pipe is closed. Idempotent."""
        self.state = State.ENDING
        self._unsent.clear()
        self._close()

    def bury(self) -> list[SlotExecution]:
        """It is dead. What it said last is told; the jobs that had not begun are returned, and one that had is left in `jobs`."""
        assert self._pipe is not None
        back = [] if self._is_closed else self.recall()
        self._pipe.drain()
        self._close()
        return back

    def _close(self) -> None:
        if not self._is_closed and self._pipe is not None:
            self._is_closed = True
            self._turns.close()
            self._pipe.close()
