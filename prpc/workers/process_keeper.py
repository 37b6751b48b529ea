"""The keeper: one small process between the server and its worker processes.

It starts workers (forked from itself, where it has imported the functions' modules before and has one thread only), tells
how each of them ended, kills one with all its descendants when told, and ends everything when the server is gone, however
the server ended. The server never forks: it may have any number of threads.
"""

from __future__ import annotations

import errno
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable

from prpc.workers import process_child
from prpc.workers.process_boot import Boot, interpreter_flags
from prpc.workers.process_tree import adopt_orphans, children_of, kill_tree
from prpc.workers.process_wire import Channel, Record, RecordReader, pack_record

__all__ = ["command", "main"]

#: Most seconds that the keeper waits at the end for what it killed.
LAST_SECONDS = 5.0


def command(module: str, *arguments: int) -> list[str]:
    """Command line that runs `main` of a module of ours in a fresh interpreter with this process's import path."""
    split = len(arguments) + 1
    code = f"import sys; sys.path[:] = sys.argv[{split}:]; del sys.argv[{split}:]; from {module} import main; main()"
    path = [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]
    return [sys.executable, *interpreter_flags(), "-c", code, *map(str, arguments), *path]


def main() -> None:
    """Entry point of the keeper; argument: descriptor of its socket to the server."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a stop is the server's to decide; it closes the socket
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    frame = Channel(control).receive()
    if frame is None:
        return
    boot: Boot = pickle.loads(frame[1])
    adopt_orphans()
    if boot.fork:
        sys.argv = list(boot.argv)
        boot.preload()
    keeper = _Keeper(control, fork=boot.fork and not _has_threads(), wanted_fork=boot.fork)
    descriptors = keeper.serve()
    if descriptors is None:
        os._exit(0)  # the exit handlers of the modules are the workers' and the server's
    process_child.run_worker(*descriptors)


def _has_threads() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        return threading.active_count() > 1


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Keeper:
    def __init__(self, control: socket.socket, *, fork: bool, wanted_fork: bool) -> None:
        self._control = control
        self._fork = fork
        self._records = RecordReader()
        #: The ends of the pipes of workers to be started, a pair each.
        self._descriptors: deque[int] = deque()
        #: Process id and token of each worker, and its Popen where it was started afresh.
        self._tokens: dict[int, int] = {}
        self._fresh: dict[int, subprocess.Popen[bytes]] = {}
        self._wake, wake_end = socket.socketpair()
        self._wake.setblocking(False)
        wake_end.setblocking(False)
        self._wake_end = wake_end
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        self._tell(Record.READY, number=int(wanted_fork and not fork))
        if fork:
            gc.collect()
            gc.freeze()  # collections in the children leave the shared pages alone

    def serve(self) -> tuple[int, int] | None:
        """Take orders until the server is gone. Returns a second time in each forked worker: the descriptors of its pipes."""
        poll = select.poll()
        for sock in (self._control, self._wake):
            poll.register(sock, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake.fileno() in ready:
                self._reap()
            if self._control.fileno() in ready:
                data, descriptors = self._receive()
                if not data:
                    self._end_all()
                    return None
                self._descriptors += descriptors
                for kind, token, _ in self._records.feed(data):
                    if kind == Record.KILL:
                        self._kill(token)
                    elif (own := self._start(token)) is not None:
                        return own

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        except ConnectionError:
            return b"", []
        return data, descriptors

    def _tell(self, kind: Record, token: int = 0, number: int = 0) -> None:
        try:
            self._control.sendall(pack_record(kind, token, number))
        except OSError:
            pass  # the server is gone: the next read of the socket says so

    def _start(self, token: int) -> tuple[int, int] | None:
        """Start a worker on the next pipes; their descriptors where this is the forked worker itself."""
        own = self._descriptors.popleft(), self._descriptors.popleft()
        keeper = os.getpid()
        try:
            pid = os.fork() if self._fork else self._start_fresh(own, keeper)
        except OSError as exc:
            _close(own)
            self._tell(Record.STARTED, token, -(exc.errno or errno.EAGAIN))
            return None
        if pid == 0:
            self._leave()
            process_child.enter_session(keeper)
            return own
        _close(own)
        self._tokens[pid] = token
        self._tell(Record.STARTED, token, pid)
        return None

    def _start_fresh(self, own: tuple[int, int], keeper: int) -> int:
        arguments = command("prpc.workers.process_child", *own, keeper)
        process = subprocess.Popen(arguments, pass_fds=own)
        self._fresh[process.pid] = process
        return process.pid

    def _leave(self) -> None:
        """In a forked worker: let go of what is the keeper's."""
        signal.set_wakeup_fd(-1)
        for sock in (self._control, self._wake, self._wake_end):
            sock.close()
        _close(self._descriptors)

    def _kill(self, token: int) -> None:
        for pid, owner in self._tokens.items():
            if owner == token:
                kill_tree(pid)

    def _reap(self) -> None:
        while True:
            try:
                if not self._wake.recv(4096):
                    break
            except BlockingIOError:
                break
        while self._reap_one():
            pass
        for pid in children_of(os.getpid()):  # what a dead worker left behind was adopted
            if pid not in self._tokens:
                kill_tree(pid)

    def _reap_one(self) -> bool:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return False
        code = os.waitstatus_to_exitcode(status)
        process = self._fresh.pop(pid, None)
        if process is not None:
            process.returncode = code
        token = self._tokens.pop(pid, None)
        if token is not None:
            self._tell(Record.EXITED, token, code)
        return True

    def _end_all(self) -> None:
        """Kill every worker and whatever was adopted, and wait for them."""
        deadline = time.monotonic() + LAST_SECONDS
        while time.monotonic() < deadline:
            for pid in {*self._tokens, *children_of(os.getpid())}:
                kill_tree(pid)
            while self._reap_one():
                pass
            if not self._tokens and not children_of(os.getpid()):
                return
            select.select([self._wake], [], [], 0.05)
