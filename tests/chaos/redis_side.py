"""The Redis of a chaos run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import redis.asyncio
from redis.exceptions import RedisError

from prpc.codec import Codec
from prpc.dev_broker import DevBroker, find_server, start_dev_broker
from prpc.names import QueueNames
from tests.chaos.clocks import redis_with_a_clock
from tests.chaos.options import GROUP, QUEUE, Options

__all__ = ["RedisSide"]

NAMES = QueueNames(QUEUE)


class RedisSide:
    """See Side. `admin` is for faults."""

    type_broker = "redis"
    errors: tuple[type[Exception], ...] = (RedisError, OSError)
    settings: Mapping[str, Any] = {}

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder, self._options = folder, options
        self._data = folder / "redis"
        self._stack = contextlib.AsyncExitStack()
        #: Whether it was ended on purpose, or it is known that it ended by itself.
        self._ended = False

    def start(self, port: int = 0) -> None:
        """See Side; a further time on the port that it had."""
        self._data.mkdir(exist_ok=True)
        server = redis_with_a_clock(self._folder) if self._options.redis_clock else find_server()
        options = ("--dir", str(self._data), "--logfile", str(self._folder / "redis.log"), *self._options.redis)
        self.broker: DevBroker = start_dev_broker(port, server=server, options=options)

    async def open(self) -> None:
        """See Side."""
        self.admin = redis.asyncio.Redis.from_url(self.broker.url)
        self._stack.push_async_callback(self.admin.aclose)
        # Apart, as looking on has a timeout that may cost a connection.
        self._eyes = redis.asyncio.Redis.from_url(self.broker.url)
        self._stack.push_async_callback(self._eyes.aclose)

    async def aclose(self) -> None:
        """See Side."""
        await self._stack.aclose()

    def close(self) -> None:
        """See Side."""
        self.broker.process.send_signal(signal.SIGCONT)
        self.broker.close()

    @property
    def port(self) -> int:
        return self.broker.port

    def url(self, port: int) -> str:
        """See Side."""
        return f"redis://127.0.0.1:{port}/0"

    async def restart(self, *, away: float) -> None:
        """Kill Redis and start it again `away` seconds later."""
        port, self._ended = self.broker.port, True
        self.broker.process.kill()
        await asyncio.to_thread(self.broker.process.wait)
        self.broker.close()
        await asyncio.sleep(away)
        self.start(port)
        self._ended = False
        await self.admin.connection_pool.disconnect(inuse_connections=False)  # redis-py would hand out those of the one before

    def broken(self) -> str:
        """See Side."""
        if self._ended or self.broker.process.poll() is None:
            return ""
        self._ended = True
        return f"Redis ended by itself with {self.broker.process.returncode}, see redis.log"

    async def announced(self, instance: str) -> bool:
        """See Side."""
        return bool(await self.admin.exists(NAMES.server(instance)))

    async def outcomes(self) -> Sequence[tuple[str, str]]:
        """See Side."""
        prefix = NAMES.feedback(UUID(int=0)).removesuffix(str(UUID(int=0)))
        keys = [key async for key in self._eyes.scan_iter(match=prefix + "*", count=1000)]
        bodies: Sequence[bytes | None] = await self._eyes.mget(keys) if keys else ()
        return [
            (key.decode().removeprefix(prefix), hashlib.sha256(body).hexdigest())
            for key, body in zip(keys, bodies, strict=True)
            if body is not None
        ]

    async def left(self) -> str:
        """See Side."""
        length, pending = await self.admin.xlen(NAMES.calls), (await self.admin.xpending(NAMES.calls, GROUP))["pending"]
        return f"{length} entries are left in the queue, {pending} of them pending" if length or pending else ""

    async def dead_letters(self) -> Sequence[tuple[str, str]]:
        """See Side."""
        letters = [fields for _, fields in await self.admin.xrange(NAMES.dead)]
        return [(str(Codec().read_call(letter[b"message"]).message_id), letter[b"reason"].decode()) for letter in letters]
