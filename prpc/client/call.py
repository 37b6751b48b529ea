"""One call on the client's side: what was sent, what came of it, and who waits for it.

A call is decided once, by whoever takes it from the table of pending calls (protocol/pending.py), in whatever thread that
is. Waiters may stand in any thread and in any loop; each leaves a function that wakes it.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import types
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from prpc.client.options import CallOptions
from prpc.client.track import Listener, Track
from prpc.codec import ReadReply
from prpc.exceptions import DeadlineExceededError, PRPCError, WorkerTimeoutError
from prpc.failure import restore
from prpc.progress import Progress
from prpc.protocol.repeats import Repeats
from prpc.prpcmessage import PRPCMessage

__all__ = ["Call", "Feeds", "Home", "StreamHome", "Waiter", "wake_future"]

#: Who waits for an outcome: a future of the home's loop, or a function that wakes whoever waits elsewhere. Most calls have one
#: waiter: an object less for each is memory and work that the garbage collector has not.
Waiter: TypeAlias = Callable[[], object] | asyncio.Future[None]


class Feeds(Protocol):
    """Arguments of one call that are streams."""

    @property
    def names(self) -> tuple[str, ...]:
        """Places or names of the arguments."""
        ...

    def stop(self) -> None:
        """Send no more: the call has its outcome."""
        ...


class StreamHome(Protocol):
    """What a stream's reader tells of itself. From any thread."""

    def speak(self, message_id: UUID) -> None:
        """Tell the writer of this stream how far its reader is."""
        ...

    def let_go(self, message_id: UUID) -> None:
        """This stream is over, for its reader."""
        ...

    def abandon(self, call: Call) -> None:
        """Nobody holds this stream any more: cancel it, soon and in the loop's thread."""
        ...


class Home(Protocol):
    """Where a call lives: the pump that sent it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def check_sync_wait(self) -> None:
        """Raise RuntimeError where blocking this thread would wait for ever."""
        ...

    def check_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise RuntimeError where no outcome can come to a waiter in `loop`, the running one."""
        ...

    def cancel(self, call: Call) -> bool:
        """Decide the call as cancelled and tell the servers; False where it was decided before."""
        ...

    def refresh(self, call: Call) -> None:
        """Ask the broker for the call's kept reply: plain code waits for the answer, in a running loop it comes later."""
        ...

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        """Call `function(argument)` in the loop: now where it is the running one, else soon. RuntimeError: it is closed."""
        ...

    @property
    def streams(self) -> StreamHome:
        """For the calls of streaming functions."""
        ...


