"""The server's side of the pipes: one socket to the keeper, one to each worker process. Never blocks the loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from prpc.exceptions import RegistrationError
from prpc.workers import process_keeper
from prpc.workers.process_boot import Boot
from prpc.workers.process_wire import Frame, FrameReader, Kind, Record, RecordReader, pack_frame, pack_record

__all__ = ["Control", "WorkerPipe", "socket_pair"]

#: Most seconds that closing waits for the keeper to kill what is left and to end.
CLOSE_SECONDS = 8.0


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The loop's end and the child's end of a pipe in both directions."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


class _Writer:
    """Writes in order as the socket takes it, with descriptors beside a write where there are some."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._pending: deque[tuple[memoryview, Sequence[int]]] = deque()

    def write(self, data: bytes, companions: Sequence[int] = ()) -> None:
        """The companions are closed once they are written."""
        idle = not self._pending
        self._pending.append((memoryview(data), companions))
        if idle:
            self._flush()
            if self._pending:
                self._loop.add_writer(self._sock.fileno(), self._continue)

    def _continue(self) -> None:
        self._flush()
        if not self._pending:
            self._loop.remove_writer(self._sock.fileno())

    def _flush(self) -> None:
        try:
            while self._pending:
                data, companions = self._pending[0]
                if not companions:
                    count = self._sock.send(data)
                else:
                    count = socket.send_fds(self._sock, [data], list(companions))
                    _close_all(companions)
                self._pending.popleft()
                if count < len(data):
                    self._pending.appendleft((data[count:], ()))
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone; the reader says so
            self.drop()

    def drop(self) -> None:
        """Forget what is not written."""
        for _, companions in self._pending:
            _close_all(companions)
        self._pending.clear()

    def close(self) -> None:
        self.drop()
        self._loop.remove_writer(self._sock.fileno())
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class WorkerPipe:
    """The pipe to one worker. `on_frame` gets what it says, `on_end` is called when it says no more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._writer = _Writer(loop, sock)
        self._reader = FrameReader()
        #: What was read and not told: who is told of a frame may read on.
        self._frames: deque[Frame] = deque()
        self._on_frame, self._on_end = on_frame, on_end
        self._open = True
        loop.add_reader(sock.fileno(), self.read)

    def send(self, pieces: Sequence[bytes]) -> None:
        """Send frames, in the background where they are large."""
        for piece in pieces:
            self._writer.write(piece)

    def drain(self) -> None:
        """Read what a worker that has ended said last."""
        while self.read():
            pass

    def close(self) -> None:
        """Close our end: an idle worker ends by itself. Idempotent."""
        if self._open:
            self._open = False
            self._writer.close()

    def read(self) -> bool:
        """Tell of the next frames; False where there are none now."""
        if not self._open:
            return False
        try:
            frames = [] if self._frames else self._reader.read(self._sock)
        except BlockingIOError:
            return False
        except OSError:
            frames = None
        if frames is None:
            self.close()
            self._on_end()
            return False
        self._frames += frames
        while self._frames and self._open:
            self._on_frame(self._frames.popleft())
        return True


class Control:
    """The keeper process and the socket to it."""

    def __init__(self, boot: Boot, on_started: Callable[[int, int], None], on_exited: Callable[[int, int], None]) -> None:
        """`on_started(token, pid)` (minus the errno where it could not be started), `on_exited(token, exit code)`."""
        self._loop = asyncio.get_running_loop()
        self._on_started, self._on_exited = on_started, on_exited
        self._records = RecordReader()
        self._ready: asyncio.Future[bool] = self._loop.create_future()
        #: Ends when the keeper is gone.
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._sock, theirs = socket_pair()
        self._writer = _Writer(self._loop, self._sock)
        with theirs:
            command = process_keeper.command("prpc.workers.process_keeper", theirs.fileno())
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
                )
            except OSError:
                self._sock.close()
                raise
        self._loop.add_reader(self._sock.fileno(), self._read)
        for piece in pack_frame(Kind.BOOT, pickle.dumps(boot)):
            self._writer.write(piece)

    async def ready(self) -> bool:
        """Wait until workers can be started; whether each is started afresh because a module started threads.

        Raises RegistrationError where the keeper died while it imported the functions' modules.
        """
        await asyncio.wait((self._ready, self.gone), return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            code = self._process.wait()
            raise RegistrationError(f"process workers cannot start: importing the functions' modules ended the process ({code})")
        return self._ready.result()

    def start_worker(self, token: int, theirs: Sequence[int]) -> None:
        """Start a worker that is known by this token, on these ends of its pipes, which are closed here."""
        if self.gone.done():
            _close_all(theirs)
            self._loop.call_soon(self._on_started, token, -errno.EPIPE)
        else:
            self._writer.write(pack_record(Record.START, token), theirs)

    def kill(self, token: int) -> None:
        """End this worker with all its descendants; nothing where it has ended."""
        if not self.gone.done():
            self._writer.write(pack_record(Record.KILL, token))

    async def close(self) -> None:
        """End every worker and the keeper. Idempotent."""
        if not self.gone.done():
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            await asyncio.wait((self.gone,), timeout=CLOSE_SECONDS)
        if not self.gone.done():
            self._process.kill()
            self._end()
        self._process.wait()

    def _read(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        for kind, token, number in self._records.feed(data):
            match kind:
                case Record.READY:
                    self._ready.set_result(bool(number))
                case Record.STARTED:
                    self._on_started(token, number)
                case Record.EXITED:
                    self._on_exited(token, number)

    def _end(self) -> None:
        self._writer.close()
        self.gone.set_result(None)
