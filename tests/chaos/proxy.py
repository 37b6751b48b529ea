"""A TCP proxy in front of one port that can cut, delay and freeze what goes through it, each direction counted in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Proxy"]

#: Draws how many bytes a new connection lets through in one direction before it is cut; None: any number.
Budget = Callable[[], int | None]

PIECE = 64 * 1024


class _Pipe:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._proxy, self._near, self._far = proxy, near, far

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        """One direction, until either side ends or the budget is used up."""
        try:
            while data := await reader.read(PIECE):
                await self._proxy.flowing.wait()
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if budget is not None:
                    data, budget = data[:budget], budget - len(data[:budget])
                up = writer is self._far
                if self._proxy.watch is not None:
                    self._proxy.watch(up, len(data))
                data, burnt = self._proxy.burn(data, up=up)
                writer.write(data)
                await writer.drain()
                if budget == 0 or burnt:
                    self._proxy.cuts += 1
                    return
        except OSError:
            return
        finally:
            self.cut()

    def cut(self) -> None:
        """Both sides see the connection end, after what was let through."""
        self._near.close()
        self._far.close()


class Proxy:
    """Listens on a free port of 127.0.0.1 and carries to `port`. Use it with `async with`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        #: Set while bytes flow; cleared, both directions stand still and nobody is told.
        self.flowing = asyncio.Event()
        self.flowing.set()
        #: Seconds that each piece is late.
        self.delay = 0.0
        #: For each new connection: bytes from the program to the broker, and back.
        self.budgets: tuple[Budget, Budget] = (lambda: None, lambda: None)
        #: Told each piece that goes through: whether it goes up (to the broker), and its bytes.
        self.watch: Callable[[bool, int], object] | None = None
        #: Connections that were cut at a byte.
        self.cuts = 0
        self._fuse: tuple[bool, int, asyncio.Event] | None = None
        self._pipes: set[_Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.flowing.set()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Cut every connection now."""
        for pipe in list(self._pipes):
            pipe.cut()

    def light_fuse(self, count: int, *, up: bool) -> asyncio.Event:
        """Cut the connection through which the `count`-th byte from now on goes up (to the broker) or down, right behind it.

        The event is set when that has happened.
        """
        self._fuse = (up, max(1, count), asyncio.Event())
        return self._fuse[2]

    def put_out_fuse(self) -> None:
        """Cut nothing any more, where the last fuse still burns."""
        self._fuse = None

    def burn(self, data: bytes, *, up: bool) -> tuple[bytes, bool]:
        """What of `data` still goes through, and whether the connection ends there."""
        if self._fuse is None or self._fuse[0] != up:
            return data, False
        _, left, burnt = self._fuse
        if len(data) < left:
            self._fuse = (up, left - len(data), burnt)
            return data, False
        self._fuse = None
        burnt.set()
        return data[:left], True

    def freeze(self) -> None:
        """Let nothing through in either direction, with every connection open."""
        self.flowing.clear()

    def thaw(self) -> None:
        """Carry on, with what came meanwhile first."""
        self.flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        pipe = _Pipe(self, writer, forth)
        self._pipes.add(pipe)
        up, down = (budget() for budget in self.budgets)
        try:
            await asyncio.gather(pipe.carry(reader, forth, up), pipe.carry(back, writer, down))
        finally:
            self._pipes.discard(pipe)
            pipe.cut()
