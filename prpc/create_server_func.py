"""`python -m prpc.create_server_func`: asks the running server and writes `server_func.py` into the current folder."""

from __future__ import annotations

import argparse
import datetime
import difflib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prpc.app_client import BUSY_AFTER, get_function_server, servers
from prpc.exceptions import (
    BrokerUnavailableError,
    ClientTimeOutError,
    ConfigurationError,
    DecodeError,
    NoServerError,
    PRPCError,
)
from prpc.settings import Settings, safe_url
from prpc.stubs.codegen import generate
from prpc.stubs.schema import server_schema

__all__ = ["main"]

#: Lines of the difference that `--check` shows.
SHOWN_LINES = 20
#: Where a generated file says what it was made from.
_SCHEMA = re.compile(r'^SERVER_SCHEMA = "([0-9a-f]{1,64})"$', re.MULTILINE)
_ADVICE = "start it (python -m prpc ping --wait 30 waits for it), or correct PRPC_QUEUE_NAME and PRPC_URL_BROKER"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit code: 0 done or up to date, 1 out of date (`--check`), 2 an error, told in one line."""
    options = _parser().parse_args(argv)
    try:
        settings = Settings.from_env()
        return _check(options, settings) if options.check else _write(options.output, *_generated(options.timeout, settings))
    except PRPCError as exc:
        return _fail(_explained(exc, options.timeout))
    except OSError as exc:
        return _fail(f"{options.output} cannot be read or written: {exc.strerror or exc}")


def _generated(timeout: float, settings: Settings) -> tuple[str, str]:
    """The file's text, and a line about it."""
    descriptions = get_function_server(timeout=datetime.timedelta(seconds=timeout))
    source = generate(descriptions, queue=settings.queue_name)
    return source, f"{len(descriptions)} functions, schema {server_schema(descriptions)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prpc.create_server_func",
        description="Ask the running server for its functions and write typed stubs of them.",
        epilog="Where the server is, say PRPC_TYPE_BROKER, PRPC_URL_BROKER and PRPC_QUEUE_NAME in the environment or in .env.",
    )
    parser.add_argument("--output", type=Path, default=Path("server_func.py"), help="file to write (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is out of date")
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="longest wait for the server (default: 30)"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 86400")
    return value


def _write(output: Path, source: str, facts: str) -> int:
    if _read(output) == source:
        _say(f"{output} is up to date: {facts}")
        return 0
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(source)
        os.chmod(temporary, _mode(output))
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
    _say(f"wrote {output}: {facts}")
    return 0


def _mode(output: Path) -> int:
    """Permissions of the file that is replaced; of a new one, what the process's umask leaves."""
    if output.exists():
        return output.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _check(options: argparse.Namespace, settings: Settings) -> int:
    """Ask a server; where all are busy for a moment, their announcements say whether the functions are those of the file."""
    try:
        generated = _generated(min(options.timeout, BUSY_AFTER), settings)
    except ClientTimeOutError:
        verdict = _check_announced(options.output)
        if verdict is not None or options.timeout <= BUSY_AFTER:
            return _fail(_explained_silence(options.timeout)) if verdict is None else verdict
        generated = _generated(options.timeout - BUSY_AFTER, settings)
    return _compare(options.output, *generated)


def _check_announced(output: Path) -> int | None:
    """The exit code by what busy servers announce; None where that does not decide it."""
    found = _SCHEMA.search(_read(output) or "")
    announced = {str(server.info.get("schema")) for server in servers() if not server.info.get("draining")}
    if found is None or not announced:
        return None
    if found[1] in announced:
        _say(f"{output} is up to date by its schema {found[1]}: the servers are busy, so its text was not compared")
        return 0
    _say(f"{output} is out of date: its schema is {found[1]}, the servers (busy now) announce {', '.join(sorted(announced))}")
    return 1


def _compare(output: Path, source: str, facts: str) -> int:
    old = _read(output)
    if old == source:
        _say(f"{output} is up to date: {facts}")
        return 0
    if old is None:
        _say(f"{output} does not exist; the server has {facts}")
        return 1
    lines = list(difflib.unified_diff(old.splitlines(), source.splitlines(), str(output), "server", lineterm="", n=1))
    _say(f"{output} is out of date; the server has {facts}")
    for line in lines[:SHOWN_LINES]:
        _say(f"  {line}")
    if len(lines) > SHOWN_LINES:
        _say(f"  ... {len(lines) - SHOWN_LINES} more lines")
    return 1


def _read(output: Path) -> str | None:
    """The file's text; None where there is none, or none that is UTF-8."""
    try:
        return output.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _explained(exc: PRPCError, timeout: float) -> str:
    match exc:
        case ConfigurationError():
            return str(exc)
        case BrokerUnavailableError():
            return f"the broker cannot be reached: {exc}"
        case NoServerError():
            return f"no server serves the queue {_place()} now: {_ADVICE}"
        case ClientTimeOutError():
            return _explained_silence(timeout)
        case DecodeError():
            return f"the server's answer was refused: {exc}"
    return f"{type(exc).__name__}: {exc}"


def _explained_silence(timeout: float) -> str:
    return f"no server of the queue {_place()} answered within {timeout:g} s: {_ADVICE}"


def _place() -> str:
    settings = Settings.from_env()
    return f"{settings.queue_name!r} at {safe_url(settings.url_broker)}"


def _fail(text: str) -> int:
    sys.stderr.write(f"create_server_func: {' '.join(text.split())}\n")
    return 2


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
