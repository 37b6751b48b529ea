"""A TCP proxy that can turn half-dead: it keeps its connections and takes what comes, and nothing gets through."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self


class SwallowingProxy:
    """Listens on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Connections that get through; one that leaves this set is swallowed.
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def swallow(self) -> int:
        """From now on nothing passes on the connections of today; new ones work. Returns how many these are."""

        async def forget() -> int:
            count = len(self._open)
            self._open.clear()
            return count

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(forget(), self._loop).result(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                there = asyncio.create_task(self._copy(writer, reader, far_writer))
                back = asyncio.create_task(self._copy(writer, far_reader, writer))
                self._tasks |= {there, back}
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            for end in (writer, far_writer):
                end.close()

    async def _copy(self, key: asyncio.StreamWriter, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if key in self._open:
                    sink.write(data)
                    await sink.drain()
