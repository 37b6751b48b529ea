"""The metrics system as real processes, conversations with it, and a server that answers the client as a test wants."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prpc.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0

OK = b"ok\n\n"
WRONG = b"error\nwrong command\n\n"
UNAVAILABLE = b"error\nservice unavailable\n\n"


class Program:
    """`python ...` in the project's root, its output read line by line as it comes."""

    def __init__(self, *arguments: str, environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PRPC_", "METRICS_"))}
        self.child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches."""

        def found() -> re.Match[str] | bool | None:
            return re.search(pattern, self.output, re.MULTILINE) or self._ended

        with self._news:
            match = self._news.wait_for(found, PATIENCE)
        assert isinstance(match, re.Match), f"{pattern!r} was not printed:\n{self.output}"
        return match

    def send_signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        self.child.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.child.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.wait()


@dataclass
class Metrics:
    """The processes of one system on one queue."""

    environ: dict[str, str]
    programs: list[Program] = field(default_factory=list)
    port: int = 0

    @classmethod
    def on(cls, settings: Settings, **more: str) -> Metrics:
        """`more`: further environment variables."""
        place = {"TYPE_BROKER": settings.type_broker, "URL_BROKER": settings.url_broker, "QUEUE_NAME": settings.queue_name}
        return cls({**{f"PRPC_{name}": value for name, value in place.items()}, **more})

    def start(self, *arguments: str) -> Program:
        self.programs.append(Program(*arguments, environ=self.environ))
        return self.programs[-1]

    def start_worker(self) -> Program:
        worker = self.start("-m", "examples.metrics.worker")
        worker.until(r" serving ")
        return worker

    def start_gateway(self) -> Program:
        gateway = self.start("-m", "examples.metrics.server", "--port", "0")
        self.port = int(gateway.until(r"^metrics server listens on 127\.0\.0\.1:(\d+)$")[1])
        return gateway

    @contextmanager
    def talk(self) -> Iterator[Talk]:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            yield Talk(connection)

    def ask(self, *commands: bytes) -> list[bytes]:
        """Send commands joined, over a connection of their own."""
        with self.talk() as talk:
            return talk.ask(*commands)

    def close(self) -> None:
        for program in self.programs:
            program.close()


class Talk:
    """One conversation with a server of the protocol."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._came = b""

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reply(self) -> bytes:
        while b"\n\n" not in self._came:
            data = self.connection.recv(65536)
            assert data, f"the server closed the connection after {self._came!r}"
            self._came += data
        reply, end, self._came = self._came.partition(b"\n\n")
        return reply + end

    def ask(self, *commands: bytes) -> list[bytes]:
        self.send(b"".join(command + b"\n" for command in commands))
        return [self.reply() for _ in commands]

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while data := self.connection.recv(65536):
            self._came += data
        rest, self._came = self._came, b""
        return rest


class ScriptedPeer:
    """A server that does as told with each connection, the next one after the last: `Callable[[connection, command], None]`."""

    def __init__(self, *acts: Callable[[socket.socket, bytes], object]) -> None:
        self.commands: list[bytes] = []
        #: Lets an act wait until the client is through.
        self.over = threading.Event()
        self._acts = acts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        for act in self._acts:
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                command = b""
                while not command.endswith(b"\n") and (data := connection.recv(65536)):
                    command += data
                self.commands.append(command)
                try:
                    act(connection, command)
                except OSError:  # the client had enough
                    pass

    def __enter__(self) -> ScriptedPeer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(PATIENCE)
        self._listener.close()


def says(*pieces: bytes) -> Callable[[socket.socket, bytes], None]:
    """An act: send the pieces, one after the other, and close."""

    def act(connection: socket.socket, command: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return act


class FakeConnection:
    """What the client may use of a connection, and nothing else."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.sent: list[bytes] = []
        self.left = 0
        self._pieces = iter(pieces)

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, count: int) -> bytes:
        """The next piece. Raises AssertionError where the client reads on after the last."""
        piece = next(self._pieces, None)
        assert piece is not None, "read past the end of the reply"
        assert len(piece) <= count
        return piece

    def __enter__(self) -> FakeConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1
