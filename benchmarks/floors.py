"""Floors: what the exchange of a call costs where nothing is done but that exchange.

`e1` goes over Redis with redis-py, and whatever is queued in one tick of the loop goes out as one write; there are no
guarantees, no deadlines, no leases, and calls are numbers and MessagePack. `grpc` is gRPC for asyncio, in which client and
server speak to each other without a broker, with protobuf's own messages.

`e2` and `e3`, on uvloop: floor_bare.py.

    python -m benchmarks.floors e1 redis://127.0.0.1:6379/0       the server, until it is ended
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import msgspec
import redis.asyncio as redis
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import Int64Value

from benchmarks import floor_bare
from benchmarks.rig import Add, run_in

__all__ = ["FLOORS"]

_STREAM, _GROUP = "floor", "g"
_BATCH = 500
_ADDRESS = "127.0.0.1:50951"
_METHOD = "/floor.Adder/Add"


class _Call(msgspec.Struct, array_like=True):
    number: int
    args: tuple[int, int]
    to: str


_write = msgspec.msgpack.Encoder().encode
_read_call = msgspec.msgpack.Decoder(_Call).decode
_read_results = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


def _redis(url: str, **more: Any) -> redis.Redis:
    # Without a limit of its own: redis-py's default ends reads that block.
    return redis.Redis.from_url(url, socket_timeout=None, **more)


class _E1Server:
    """Runs each call in a task, as a server of coroutines must."""

    def __init__(self, url: str) -> None:
        self._reading, self._writing = _redis(url), _redis(url, single_connection_client=True)
        self._results: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._done: list[bytes] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        await self._reading.xgroup_create(_STREAM, _GROUP, id="$", mkstream=True)
        writing = asyncio.create_task(self._write_results())
        try:
            while True:
                found: Any = await self._reading.xreadgroup(_GROUP, "c", {_STREAM: ">"}, count=_BATCH, block=2000)
                for _, entries in found or ():
                    for entry, fields in entries:
                        task = asyncio.create_task(self._run(_read_call(fields[b"d"]), entry))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
        finally:
            writing.cancel()

    async def _run(self, call: _Call, entry: bytes) -> None:
        self._results[call.to].append((call.number, call.args[0] + call.args[1]))
        self._done.append(entry)
        self._wake.set()

    async def _write_results(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            pipeline = self._writing.pipeline(transaction=False)
            for to, results in self._results.items():
                for result in results:
                    pipeline.set(f"floor:{to}:{result[0]}", _write(result), ex=600)
                pipeline.publish(to, _write(results))
            pipeline.xack(_STREAM, _GROUP, *self._done)
            pipeline.xdel(_STREAM, *self._done)
            self._results.clear()
            self._done = []
            await pipeline.execute()


class _E1Client:
    def __init__(self, url: str) -> None:
        self._writing, self._channel = _redis(url), f"floor:{uuid.uuid4().hex}"
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._number = 0
        self._calls: list[bytes] = []
        self._wake = asyncio.Event()

    async def open(self) -> list[asyncio.Task[None]]:
        """What runs until it is cancelled."""
        mail = self._writing.pubsub(ignore_subscribe_messages=True)
        await mail.subscribe(self._channel)
        return [asyncio.create_task(self._read(mail)), asyncio.create_task(self._write_calls())]

    async def add(self, a: int, b: int) -> int:
        self._number += 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        self._calls.append(_write(_Call(self._number, (a, b), self._channel)))
        self._wake.set()
        return await future

    async def _read(self, mail: Any) -> None:
        async for message in mail.listen():
            for number, result in _read_results(message["data"]):
                self._waiting.pop(number).set_result(result)

    async def _write_calls(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            calls, self._calls = self._calls, []
            pipeline = self._writing.pipeline(transaction=False)
            for call in calls:
                pipeline.xadd(_STREAM, {"d": call})
            await pipeline.execute()


async def _serve_e1(url: str) -> None:
    await _E1Server(url).serve()


@asynccontextmanager
async def _e1(url: str) -> AsyncIterator[Add]:
    client = _E1Client(url)
    tasks = await client.open()
    try:
        yield client.add
    finally:
        for task in tasks:
            task.cancel()


async def _serve_grpc(url: str) -> None:
    async def add(request: Duration, context: Any) -> Int64Value:
        return Int64Value(value=request.seconds + request.nanos)

    handler = grpc.unary_unary_rpc_method_handler(add, Duration.FromString, Int64Value.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor.Adder", {"Add": handler}),))
    server.add_insecure_port(_ADDRESS)
    await server.start()
    await server.wait_for_termination()


@asynccontextmanager
async def _grpc(url: str) -> AsyncIterator[Add]:
    async with grpc.aio.insecure_channel(_ADDRESS) as channel:
        stub = channel.unary_unary(_METHOD, Duration.SerializeToString, Int64Value.FromString)

        async def add(a: int, b: int) -> int:
            answer: Int64Value = await stub(Duration(seconds=a, nanos=b), wait_for_ready=True)
            return answer.value

        yield add


#: Name -> its server, and its client for one URL.
FLOORS: dict[str, tuple[Callable[[str], Awaitable[None]], Callable[[str], Any]]] = {
    "e1": (_serve_e1, _e1),
    "e2": (floor_bare.serve, floor_bare.client),
    "e3": (floor_bare.serve, floor_bare.client),
    "grpc": (_serve_grpc, _grpc),
}


async def _serve(name: str, url: str) -> None:
    await FLOORS[name][0](url)


if __name__ == "__main__":
    run_in("uvloop" if sys.argv[1] == "e3" else "asyncio", _serve(*sys.argv[1:]))
