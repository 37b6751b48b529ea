"""What the servers of a queue say of themselves: `python -m prpc health`, `servers` and `running`.

All three read the announcements, which every server repeats each half of PRPC_HEALTH_WINDOW_SEC and takes back when it ends. What
they hold was written by other programs: nothing in it is taken for granted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import ServerRecord
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings, load_environment, safe_url

__all__ = ["health", "running", "servers"]

#: Largest number that is believed.
MOST_SECONDS = 1e9


def health(instance: str | None, timeout: float) -> int:
    """Exit code 0 where the server `instance` (None: the environment's, else any of the queue) is ready, else 1.

    Raises BrokerUnavailableError after `timeout` seconds without an answer.
    """
    settings = Settings.from_env()
    instance = instance or load_environment().get("PRPC_INSTANCE_NAME", "").strip() or None
    records = [record for record in _ask(settings, timeout) if instance in (None, record.instance)]
    obstacles = [_obstacle(record, settings) for record in records]
    ready = obstacles.count(None)
    if ready:
        _say("ready" if instance is not None else f"ready: {ready} of {len(records)} servers")
        return 0
    name = "server" if instance is None else f"server {_shown(instance)}"
    whose = f"queue {settings.queue_name!r} at {safe_url(settings.url_broker)}"
    for record, why in zip(records, obstacles, strict=True):
        sys.stderr.write(f"prpc: not ready: server {_shown(record.instance)} {why}\n")
    if not records:
        sys.stderr.write(f"prpc: not ready: no {name} announces itself on the {whose}\n")
    return 1


def servers(timeout: float, *, as_json: bool) -> int:
    """List the servers. Raises BrokerUnavailableError."""
    rows = [_server(record) for record in _ask(Settings.from_env(), timeout)]
    if as_json:
        _say(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        row["state"] = "draining" if row["draining"] else "serving"
        row["functions"] = len(row["functions"])
    heads = (
        "instance",
        "host",
        "pid",
        "state",
        "running",
        "capacity",
        "functions",
        "schema",
        "abandoned",
        "replaced",
        "last_seen",
    )
    _table(heads, rows, "no server announces itself")
    if len({str(row["schema"]) for row in rows}) > 1:
        sys.stderr.write("prpc: the servers of this queue do not have the same functions (see schema)\n")
    return 0


def running(timeout: float, *, as_json: bool) -> int:
    """List the calls that run, the longest-running first. Raises BrokerUnavailableError."""
    records = _ask(Settings.from_env(), timeout)
    rows = [row for record in records for row in _calls(record)]
    rows.sort(key=lambda row: str(row["since"]))
    if as_json:
        _say(json.dumps(rows, indent=2))
    else:
        _table(("id", "function", "worker", "since", "attempt", "deadline", "instance"), rows, "no call runs")
    hidden = sum(_number(record.info.get("running")) for record in records) - len(rows)
    if hidden > 0:
        sys.stderr.write(f"prpc: {hidden:g} more calls run; a server tells of its oldest ones only\n")
    return 0


def _ask(settings: Settings, timeout: float) -> list[ServerRecord]:
    """The announcements on the queue, by instance."""
    settings = replace(settings, connect_timeout=min(settings.connect_timeout, timeout) or 0.001)
    return sorted(asyncio.run(_servers(settings, timeout)), key=lambda record: record.instance)


async def _servers(settings: Settings, timeout: float) -> Sequence[ServerRecord]:  # noqa: ASYNC109 - one limit for all of it
    broker = create_broker(settings)
    try:
        async with asyncio.timeout(timeout):
            await broker.connect()
            return await broker.servers(settings.queue_name)
    except TimeoutError as exc:
        place = safe_url(settings.url_broker)
        raise BrokerUnavailableError(f"{place} did not answer within {timeout:g} s", url=place) from exc
    finally:
        await broker.close()


def _obstacle(record: ServerRecord, settings: Settings) -> str | None:
    if record.info.get("draining"):
        return "is draining"
    if record.age > settings.health_window:
        return f"was last seen {record.age:.1f} s ago"
    return None


def _server(record: ServerRecord) -> dict[str, Any]:
    info = record.info
    functions = info.get("functions")
    return {
        "instance": record.instance,
        "host": info.get("host"),
        "pid": info.get("pid"),
        "functions": list(functions) if isinstance(functions, Mapping) else [],
        "schema": info.get("schema"),
        "capacity": info.get("capacity"),
        "running": info.get("running"),
        "draining": bool(info.get("draining")),
        "abandoned": info.get("abandoned"),
        "replaced": info.get("replaced"),
        "last_seen": _moment(-record.age),
    }


def _calls(record: ServerRecord) -> list[dict[str, Any]]:
    told = record.info.get("calls")
    return [
        {
            "id": call.get("id"),
            "function": call.get("function"),
            "worker": call.get("worker"),
            "since": _moment(-record.age - _number(call.get("running"))),
            "attempt": call.get("attempt"),
            "deadline": None if call.get("left") is None else _moment(_number(call.get("left")) - record.age),
            "instance": record.instance,
        }
        for call in (told if isinstance(told, list) else [])
        if isinstance(call, Mapping)
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < MOST_SECONDS else 0.0


def _moment(seconds: float) -> str:
    """So many seconds from now, by the clock of who reads it; thirty years at most, for no calendar holds every number."""
    bounded = max(-MOST_SECONDS, min(MOST_SECONDS, seconds))
    return (datetime.now(UTC) + timedelta(seconds=bounded)).isoformat(timespec="milliseconds")


def _table(heads: Sequence[str], rows: Sequence[Mapping[str, Any]], none: str) -> None:
    if not rows:
        _say(none)
        return
    lines = [[head.replace("_", " ") for head in heads], *([_shown(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        _say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    """As text for a terminal, which a name from elsewhere must not command."""
    text = "-" if value is None or value == "" else str(value)[:200]
    return text if text.isprintable() else ascii(text)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
