"""The command line: `python -m prpc run module:app`, `ping`, `health`, `servers`, `running`, `queue`, `dead`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from prpc import dead_letters, queue_state
from prpc.app_server import AppServer
from prpc.exceptions import BrokerUnavailableError, ConfigurationError, NoServerError, PRPCError

__all__ = ["load_app", "main"]

_DESCRIPTION = "Call functions of another Python program through Redis."
_MORE = """\
further commands:
  python -m prpc.create_server_func   write server_func.py from a running server
  python -m prpc.dev_broker           start a Redis for development, or a Kafka with --kafka

Settings come from PRPC_* variables and a .env file in the current folder."""


#: Seconds between two looks for a server that is still starting.
_LOOK_AGAIN_AFTER = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return _run(options.app, reload=options.reload)
        if options.command == "ping":
            return _ping(options.timeout, options.wait)
        from prpc import status

        if options.command == "health":
            return status.health(options.instance, options.timeout)
        if options.command == "dead":
            return dead_letters.main(options)
        if options.command == "queue":
            return queue_state.main(options)
        show = status.servers if options.command == "servers" else status.running
        return show(options.timeout, as_json=options.json)
    except PRPCError as exc:
        print(f"prpc: {exc}", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m prpc", description=_DESCRIPTION, epilog=_MORE, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve the functions of an AppServer")
    run.add_argument("app", metavar="MODULE[:APP]", help="where the AppServer is, e.g. shop.server:app")
    run.add_argument("--reload", action="store_true", help="start again whenever a Python file below the current folder changes")
    ping = commands.add_parser("ping", help="ask whether a server reads the queue")
    ping.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="how long to wait for the answer (default: 5)"
    )
    ping.add_argument("--wait", type=_seconds, default=0.0, metavar="SECONDS", help="how long to wait for a server to appear")
    _add_status(commands)
    queue_state.add_command(commands)
    dead_letters.add_command(commands)
    return parser


def _add_status(commands: Any) -> None:
    health = commands.add_parser("health", help="say whether a server is ready for calls")
    health.add_argument(
        "--instance", metavar="NAME", help="which server (default: PRPC_INSTANCE_NAME; where that is not set, any of the queue)"
    )
    servers = commands.add_parser("servers", help="list the servers of the queue")
    running = commands.add_parser("running", help="list the calls that run now")
    for command in (servers, running):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (health, servers, running):
        command.add_argument(
            "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="how long to wait for the broker (default: 5)"
        )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise ValueError
    return seconds


def load_app(target: str) -> AppServer:
    """The AppServer that `module:name` names; the name is "app" where it is left out.

    Raises ConfigurationError saying which part of the target is wrong. What the module itself raises passes through.
    """
    module_name, _, name = target.partition(":")
    name = name or "app"
    if not module_name or not all(part.isidentifier() for part in f"{module_name}.{name}".split(".")):
        raise ConfigurationError(f"{target!r} cannot be used: allowed is module:app, e.g. shop.server:app", value=target)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        hint = f"; {module_name[:-3]}:{name} names the file" if module_name.endswith(".py") else ""
        text = f"there is no module {module_name!r} in {os.getcwd()} or on Python's path{hint}"
        raise ConfigurationError(text, value=target) from exc
    for part in name.split("."):
        if not hasattr(found, part):
            apps = sorted(key for key, value in vars(found).items() if isinstance(value, AppServer))
            hint = f"; its AppServers are: {', '.join(apps)}" if apps else ""
            raise ConfigurationError(f"module {module_name!r} has no {name!r}{hint}", value=target)
        found = getattr(found, part)
    if not isinstance(found, AppServer):
        raise ConfigurationError(f"{target!r} is a {type(found).__name__}, not an AppServer", value=target)
    return found


def _run(target: str, *, reload: bool) -> int:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    if reload:
        from prpc.server.reloading import supervise

        return supervise([sys.executable, "-m", "prpc", "run", target], here)
    load_app(target).start()
    return 0


def _ping(timeout: float, wait: float) -> int:
    from prpc.app_client import ping

    give_up = time.monotonic() + wait
    while True:
        try:
            print(ping(timeout=timeout))  # noqa: T201
            return 0
        except (NoServerError, BrokerUnavailableError):
            if time.monotonic() >= give_up:
                raise
            time.sleep(_LOOK_AGAIN_AFTER)


if __name__ == "__main__":
    sys.exit(main())
