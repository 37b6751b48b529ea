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
from dataclasses import dataclass, field
from typing import Any

import hiredis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from prpc.brokers.base import background
from prpc.brokers.redis_address import RedisAddress, RedisConnection, explain, hang_up
from prpc.brokers.redis_scripts import Script
from prpc.exceptions import BrokerUnavailableError

__all__ = ["Backoff", "Link", "pack"]

log = logging.getLogger(__name__)

#: Seconds without an answer to a command under way after which the connection counts as dead.
STALLED = 15.0
#: Seconds after which a command is tried again that Redis cannot carry out now (out of memory, disk full, failing over).
RETRY_AFTER = 1.0
#: Starts of errors that pass by themselves or by an operator's hand.
PASSING = ("OOM", "MISCONF", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Backoff:
    """Waiting times between attempts: growing, bounded, scattered."""

    def __init__(self, first: float = 0.02, most: float = 2.0) -> None:
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
    answer: asyncio.Future[Any]
    repeat: bool
    script: Script | None
    until: float | None  # loop time after which it fails if it was not sent


@dataclass(slots=True)
class Clock:
    """Redis's own clock, as far as this process can tell without asking."""

    offset: float = field(default_factory=lambda: time.time() - time.monotonic())

    def set(self, seconds: int, microseconds: int, asked: float) -> None:
        """Redis's TIME, asked for at `asked` (monotonic)."""
        self.offset = seconds + microseconds / 1e6 - (asked + time.monotonic()) / 2

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.monotonic() + self.offset


class Link:
    """The pipelining connection. Bound to the loop in which `connect` ran."""

    def __init__(self, address: RedisAddress, scripts: Sequence[Script]) -> None:
        self.address = address
        self.clock = Clock()
        #: Counts the connections.
        self.epoch = 0
        self._scripts = scripts
        self._queue: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._fillers: list[Callable[[], None]] = []
        self._wake: asyncio.Future[None] | None = None
        self._stall: asyncio.Future[None] | None = None
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
        connection = await self._open()
        self._main = background(self._run(connection), "prpc-redis-link")

    def call(self, *words: Any, repeat: bool = True, patience: float | None = None) -> asyncio.Future[Any]:
        """Queue one command. It fails after `patience` seconds (None: never) without a connection to send it on."""
        return self._push(pack(words), repeat, None, patience)

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any], patience: float | None = None) -> asyncio.Future[Any]:
        """Queue one script; each of ours may run twice without harm."""
        return self._push(pack(("EVALSHA", script.sha, len(keys), *keys, *args)), True, script, patience)

    def before_write(self, filler: Callable[[], None]) -> None:
        """Have `filler` called once, right before the next write: what it queues goes out with it."""
        self._fillers.append(filler)
        self._ring()

    async def close(self) -> None:
        """Wait for what is queued, as long as there is a connection (at most the connect timeout), then close it."""
        if self._main is None or self.closed:
            self.closed = True
            return
        self._idle.clear()
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

    def _push(self, data: bytes, repeat: bool, script: Script | None, patience: float | None) -> asyncio.Future[Any]:
        if self._loop is None or self.closed:
            raise BrokerUnavailableError(
                f"the connection to Redis at {self.address.shown} is not open: connect first", url=self.address.shown
            )
        until = None if patience is None else self._loop.time() + patience
        command = _Command(data, self._loop.create_future(), repeat, script, until)
        self._queue.append(command)
        if self._wake is not None:
            self._ring()
        return command.answer

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # the connection's life

    async def _run(self, connection: RedisConnection) -> None:
        backoff = Backoff()
        error: BaseException = BrokerUnavailableError("closed")
        try:
            while True:
                answered = self._answered
                try:
                    await self._serve(connection)
                except (RedisError, OSError) as exc:
                    error = exc
                finally:
                    await hang_up(connection)
                if self._answered != answered:
                    backoff.reset()
                log.warning("connection to Redis at %s was lost (%s); trying again", self.address.shown, error)
                self._recover(error)
                connection = await self._reconnect(backoff)
                log.info("connection to Redis at %s is back", self.address.shown)
        finally:
            self._fail_all(error)
            self.closed = True

    async def _reconnect(self, backoff: Backoff) -> RedisConnection:
        while True:
            await asyncio.sleep(backoff.next())
            try:
                return await self._open()
            except BrokerUnavailableError as exc:
                self._expire(exc)
                log.debug("%s", exc)

    async def _serve(self, connection: RedisConnection) -> None:
        loop = asyncio.get_running_loop()
        self._stall = loop.create_future()
        tasks = [background(self._write(connection)), background(self._read(connection))]
        try:
            await asyncio.wait([*tasks, self._stall], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            raise TimeoutError(f"no answer for {STALLED:g} s")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._wake = None
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None

    async def _open(self) -> RedisConnection:
        """A new connection with our scripts loaded; the time is learnt on the way. Raises BrokerUnavailableError."""
        connection = await self.address.open()
        commands = [pack(("SCRIPT", "LOAD", script.source)) for script in self._scripts]
        try:
            async with asyncio.timeout(self.address.connect_timeout):
                asked = time.monotonic()
                await connection.send_packed_command([pack(("TIME",)), *commands], check_health=False)
                seconds, microseconds = await connection.read_response()
                self.clock.set(int(seconds), int(microseconds), asked)
                for _ in commands:
                    await connection.read_response()
        except BaseException as exc:
            await hang_up(connection)
            if isinstance(exc, (RedisError, OSError)):
                raise explain(exc, self.address) from exc
            raise
        self.epoch += 1
        return connection

    async def _write(self, connection: RedisConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._fill()
            if not self._queue:
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
                continue
            batch = list(self._queue)
            self._queue.clear()
            self._sent.extend(batch)
            if self._stall_timer is None:
                self._watch(loop, -1)
            if not connection.is_connected:  # redis-py would open a new one behind our back
                raise ConnectionResetError("the connection was closed")
            await connection.send_packed_command([command.data for command in batch], check_health=False)

    def _fill(self) -> None:
        fillers, self._fillers = self._fillers, []
        for filler in fillers:
            filler()

    def _watch(self, loop: asyncio.AbstractEventLoop, answered: int) -> None:
        """Break the connection when nothing under way was answered between two looks."""
        self._stall_timer = None
        if not self._sent:
            return
        if answered == self._answered and self._stall is not None and not self._stall.done():
            self._stall.set_result(None)
            return
        self._stall_timer = loop.call_later(STALLED, self._watch, loop, self._answered)

    async def _read(self, connection: RedisConnection) -> None:
        sent = self._sent
        while True:
            try:
                answer = await connection.read_response(disconnect_on_error=False)
            except (ReadOnlyError, ClusterDownError):
                raise  # not the master any more: look for it again
            except ResponseError as exc:
                self._refused(sent.popleft(), exc)
            else:
                future = sent.popleft().answer
                if not future.done():
                    future.set_result(answer)
            self._answered += 1
            if not sent:
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
        self._fill()
        for command in (*self._sent, *self._queue, *self._later):
            _fail(command, error, self.address)
        self._sent.clear()
        self._queue.clear()
        self._idle.set()


def _passes(exc: ResponseError) -> bool:
    code = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
    return isinstance(exc, TryAgainError) or code in PASSING or "-OOM " in str(exc) or "-MISCONF " in str(exc)


def _lost(error: BaseException, address: RedisAddress) -> BrokerUnavailableError:
    text = f"the connection to Redis at {address.shown} broke before it answered; whether it accepted the call is not known"
    lost = BrokerUnavailableError(text, url=address.shown)
    lost.__cause__ = error
    return lost


def _fail(command: _Command, error: BaseException, address: RedisAddress) -> None:
    future = command.answer
    if future.done():
        return
    mapped = error if isinstance(error, BrokerUnavailableError) else explain(error, address)
    if mapped is not error:
        mapped.__cause__ = error
    future.set_exception(mapped)
    future.exception()  # whoever does not await it has nothing to be told
