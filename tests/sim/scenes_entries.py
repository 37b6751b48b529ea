"""Scenes of entries that no client of today writes: raw ones, old ones, hostile ones, doubles, and letters that come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from prpc.app_client import AsyncClient
from prpc.brokers import create_broker
from prpc.codec import Codec, Limits
from prpc.prpcmessage import PRPCMessage
from tests.sim.stage import Stage, ends
from tests.sim.workload import IDEMPOTENT
from tests.sim.world import QUEUE

__all__ = ["doubles", "foreign", "hostile", "letters"]

CODEC = Codec(Limits(64 * 1024 * 1024, 100, 5_000_000))
#: Seconds that a foreign caller looks for its result.
PATIENCE = 20.0


def foreign(stage: Stage) -> None:
    """Programs in other languages, and clients of before, which look for their results by themselves."""
    for raw in (True, False):
        stage.directs(_foreign(stage, raw))


async def _foreign(stage: Stage, raw: bool) -> None:
    calls: list[tuple[str, list[Any], tuple[str, ...]]] = [
        ("work", [0.1, "value"], ()),
        ("work", [0.1, "raise"], ("ValueError",)),
        ("work", [0.1, "unwritable"], ("EncodeError", "ValueError")),
        ("safe", [0.1, "value"], ()),
        ("pair", [1, 2], ()),
        ("pair", [1], ("BadArgumentsError",)),
        ("typed", ["x"], ("BadArgumentsError", "anything")),
        ("nobody", [], ("FunctionNotFoundError",)),
        ("stream", [0.1, "value", 3], ("BadArgumentsError",)),
        ("told", [1], ("anything",)),
        ("ping", [], ("anything",)),
        ("ping", [1, 2], ("anything",)),
    ]
    for name, args, expects in calls:
        await _one(stage, raw, name, args, {}, expects)
    await _one(stage, raw, "pair", ["x", "y"], {}, ("BadArgumentsError", "anything"))
    for _ in range(2):
        await _one(stage, raw, "work", [2.0, "value"], {"timeout_ms": "0"}, ("DeadlineExceededError",))
    await _one(stage, raw, "work", [2.0, "value"], {"timeout_ms": "300"}, ("DeadlineExceededError", "WorkerTimeoutError"))


async def _one(stage: Stage, raw: bool, name: str, args: list[Any], facts: Mapping[str, str], expects: tuple[str, ...]) -> None:
    world, message_id = stage.world, uuid4()
    when = datetime.fromisoformat("2027-01-15T08:00:00+00:00")
    if raw:
        body = json.dumps({"func_name": name, "func_args": args, "func_kwargs": {}, "message_id": str(message_id)}).encode()
    else:
        body = CODEC.write_call(PRPCMessage(name, tuple(args), {}, message_id, when))
    fields = {"id": message_id, "client": "foreign", "function": name, "idempotent": name in IDEMPOTENT}
    world.note("call", **fields, timeout=None, expects=["CallError", *expects])
    world.store.put(QUEUE, body, facts, raw=raw)
    for _ in range(int(PATIENCE / 0.2)):
        await asyncio.sleep(0.2)
        kept = world.store.queue(QUEUE).kept.get((message_id, raw))
        if kept is not None and "anything" not in expects:
            how, token = _read(kept[0])
            if how == "value":
                world.note("outcome", id=message_id, how=how, token=token)
                return
            # A reply of before tells a failure by its text alone.
            world.counts["outcome DeadlineExceededError"] += token is not None and "was not started" in token
            break
    world.note("leave", id=message_id)


def _read(body: bytes) -> tuple[str, Any]:
    told = json.loads(body)
    failed = told.get("exception_info")
    return ("value", told["result"]) if failed is None else ("failed", failed)


def hostile(stage: Stage) -> None:
    """Entries and mail that are broken in every place."""
    stage.directs(_hostile(stage))
    stage.acts(lambda client: _mails(stage, client))


async def _hostile(stage: Stage) -> None:
    world = stage.world

    def body(name: str = "free", message_id: UUID | None = None) -> bytes:
        given = message_id or uuid4()
        world.note(
            "call",
            id=given,
            client="hostile",
            function=name,
            idempotent=False,
            timeout=None,
            expects=["anything"],
        )
        world.note("leave", id=given)
        return json.dumps({"func_name": name, "func_args": [], "func_kwargs": {}, "message_id": str(given)}).encode()

    facts: list[dict[str, str]] = [
        {"timeout_ms": "soon"},
        {"attempt": "-1"},
        {"stream": "0"},
        {"reply_to": "a b"},
        {"reply_to": ""},
        {"reply_to": "x" * 300},
        {"headers": "{"},
        {"headers": "[]"},
        {"headers": "x" * 17_000},
        {"feeds": "a,a"},
        {"feeds": ""},
        {"feeds": "0", "reply_to": "nobody"},
        {"feeds": "0"},
        {"stream": "3", "reply_to": "nobody"},
        {"attempt": "2", "schema": "0123", "reply_to": "nobody"},
        {"what": "is this"},
    ]
    for fields in facts:
        world.store.put(QUEUE, body(), fields, raw=True)
        world.store.put(QUEUE, body("stream"), fields, raw=True)
        await asyncio.sleep(0.02)
    bodies: list[bytes | None] = [
        None,
        b"",
        b"[]",
        b"{",
        b'{"func_name": 3}',
        b'{"func_name": "free", "func_args": 3, "message_id": "x"}',
        b'{"func_name": "free", "message_id": "x"}',
        body()[:-1] + b', "date_create_message": "x"}',
        b'{"py/object": "os.system"}',
        b"\xff" * 50,
    ]
    for text in bodies:
        for raw in (True, False):
            world.store.put(QUEUE, text, {"reply_to": "nobody"}, raw=raw)
    await asyncio.sleep(1.0)


async def _mails(stage: Stage, client: AsyncClient) -> None:
    """Into the mailboxes of servers and clients."""
    reading = client.stream("stream", 3.0, "value", 6)
    task = client.call("work", 2.5, "progress")
    await anext(reading)
    known = str(task.message.message_id)
    hexed = reading.message.message_id.hex
    mails = [
        b"{",
        b"no mail",
        b'{"prpc_mail": "else"}',
        b'{"prpc_mail": 3}',
        b'{"prpc_mail": "progress"}',
        b'{"prpc_mail": "progress", "id": "x", "done": 1}',
        b'{"prpc_mail": "progress", "id": "%s", "done": -1}' % known.encode(),
        b'{"prpc_mail": "progress", "id": "%s", "done": 1}' % known.encode(),
        b'{"prpc_mail": "progress", "id": "%s", "done": 1}' % str(uuid4()).encode(),
        b'{"prpc_mail": "progress", "message": "' + b"x" * 9_000 + b'"}',
        b'{"prpc_mail": "words"}',
        b'{"prpc_mail": "words", "reader": 3, "words": []}',
        b'{"prpc_mail": "words", "reader": "a", "words": [3]}',
        b'{"prpc_mail": "words", "reader": "a", "words": [[3, "", 1, 1, 1, 1, 0]]}',
        b'{"prpc_mail": "words", "reader": "a", "words": [["%s", "", -1, 1, 1, 1, 0]]}' % hexed.encode(),
        b'{"prpc_mail": "words", "reader": "a", "words": [["%s", "", 1, 0, 1, 0, 0]]}' % uuid4().hex.encode(),
        b'{"prpc_mail": "words", "reader": "a", "words": "' + b"x" * 2_000_000 + b'"}',
        b'{"prpc_mail": "items"}',
        b'{"func_name": "free"}',
    ]
    for address in list(stage.world.store.mailboxes):
        for mail in mails:
            stage.world.store.mail(address, mail)
    await asyncio.sleep(0.5)
    await task
    stage.leave(reading)
    await reading.aclose()


def doubles(stage: Stage) -> None:
    """Entries of a call that runs already, which a server was told that it may run: a letter that was put back, and again."""
    stage.acts(lambda client: _doubles(stage, client))


async def _doubles(stage: Stage, client: AsyncClient) -> None:
    queue = stage.world.store.queue(QUEUE)
    for address in (None, "somebody", None):
        task = client.options(retries=0, timeout=15.0).call("safe", 1.5, "value")
        await asyncio.sleep(0.3)
        found = [n for n, entry in queue.entries.items() if entry.message_id == task.message.message_id]
        for number in found:
            for _ in range(2):
                before = set(queue.entries)
                stage.world.store.double(QUEUE, number)
                for new in set(queue.entries) - before:
                    queue.admitted.add(new)
                    if address is not None:
                        queue.entries[new].facts["reply_to"] = address  # type: ignore[index]
        await task


def letters(stage: Stage) -> None:
    """Calls that are given up, and a person who looks at them, puts them back and drops them."""
    stage.acts(_given_up, expects={"*": ("anything", "BadArgumentsError")})
    stage.acts(_person)


async def _given_up(client: AsyncClient) -> None:
    for _ in range(3):
        await ends(client.call("typed", 1, flag=True, shade="red", maybe={"x": 14}), Exception)
    stream = client.stream("stream_to", {"x": 14})
    await ends(anext(stream), Exception)
    await client.call("told_of_a_point", {"x": 3})


async def _person(client: AsyncClient) -> None:
    broker = create_broker(client.channel.settings)
    await broker.connect()
    try:
        dead = broker.dead_letters(QUEUE)
        for _ in range(3):
            await asyncio.sleep(0.7)
            await dead.count()
            ids = [letter.id async for letter in dead.read()]
            for number, letter_id in enumerate(ids):
                letter = await dead.get(letter_id)
                if letter is not None and number % 2:
                    await dead.requeue(letter_id)
                else:
                    await dead.drop(letter_id)
    finally:
        await broker.close()
