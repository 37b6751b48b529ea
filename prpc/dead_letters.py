"""`python -m prpc dead`: list, show, requeue and drop the dead letters of a queue."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from prpc.brokers import create_broker
from prpc.brokers.base import DeadLetter, DeadLetters
from prpc.codec import Codec, Limits
from prpc.exceptions import ConfigurationError, DecodeError, EncodeError
from prpc.settings import Settings

__all__ = ["add_command", "main"]

#: Characters of one field that `show` prints; `--json` prints them all.
SHOWN = 2000
_COLUMNS = ("id", "buried", "reason", "attempts", "function", "message_id")
_DONE = {"requeue": "requeued", "drop": "dropped"}


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `dead` to the commands of `python -m prpc`."""
    dead = commands.add_parser("dead", help="list, show, requeue and drop dead letters: calls that were given up on")
    actions = dead.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="a table of them, the oldest first")
    listing.add_argument("--reason", help="only those with this reason")
    shown = actions.add_parser("show", help="everything about one")
    shown.add_argument("id", metavar="ID")
    requeue = actions.add_parser("requeue", help="put their entries back to the end of the queue, as if sent anew")
    drop = actions.add_parser("drop", help="remove them for ever")
    for parser in (requeue, drop):
        parser.add_argument("ids", nargs="*", metavar="ID")
        parser.add_argument("--all", action="store_true", help="all that are there now")
        parser.add_argument("--reason", help="with --all: only those with this reason")
        parser.set_defaults(refuse=parser.error)
    for parser in (listing, shown, requeue, drop):
        parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def main(options: argparse.Namespace) -> int:
    """Run `dead` as parsed. Exit code: 0 done, 1 a letter that was named is not there or cannot be put back."""
    settings = Settings.from_env()
    if settings.type_broker == "memory":
        text = "the dead letters of a memory broker live in its own process; this command needs another broker"
        raise ConfigurationError(text, variable="PRPC_TYPE_BROKER", value="memory")
    if options.action == "list":
        return asyncio.run(_list(settings, options))
    if options.action == "show":
        return asyncio.run(_show(settings, options))
    if options.all == bool(options.ids) or (options.reason is not None and not options.all):
        options.refuse("name the IDs, or give --all, which may have a --reason")
    return asyncio.run(_act(settings, options))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[DeadLetters]:
    broker = create_broker(settings)
    await broker.connect()
    try:
        yield broker.dead_letters(settings.queue_name)
    finally:
        await broker.close()


async def _list(settings: Settings, options: argparse.Namespace) -> int:
    codec = _codec(settings)
    async with _opened(settings) as letters:
        found = [_summary(codec, letter) async for letter in letters.read() if options.reason in (None, letter.reason)]
    if options.json:
        _say(json.dumps(found, indent=2))
    elif found:
        _say(
            "\n".join(
                _table([[name.upper() for name in _COLUMNS], *([_cell(row[column]) for column in _COLUMNS] for row in found)])
            )
        )
    else:
        _say(f"no dead letters in queue {settings.queue_name!r}")
    return 0


async def _show(settings: Settings, options: argparse.Namespace) -> int:
    async with _opened(settings) as letters:
        letter = await letters.get(options.id)
    if letter is None:
        return _missing([options.id], settings)
    summary = _summary(_codec(settings), letter)
    if options.json:
        fields = [_json_field(name, value) for name, value in letter.fields]
        _say(json.dumps({**summary, "details": letter.details, "fields": fields}, indent=2))
        return 0
    for name, value in summary.items():
        _say(f"{name + ':':<12}{_cell(value)}")
    if letter.details:
        _say("\n" + "\n".join(_printable(line) for line in letter.details.splitlines()))
    _say("\nfields of the entry:")
    for field, content in letter.fields:
        _say(f"  {_text(field)}: {_text(content)}")
    return 0


async def _act(settings: Settings, options: argparse.Namespace) -> int:
    done: list[str] = []
    missing: list[str] = []
    refused: list[str] = []
    async with _opened(settings) as letters:
        ids = options.ids
        if options.all:  # the ids first: a requeued entry may become a dead letter again meanwhile
            ids = [letter.id async for letter in letters.read() if options.reason in (None, letter.reason)]
        act = letters.requeue if options.action == "requeue" else letters.drop
        for letter_id in dict.fromkeys(ids):
            try:
                (done if await act(letter_id) else missing).append(letter_id)
            except EncodeError as exc:
                refused.append(letter_id)
                _complain(str(exc))
    if options.json:
        _say(json.dumps({_DONE[options.action]: done, "missing": missing, "refused": refused}))
    else:
        _say(f"{len(done)} {_DONE[options.action]}")
    if options.all:  # what is gone meanwhile was somebody else's decision
        return 1 if refused else 0
    return _missing(missing, settings) if missing else int(bool(refused))


def _missing(ids: Sequence[str], settings: Settings) -> int:
    for letter_id in ids:
        _complain(f"queue {settings.queue_name!r} has no dead letter {letter_id!r}")
    return 1


def _summary(codec: Codec, letter: DeadLetter) -> dict[str, Any]:
    function, message_id = _call_of(codec, letter)
    return {
        "id": letter.id,
        "buried": _time(letter.buried),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "function": function,
        "message_id": message_id,
        "sent": _time(letter.sent) if letter.sent else None,
        "stream": "raw" if letter.raw else "calls",
        "entry": letter.entry,
        "bytes": sum(len(name) + len(value) for name, value in letter.fields),
    }


def _call_of(codec: Codec, letter: DeadLetter) -> tuple[str | None, str | None]:
    """Function and message id, as far as they can be read."""
    if letter.body is None:
        return None, None
    try:
        message = codec.read_raw_call(letter.body) if letter.raw else codec.read_call(letter.body)
    except DecodeError as exc:
        return None, exc.message_id
    return message.func_name, str(message.message_id)


def _codec(settings: Settings) -> Codec:
    return Codec(Limits(settings.max_message_bytes, settings.max_message_depth, settings.max_message_items))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _json_field(name: bytes, value: bytes) -> dict[str, str]:
    try:
        return {"name": name.decode(), "value": value.decode()}
    except UnicodeDecodeError:
        return {"name_base64": base64.b64encode(name).decode(), "value_base64": base64.b64encode(value).decode()}


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    text = _printable("-" if value is None or value == "" else str(value))
    return text if len(text) <= 100 else text[:97] + "..."


def _text(value: bytes) -> str:
    try:
        text = _printable(value.decode())
    except UnicodeDecodeError:
        text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(value)} bytes)"


def _printable(text: str) -> str:
    """A letter may hold anything, also what would steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _complain(text: str) -> None:
    print(f"prpc: {text}", file=sys.stderr)  # noqa: T201
