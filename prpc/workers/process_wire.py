"""What goes over the pipes between a server, its keeper and its worker processes. No asyncio: the children read it too."""

from __future__ import annotations

import enum
import os
import socket
import struct
import threading
from collections import deque

__all__ = ["Channel", "Frame", "FrameReader", "Kind", "Record", "RecordReader", "Turns", "pack_frame", "pack_record", "take_turn"]

#: Head of a frame: bytes that follow, kind.
HEAD = struct.Struct("<QB")
#: Most bytes of one read: memory for more is fetched from the system for each, which costs more than all the rest. What is
#: longer is read into place.
CHUNK = 64 * 1024
#: A body below this many bytes is copied behind its head.
SMALL = 64 * 1024
#: A record between server and keeper: kind, token of the worker, number.
RECORD = struct.Struct("<Bqq")

Frame = tuple[int, bytes | bytearray]


class Kind(enum.IntEnum):
    """Kinds of frames. Bodies are pickles."""

    BOOT = 1  # to a child: Boot
    CALL = 2  # to a worker, which must get a turn for it: function's number or reference, args, kwargs, call facts, when it was
    # given to the workers (seconds of `time.monotonic()`), seconds from there until its deadline or None
    READY = 3  # the functions are imported
    BROKEN = 4  # they could not be imported: traceback
    VALUE = 5  # value, seconds it ran, resident bytes
    FAILURE = 6  # Failure, seconds it ran, resident bytes
    REFUSED = 7  # the arguments could not be read: text
    LOG = 8  # attributes of a log record
    PROGRESS = 9  # message id of the call, done, total, message
    EXPIRED = 10  # the deadline had passed before it could begin: seconds that it waited
    SKIPPED = 11  # there was no turn for it


class Record(enum.IntEnum):
    """Kinds of records between server and keeper."""

    START = 1  # to the keeper, with the worker's end of its pipe: start a worker
    KILL = 2  # to the keeper: end this worker and its descendants
    READY = 3  # the keeper takes orders; number: 1 where it starts each worker afresh because of threads
    STARTED = 4  # number: process id, or minus the errno
    EXITED = 5  # number: exit code, negative for a signal


def pack_frame(kind: Kind, body: bytes) -> tuple[bytes, ...]:
    """A frame as it is written: one piece where that is cheap, so that the reader wakes once."""
    head = HEAD.pack(len(body), kind)
    return (head + body,) if len(body) < SMALL else (head, body)


class FrameReader:
    """Collects the frames of a stream socket, without copying a large one twice."""

    __slots__ = ("_body", "_filled", "_kind", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._kind = 0
        self._body: bytearray | None = None
        self._filled = 0

    def read(self, sock: socket.socket) -> list[Frame] | None:
        """Read once; the frames that this completed. None at the end of the stream."""
        if self._body is not None:
            return self._read_body(sock, self._body)
        data = sock.recv(CHUNK)
        if not data:
            return None
        data = self._rest + data
        frames: list[Frame] = []
        at = 0
        while len(data) - at >= HEAD.size:
            length, kind = HEAD.unpack_from(data, at)
            at += HEAD.size
            if len(data) - at < length:
                self._kind, self._body, self._filled = kind, bytearray(length), len(data) - at
                self._body[: self._filled] = data[at:]
                at = len(data)
                break
            frames.append((kind, data[at : at + length]))
            at += length
        self._rest = data[at:]
        return frames

    def _read_body(self, sock: socket.socket, body: bytearray) -> list[Frame] | None:
        with memoryview(body) as view, view[self._filled :] as space:
            count = sock.recv_into(space)
        if not count:
            return None
        self._filled += count
        if self._filled < len(body):
            return []
        self._body = None
        return [(self._kind, body)]


class Channel:
    """A child's end of its pipe: blocking. Sending is thread-safe, and safe against a log record made while sending."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._outgoing: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._sender: int | None = None
        self._closed = False

    def receive(self) -> Frame | None:
        """The next frame; None at the end of the stream."""
        while not self._frames:
            try:
                frames = None if self._closed else self._reader.read(self._sock)
            except OSError:
                frames = None
            if frames is None:
                return None
            self._frames.extend(frames)
        return self._frames.popleft()

    def send(self, kind: Kind, body: bytes) -> None:
        """Send one frame. Nothing where the other end is gone: the next `receive` says so."""
        self._outgoing += pack_frame(kind, body)
        me = threading.get_ident()
        if self._sender == me:  # a log record of a finalizer that ran inside the loop below, which sends it as well
            return
        with self._lock:
            self._sender = me
            try:
                while self._outgoing and not self._closed:
                    self._sock.sendall(self._outgoing.popleft())
            except OSError:
                self.close()
            finally:
                self._sender = None

    def close(self) -> None:
        """Close this process's end; also in a process that user code forked, which must not write here."""
        self._closed = True
        self._frames.clear()
        self._sock.close()


class Turns:
    """The server's ends of a pipe with one byte for every job that was sent to a worker and has not begun.

    Whoever reads the byte has the job: the worker, which then runs it, or the server, which has it back. So a server knows at any
    moment what may have begun, also of a worker that hangs or is dead.
    """

    def __init__(self) -> None:
        #: The end that the worker gets, too.
        self.reading, self._writing = os.pipe()
        for descriptor in (self.reading, self._writing):
            os.set_blocking(descriptor, False)

    def offer(self, count: int) -> None:
        """So many more jobs may begin. Before they are sent."""
        os.write(self._writing, bytes(count))

    def take_back(self, most: int) -> int:
        """Take the turns of the jobs that were sent last, `most` at most: how many those are, none of which will begin."""
        try:
            return len(os.read(self.reading, most))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the server's ends. Once."""
        os.close(self.reading)
        os.close(self._writing)


def take_turn(descriptor: int) -> bool:
    """In a worker: whether the job that it has read may begin. Raises OSError where user code closed the descriptor."""
    try:
        return bool(os.read(descriptor, 1))
    except BlockingIOError:
        return False


def pack_record(kind: Record, token: int, number: int = 0) -> bytes:
    """One record."""
    return RECORD.pack(kind, token, number)


class RecordReader:
    """Cuts a stream into records."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, int, int]]:
        """The records that these bytes completed: kind, token, number."""
        data = self._rest + data
        whole = len(data) - len(data) % RECORD.size
        self._rest = data[whole:]
        return list(RECORD.iter_unpack(data[:whole]))
