"""The gateway: TCP connections outside, one PRPC call for each command inside. `python -m examples.metrics.server`

It keeps nothing itself: any number of gateways may stand before one worker.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from examples.metrics.protocol import OK, UNAVAILABLE, WRONG_COMMAND, Lines, Put, found, parse_command
from prpc import AsyncClient, BrokerUnavailableError, ClientTimeOutError, PRPCError

__all__ = ["main", "run_server"]

logger = logging.getLogger("examples.metrics")

#: Seconds until a call's deadline: a worker that comes to it later does not start it any more.
CALL_WITHIN = 1.3
#: Seconds between the deadline and the error that says so. The worker counts from the moment at which the broker took the call,
#: a little after us: what is answered with an error is not to be done in that little while.
ERROR_AFTER = 0.2
#: Commands of one connection that may wait before nothing more is read from it.
MOST_WAITING = 1000
#: Seconds that a stopping gateway gives to the commands that have arrived.
STOP_WITHIN = 3.0
BACKLOG = 512


class Gateway:
    """Turns commands into calls, and holds the connections that are open."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.connections: dict[Connection, asyncio.Task[None]] = {}

    async def answer(self, line: bytes, seconds: float) -> bytes:
        """The answer to one command. `seconds`: how long its call may take; at 0 or below none is made."""
        command = parse_command(line)
        if command is None:
            return WRONG_COMMAND
        if seconds <= 0:
            return UNAVAILABLE
        calls = self._client.options(timeout=seconds)
        try:
            if isinstance(command, Put):
                await calls.call("put", command.key, command.value, command.timestamp)
                return OK
            return found(await calls.call("get", command.key))
        except PRPCError as exc:
            logger.warning("no answer to %r: %s", line[:100], exc)
            if isinstance(exc, ClientTimeOutError):
                await asyncio.sleep(ERROR_AFTER)
            return UNAVAILABLE

    async def stop(self) -> None:
        """Answer what has arrived, then close every connection."""
        tasks = list(self.connections.values())
        for connection in self.connections:
            connection.finish()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class Connection(asyncio.Protocol):
    """One connection. A command is begun when the one before it is answered, so that answers and effects are in order."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._lines = Lines()
        #: Commands, and when they came (loop time).
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        #: No more commands come.
        self._ended = False
        #: Whether the last call had an answer.
        self._served = True
        self._transport: asyncio.Transport

    # what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._gateway.connections[self] = self._loop.create_task(self._converse())

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        now = self._loop.time()
        self._waiting.extend((now, line) for line in self._lines.feed(data))
        if len(self._waiting) > MOST_WAITING:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self.finish()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # the conversation

    def finish(self) -> None:
        """Take no more commands; those that have arrived are still done."""
        self._ended = True
        self._news.set()

    async def _converse(self) -> None:
        try:
            await self._answer_all()
        except BaseException:
            self._transport.abort()
            raise
        else:
            self._transport.close()
        finally:
            del self._gateway.connections[self]

    async def _answer_all(self) -> None:
        while self._waiting or not self._ended:
            self._news.clear()
            while self._waiting:
                await self._answer_next()
            if not self._ended:
                await self._news.wait()

    async def _answer_next(self) -> None:
        arrived, line = self._waiting.popleft()
        if len(self._waiting) == MOST_WAITING // 2:
            self._transport.resume_reading()
        left = CALL_WITHIN
        if not self._served:  # this one has waited behind the one that had no answer, and gets no time of its own
            left -= self._loop.time() - arrived
        answer = await self._gateway.answer(line, left)
        if answer is not WRONG_COMMAND:
            self._served = answer is not UNAVAILABLE
        if not self._transport.is_closing():
            self._transport.write(answer)
            await self._writable.wait()
        await asyncio.sleep(0)  # a flood of wrong commands is answered without waiting for anything else


async def _serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with AsyncClient() as client:
        # The first connection to a broker may take longer than a command; without a broker every answer is an error.
        with suppress(BrokerUnavailableError):
            await client.servers()
        gateway = Gateway(client)
        server = await loop.create_server(lambda: Connection(gateway), host, port, backlog=BACKLOG)
        for listening in server.sockets:
            print("metrics server listens on {}:{}".format(*listening.getsockname()[:2]), flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await gateway.stop()


def run_server(host: str, port: int) -> None:
    """Serve the text protocol until SIGTERM or Ctrl-C; blocks.

    `host`: name or address to listen at; `port`: TCP port, 0 for a free one. The address is printed once it takes connections.
    Broker and queue come from the environment. Raises OSError where the address cannot be had. In another thread than the main
    one nobody hears signals.
    """
    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(_serve(host, port))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `python -m examples.metrics.server`."""
    parser = argparse.ArgumentParser(prog="python -m examples.metrics.server", description="A metrics server over TCP.")
    parser.add_argument("--host", default=os.environ.get("METRICS_HOST", "127.0.0.1"), help="default: METRICS_HOST or 127.0.0.1")
    parser.add_argument("--port", default=os.environ.get("METRICS_PORT", "8888"), type=int, help="default: METRICS_PORT or 8888")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    run_server(given.host, given.port)


if __name__ == "__main__":
    main()