class Call:
    """One call. Fields are written by its maker and its pump; the outcome once, by whoever took it from the table."""

    __slots__ = (
        "__weakref__",
        "_waiters",
        "body",
        "done",
        "ended",
        "error",
        "expires",
        "feeds",
        "home",
        "message",
        "message_id",
        "options",
        "repeats",
        "reply",
        "schema",
        "sent",
        "tick",
        "timeout",
        "told",
        "track",
    )

    def __init__(self, message: PRPCMessage, body: bytes | None, options: CallOptions, schema: str | None, home: Home) -> None:
        self.message = message
        self.message_id: UUID = message.message_id
        #: The message's text until it is handed to the broker; of a call that is repeated, until its outcome.
        self.body: bytes | None = body
        #: Whether the broker has got it; written and read in the home's loop.
        self.sent = False
        self.options = options
        #: Hash of the signature that the caller's stub was made from.
        self.schema = schema
        self.home = home
        #: Seconds that the call was given from its start; None without a deadline.
        self.timeout: float | None = None
        #: Moment of the deadline on the clock of `time.monotonic`; None without one.
        self.expires: float | None = None
        #: Where the pump's timer wheel holds it; 0: nowhere.
        self.tick = 0
        #: The call's attempts, where it is one that is repeated; belongs to the home's loop.
        self.repeats: Repeats | None = None
        #: Its arguments that are streams; None where none is.
        self.feeds: Feeds | None = None
        #: What a server answered.
        self.reply: ReadReply | None = None
        #: What ended it here: a timeout, a cancellation, a broker that is away.
        self.error: Exception | None = None
        self.ended: datetime = message.date_create_message
        #: Whether somebody was told what ended it here.
        self.told = False
        #: True once the outcome is there; written last.
        self.done = False
        self._waiters: list[Waiter] = []
        #: What is known of its progress; None where nobody asked and nothing came. Made in the home's loop.
        self.track: Track | None = None

    # -- outcome -------------------------------------------------------------------------------------------------------

    def end(self, outcome: ReadReply | Exception) -> None:
        """Write the outcome: a server's answer, or an error of our own. Once; `notify` follows."""
        if isinstance(outcome, Exception):
            self.error, self.ended = outcome, datetime.now(UTC)
        else:
            self.reply = outcome
            if outcome.failure is not None:
                self.ended = datetime.now(UTC)
        self.body = None
        self.done = True

    def notify(self) -> None:
        """Wake every waiter, each once. In the thread of the call's loop."""
        waiters = self._waiters
        while waiters:
            try:
                waiter = waiters.pop()
            except IndexError:  # the last one left in the same moment
                return
            _wake(waiter)

    def value(self) -> Any:
        """What the server answered with, or raise what ended the call; once it is done.

        Each reader gets an exception of its own, so that tracebacks of several readers do not pile up on one object.
        """
        reply = self.reply
        if reply is None:
            self.told = True
            raise copy_of(self.error)
        if reply.failure is not None:
            raise with_times(restore(reply.failure), (self.ended - self.message.date_create_message).total_seconds())
        return reply.result

    # -- progress ------------------------------------------------------------------------------------------------------

    def note(self, progress: Progress) -> None:
        """The function's newest word on how far it is; in the thread of the home's loop."""
        if self.track is None:
            self.track = Track()
        self.track.note(progress)

    def on_progress(self, callback: Callable[[Progress], object]) -> Callable[[], None]:
        """Tell the callback every word from the last one on, in the thread of the home's loop; returns what ends that."""
        listener = Listener(callback, self.message.func_name)
        try:
            self.home.post(self._listen, listener)
        except RuntimeError:  # the loop is closed: nothing comes any more, and nobody but us tells what came last
            self._listen(listener)
        return listener.stop

    def _listen(self, listener: Listener) -> None:
        if self.track is None:
            self.track = Track()
        self.track.add(listener)

    # -- waiting -------------------------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    def add_waiter(self, waiter: Waiter) -> None:
        """Wake it once when the outcome is there, at once where it is there already."""
        self._waiters.append(waiter)
        # The decider sets `done` before it looks at the list: whichever of us comes second sees the other.
        if self.ready() and self.remove_waiter(waiter):
            _wake(waiter)

    def remove_waiter(self, waiter: Waiter) -> bool:
        """Wait no longer; False where the waiter was woken already."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def give_up(self, waiter: Waiter) -> None:
        """A waiter was cancelled: nobody else wants the result, so the call is cancelled too."""
        self.remove_waiter(waiter)
        if not self.done and not self.watched:
            self.home.cancel(self)

    @property
    def window(self) -> int | None:
        """Items that are taken before a word of this side; None where a single result is expected."""
        return None

    def ready(self) -> bool:
        """Whether there is what waiters wait for: the outcome."""
        return self.done

    def wait(self, timeout: float | None) -> bool:
        """Block this thread until the outcome is there; False where `timeout` seconds passed first."""
        if self.ready():
            return True
        self.home.check_sync_wait()
        lock = threading.Lock()
        lock.acquire()
        wake = lock.release
        self.add_waiter(wake)
        try:
            lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            self.remove_waiter(wake)
        return self.ready()

    def waiting(self, seconds: float | None) -> Generator[Any, None, bool]:
        """What `wait_async` awaits, for an `__await__`."""
        if self.ready():
            return True
        loop = asyncio.get_running_loop()
        self.home.check_wait(loop)
        future: asyncio.Future[None] = loop.create_future()
        waiter: Waiter = future if loop is self.home.loop else partial(_wake_elsewhere, loop, future)
        timer = None if seconds is None else loop.call_later(max(seconds, 0.0), wake_future, future)
        self.add_waiter(waiter)
        try:
            yield from future
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError):
                self.give_up(waiter)
            else:
                self.remove_waiter(waiter)
            if timer is not None:
                timer.cancel()
            raise
        if timer is not None:
            timer.cancel()
            self.remove_waiter(waiter)
        return self.ready()

    @types.coroutine
    def wait_async(self, seconds: float | None) -> Generator[Any, None, bool]:
        """Wait in the running loop; False where `seconds` passed first. Cancelling may cancel the call."""
        return (yield from self.waiting(seconds))


def copy_of(error: Exception | None) -> Exception:
    if error is None:
        return RuntimeError("the call is not done")
    if isinstance(error, PRPCError):
        fresh = copy.copy(error)
        fresh.__cause__, fresh.__suppress_context__ = error.__cause__, error.__suppress_context__
        return fresh
    return error.with_traceback(None)


def with_times(error: BaseException, total: float) -> BaseException:
    """A server's word on a time limit, completed: of `total` seconds, what was neither queue nor run went into the way."""
    if isinstance(error, WorkerTimeoutError | DeadlineExceededError):
        queued, running = _number(error.queued), _number(getattr(error, "running", None))
        error.answering = max(0.0, total - queued - running)
        times = f"{queued:.3f} s queued, {running:.3f} s running, {error.answering:.3f} s sending and answering"
        error.args = (f"{error} ({times})",)
    return error


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _wake(waiter: Waiter) -> None:
    if callable(waiter):
        waiter()
    elif not waiter.done():
        waiter.set_result(None)


def wake_future(future: asyncio.Future[None]) -> None:
    """End a waiter's future, in its own loop's thread."""
    if not future.done():
        future.set_result(None)


def _wake_elsewhere(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(wake_future, future)
    except RuntimeError:  # that loop was closed meanwhile, and its waiter with it
        return
