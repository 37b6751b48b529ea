"""`--reload`: a supervising process that starts a command again whenever a Python file changes."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prpc.exceptions import ConfigurationError
from prpc.server import logs

__all__ = ["supervise"]

#: Seconds that the old process gets to finish before it is killed: in development nobody wants to wait.
STOP_SECONDS = 5.0


def supervise(command: Sequence[str], directory: str) -> int:
    """Run the command, again after each change of a Python file below `directory`, until SIGINT or SIGTERM.

    Returns 0. A command that ends by itself (an error in the file just saved) is started again after the next change.
    Raises ConfigurationError where watchfiles is not installed.
    """
    try:
        import watchfiles
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'prpc[reload]'") from None
    logs.configure("text", "info")
    ended = threading.Event()
    with _set_by_signals(ended):
        child = _start(command)
        try:
            changes = watchfiles.watch(
                directory, watch_filter=watchfiles.PythonFilter(), stop_event=ended, raise_interrupt=False, rust_timeout=500
            )
            for _ in changes:
                logs.logger.info("a file changed, starting again")
                _stop(child)
                child = _start(command)
        finally:
            _stop(child)
    return 0


@contextmanager
def _set_by_signals(ended: threading.Event) -> Iterator[None]:
    def end(_number: int, _frame: object) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # In a session of its own, so that Ctrl-C reaches it once, by way of this process.
    return subprocess.Popen(command, start_new_session=True)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
