"""One connection for all short commands of a process: what is queued in one loop tick goes out as one write.

A `Link` reconnects by itself. Commands that wait for a connection are kept in order; those that were under way when it broke
are sent again where that is harmless (`repeat`) and fail with BrokerUnavailableError where it is not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from prpc.brokers.awaiting import background
from prpc.brokers.clock import BrokersClock
from prpc.brokers.redis_address import RedisAddress, explain
from prpc.brokers.redis_scripts import Script
from prpc.brokers.redis_wire import Wire, pack
from prpc.exceptions import BrokerUnavailableError

__all__ = ["LONGEST_PAUSE", "Backoff", "Link", "moment"]

log = logging.getLogger(__name__)

#: Seconds between two attempts to reach Redis, at most.
LONGEST_PAUSE = 2.0
#: How often a connection is looked at before it counts as dead. A pause of this whole process is one look.
LOOKS = 4
#: Seconds after which a command is tried again that Redis cannot carry out now (out of memory, disk full, failing over).
RETRY_AFTER = 1.0
#: Bytes after which a write ends: the rest stays in the queue until the transport has room.
MOST_BYTES = 1024 * 1024
#: Starts of errors that pass by themselves or by an operator's hand.
PASSING = ("OOM", "MISCONF", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")


#: Takes an answer, or the error that came instead, in the callback that reads it.
Then = Callable[[Any, Exception | None], None]


class Backoff:
    """Waiting times between attempts: growing, bounded, scattered."""

    def __init__(self, first: float = 0.02, most: float = LONGEST_PAUSE) -> None:
        self._first, self._most, self._next = first, most, first

    def reset(self) -> None:
        self._next = self._first

    def next(self) -> float:
        """Seconds until the next attempt."""
        seconds, self._next = self._next, min(self._next * 2, self._most)
        return seconds * random.uniform(0.5, 1.0)


@dataclass(slots=True, eq=False)
class _Command:
    data: bytes
    then: Then
    repeat: bool
    script: Script | None
    until: float | None  # loop time after which it fails if it was not sent


class Link:
    """The pipelining connection. Bound to the loop in which `connect` ran."""

    def __init__(self, address: RedisAddress, scripts: Sequence[Script], silence: float = 5.0, pause: float = 2.0) -> None:
        """`silence`: seconds without an answer to a command under way after which the connection counts as dead;
        `pause`: the longest between two attempts to open it again, in seconds."""
        self.address = address
        self.silence = silence
        self.longest_pause = pause
        #: Redis's clock.
        self.clock = BrokersClock()
        #: Counts the connections.
        self.epoch = 0
        self._scripts = scripts
        self._queue: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._fillers: list[Callable[[], None]] = []
        #: The connection, while there is one.
        self._wire: Wire | None = None
        #: Whether a write is due at the end of this tick.
        self._due = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._answered = 0
        self._main: asyncio.Task[None] | None = None
        self._later: dict[_Command, asyncio.TimerHandle] = {}
        self._idle: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    # for its users

    async def connect(self) -> None:
        """Open the connection. Raises BrokerUnavailableError."""
        if self._main is not None:
            return
        self._loop = asyncio.get_running_loop()
        wire = await self._open()
        self._main = background(self._run(wire), "prpc-redis-link")

    def call(self, *words: Any, repeat: bool = True, patience: float | None = None) -> asyncio.Future[Any]:
        """Queue one command. It fails after `patience` seconds (None: never) without a connection to send it on."""
        answer: asyncio.Future[Any] = self._open_loop().create_future()
        self._push(pack(words), partial(_resolve, answer), repeat, None, patience)
        return answer

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any], patience: float | None = None) -> asyncio.Future[Any]:
        """Queue one script; each of ours may run twice without harm."""
        answer: asyncio.Future[Any] = self._open_loop().create_future()
        self.post(script, keys, args, partial(_resolve, answer), patience)
        return answer

    def post(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Any],
        then: Then,
        patience: float | None = None,
        *,
        repeat: bool = True,
        size: int | None = None,
    ) -> None:
        """`run` for those who need not wait a tick for the answer: `then` gets it at once. It must not raise.

        `size`: see `pack`.
        """
        self._push(pack(("EVALSHA", script.sha, len(keys), *keys, *args), size), then, repeat, script, patience)

    def promise(self) -> asyncio.Future[Any]:
        """A future for an answer. Raises BrokerUnavailableError where the connection was never opened or is closed."""
        return self._open_loop().create_future()

    def before_write(self, filler: Callable[[], None]) -> None:
        """Have `filler` called once, right before the next write: what it queues goes out with it."""
        self._fillers.append(filler)
        self._ring()

    def fill(self) -> None:
        """Queue now what waits for the next write: it goes out before whatever is queued after it."""
        fillers, self._fillers = self._fillers, []
        for filler in fillers:
            filler()

    async def close(self) -> None:
        """Wait for what is queued, as long as there is a connection (at most the connect timeout), then close it."""
        if self._main is None or self.closed:
            self.closed = True
            return
        await asyncio.sleep(0)  # a task that is cancelled before its first step could not close its connection
        self._ring()
        try:
            async with asyncio.timeout(self.address.connect_timeout):
                while self._queue or self._sent or self._fillers:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("closing with commands that %s never answered", self.address.shown)
        finally:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)

    # queue

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self.closed:
            raise BrokerUnavailableError(
                f"the connection to Redis at {self.address.shown} is not open: connect first", url=self.address.shown
            )
        return self._loop

    def _push(self, data: bytes, then: Then, repeat: bool, script: Script | None, patience: float | None) -> None:
        loop = self._open_loop()
        until = None if patience is None else loop.time() + patience
        self._queue.append(_Command(data, then, repeat, script, until))
        if not self._due:
            self._ring()

    def _ring(self) -> None:
        """Write at the end of this tick; without a connection or room the next one and `resumed` do."""
        if not self._due and self._wire is not None and self._loop is not None:
            self._due = True
            self._loop.call_soon(self._write)

    # the connection's life

    async def _run(self, wire: Wire) -> None:
        backoff = Backoff(most=self.longest_pause)
        error: BaseException = BrokerUnavailableError("closed")
        try:
            while True:
                answered = self._answered
                error = await self._serve(wire)
                if self._answered != answered:
                    backoff.reset()
                log.warning("connection to Redis at %s was lost (%s); trying again", self.address.shown, error)
                self._recover(error)
                wire = await self._reconnect(backoff)
                log.info("connection to Redis at %s is back", self.address.shown)
        finally:
            self._fail_all(error)
            self.closed = True

    async def _reconnect(self, backoff: Backoff) -> Wire:
        while True:
            await asyncio.sleep(backoff.next())
            try:
                return await self._open()
            except BrokerUnavailableError as exc:
                self._expire(exc)
                log.debug("%s", exc)

    async def _serve(self, wire: Wire) -> BaseException:
        """Use the connection until it is lost; returns why it was."""
        wire.receive, wire.resumed = self._receive, self._ring
        self._wire = wire
        self._ring()
        try:
            return await wire.lost
        finally:
            self._wire = None
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None
            await wire.hang_up()

    async def _open(self) -> Wire:
        """A new connection with our scripts loaded; the time is learnt on the way. Raises BrokerUnavailableError."""
        wire = await self.address.open()
        try:
            async with asyncio.timeout(self.address.connect_timeout):
                asked = time.monotonic()
                commands = [("TIME",), *(("SCRIPT", "LOAD", script.source) for script in self._scripts)]
                (seconds, microseconds), *_ = await asyncio.gather(*(wire.ask(pack(words)) for words in commands))
                self.clock.learn(*moment(seconds, microseconds), asked)
        except BaseException as exc:
            await wire.hang_up()
            if isinstance(exc, (RedisError, OSError)):
                raise explain(exc, self.address) from exc
            raise
        self.epoch += 1
        return wire

    def _write(self) -> None:
        """All that was queued in this tick as one write; what a slow peer does not take stays in the queue."""
        wire, queue, sent = self._wire, self._queue, self._sent
        try:
            if wire is None or wire.lost.done() or not wire.writable:
                return
            self.fill()
        finally:
            self._due = False
        while queue and wire.writable:
            batch: list[bytes] = []
            size = 0
            while queue and size < MOST_BYTES:
                command = queue.popleft()
                sent.append(command)
                batch.append(command.data)
                size += len(command.data)
            wire.write(b"".join(batch))
        if self._stall_timer is None and sent:
            self._watch()

    def _watch(self, before: tuple[int, int] | None = None, still: int = 0) -> None:
        """Give the connection up when, with commands under way, it neither brought nor took anything in several looks."""
        self._stall_timer = None
        if self._wire is None or self._loop is None or not self._sent:
            return
        now = (self._wire.heard, self._wire.unsent)
        moved = before is None or now[0] != before[0] or now[1] < before[1]
        still = 0 if moved else still + 1
        if still >= LOOKS:
            self._wire.give_up(TimeoutError(f"no answer for {self.silence:g} s"))
        else:
            self._stall_timer = self._loop.call_later(self.silence / LOOKS, self._watch, now, still)

    def _receive(self, answer: Any) -> None:
        if not isinstance(answer, RedisError):
            self._sent.popleft().then(answer, None)
        elif isinstance(answer, ResponseError) and not isinstance(answer, (ReadOnlyError, ClusterDownError)):
            self._refused(self._sent.popleft(), answer)
        else:
            raise answer  # not the master any more: look for it again
        self._answered += 1
        if not self._sent:
            self._idle.set()

    def _refused(self, command: _Command, exc: ResponseError) -> None:
        if isinstance(exc, NoScriptError) and command.script is not None:
            self.call("SCRIPT", "LOAD", command.script.source)
            self._queue.append(command)
        elif command.repeat and command.until is None and _passes(exc):
            log.error("Redis at %s cannot carry out a command now, trying again: %s", self.address.shown, exc)
            self._again_later(command)
        else:
            _fail(command, exc, self.address)

    def _again_later(self, command: _Command) -> None:
        def again() -> None:
            del self._later[command]
            self._queue.append(command)
            self._ring()

        self._later[command] = asyncio.get_running_loop().call_later(RETRY_AFTER, again)

    # losses

    def _recover(self, error: BaseException) -> None:
        """Sort what was under way: send again what may run twice, and what Redis surely refused."""
        self.fill()
        refused = isinstance(error, (ResponseError, BusyLoadingError))
        again: list[_Command] = []
        for command in self._sent:
            if command.repeat or refused:
                again.append(command)
            else:
                _fail(command, _lost(error, self.address), self.address)
        self._sent.clear()
        self._queue.extendleft(reversed(again))
        self._idle.set()

    def _expire(self, error: BrokerUnavailableError) -> None:
        self.fill()
        now = asyncio.get_running_loop().time()
        kept: deque[_Command] = deque()
        for command in self._queue:
            if command.until is not None and command.until <= now:
                _fail(command, error, self.address)
            else:
                kept.append(command)
        self._queue = kept
        self._idle.set()

    def _fail_all(self, error: BaseException) -> None:
        for handle in self._later.values():
            handle.cancel()
        self.fill()
        for command in (*self._sent, *self._queue, *self._later):
            _fail(command, error, self.address)
        self._sent.clear()
        self._queue.clear()
        self._idle.set()


def moment(seconds: Any, microseconds: Any) -> tuple[float, float]:
    """Redis's TIME as seconds since 1970: at least, at most."""
    least = int(seconds) + int(microseconds) / 1e6
    return least, least + 1e-6


def _passes(exc: ResponseError) -> bool:
    code = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
    return isinstance(exc, TryAgainError) or code in PASSING or "-OOM " in str(exc) or "-MISCONF " in str(exc)


def _lost(error: BaseException, address: RedisAddress) -> BrokerUnavailableError:
    text = f"the connection to Redis at {address.shown} broke before it answered; whether it accepted the call is not known"
    lost = BrokerUnavailableError(text, url=address.shown)
    lost.__cause__ = error
    return lost


def _fail(command: _Command, error: BaseException, address: RedisAddress) -> None:
    mapped = error if isinstance(error, BrokerUnavailableError) else explain(error, address)
    if mapped is not error:
        mapped.__cause__ = error
    command.then(None, mapped)


def _resolve(future: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
        future.exception()  # whoever does not await it has nothing to be told
