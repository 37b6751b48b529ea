"""`python -m prpc queue`: how long the queue is, who serves it, and what was given up."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import QueueState, ServerRecord
from prpc.exceptions import ConfigurationError
from prpc.settings import Settings

__all__ = ["add_command", "main"]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `queue` to the commands of `python -m prpc`."""
    parser = commands.add_parser("queue", help="show how long the queue is, who serves it, and how many dead letters it has")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def main(options: argparse.Namespace) -> int:
    """Run `queue` as parsed. Exit code 0: the broker answered."""
    settings = Settings.from_env()
    if settings.type_broker == "memory":
        text = "the queue of a memory broker lives in its own process; this command needs another broker"
        raise ConfigurationError(text, variable="PRPC_TYPE_BROKER", value="memory")
    state, servers = asyncio.run(_ask(settings))
    facts: dict[str, Any] = {
        "queue": settings.queue_name,
        "waiting": state.waiting,
        "next_waits_seconds": state.next_waits,
        "taken": state.taken,
        "dead_letters": state.dead,
        "servers": [{"instance": server.instance, **server.info} for server in servers],
    }
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_lines(facts)))  # noqa: T201
    return 0


async def _ask(settings: Settings) -> tuple[QueueState, Sequence[ServerRecord]]:
    broker = create_broker(settings)
    await broker.connect()
    try:
        return await broker.state(settings.queue_name), await broker.servers(settings.queue_name)
    finally:
        await broker.close()


def _lines(facts: dict[str, Any]) -> list[str]:
    waits = facts["next_waits_seconds"]
    servers = facts["servers"]
    lines = [
        f"queue:         {facts['queue']}",
        f"waiting:       {facts['waiting']}" + ("" if waits is None else f", the next one for {waits:.0f} s"),
        f"taken:         {facts['taken']}",
        f"dead letters:  {facts['dead_letters']}",
        f"servers:       {len(servers)}",
    ]
    for server in servers:
        where = ascii(f"{server['instance']} on {server.get('host', '?')}, pid {server.get('pid', '?')}")[1:-1]
        lines.append(f"  {where}, {server.get('capacity', '?')} slots, {len(server.get('functions', ()))} functions")
    return lines
