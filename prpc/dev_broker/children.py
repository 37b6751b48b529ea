"""Programs that we start and that must not outlive us, and the ports that they listen on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from prpc.exceptions import ConfigurationError

__all__ = ["DevBroker", "check_free", "free_port", "last_words", "spawn", "stop"]

#: Seconds that a program has to end before it is killed.
STOP_PATIENCE = 5.0

PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_free(port: int) -> None:
    """Raises ConfigurationError where somebody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigurationError(
                f"port {port} of 127.0.0.1 is taken: another program listens there; "
                "stop it, or choose another with --port (0 finds a free one)",
                variable="--port",
                value=str(port),
            ) from None


def spawn(command: Sequence[str], log: Path, *, lasting_thread: bool = False) -> subprocess.Popen[bytes]:
    """Start a program with its output appended to `log`; it dies with this process where the system can arrange that (Linux).

    Linux ties it to the thread that starts it, so only the main thread asks for that, or one of which the caller says that it
    lasts as long as the process (`lasting_thread`).
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent(lasting_thread),
            # Ctrl+C in the terminal is for us; we end the program ourselves.
            process_group=0,
        )


def _die_with_parent(lasting_thread: bool) -> Callable[[], None] | None:
    """What the child runs before it becomes the program; None where the system has no such thing."""
    if sys.platform != "linux" or not (lasting_thread or threading.current_thread() is threading.main_thread()):
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


def stop(process: subprocess.Popen[bytes], patience: float | None = None) -> None:
    """Ask a program to end, and kill it after `patience` seconds (default: STOP_PATIENCE). Idempotent."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE if patience is None else patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_words(log: Path, lines: int) -> list[str]:
    """The end of what a program wrote."""
    return log.read_text(errors="replace").strip().splitlines()[-lines:] if log.exists() else []


class DevBroker:
    """A running server, and the way to end it. Use it with `with`, or call `close`."""

    def __init__(
        self,
        kind: str,
        url: str,
        port: int,
        process: subprocess.Popen[bytes],
        directory: tempfile.TemporaryDirectory[str],
        *,
        type_broker: str = "redis",
    ) -> None:
        #: For people: which program it is.
        self.kind = kind
        #: What PRPC_TYPE_BROKER and PRPC_URL_BROKER say for it.
        self.type_broker = type_broker
        self.url = url
        #: Where it listens on 127.0.0.1.
        self.port = port
        #: The server itself; tests stop and continue it.
        self.process = process
        self._directory = directory

    def close(self) -> None:
        """End the server and remove its folder. Idempotent."""
        stop(self.process)
        self._directory.cleanup()

    def __enter__(self) -> DevBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
