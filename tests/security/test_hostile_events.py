"""Hostile events between good ones: whatever the control channel brings, good events are heard, and nothing else runs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import uuid
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hostile_bodies import (
    CANARY_FILE,
    CANARY_MODULE,
    VALUES,
    call_text,
    changed_bytes,
    changed_tree,
    nested,
    raw_text,
    reference_tree,
    tag_tree,
)

from prpc.app_server import AppServer
from prpc.brokers.memory import MemoryBroker
from prpc.protocol.facts import CallFacts, Event, write_event

QUEUE = "q"
#: Hostile events of one run, and how many stand between two good ones.
EVENTS, WINDOW = 1000, 20


def hostile(rng: Random, now: float) -> bytes:
    """A control message that nobody should have sent."""
    message_id, raw = UUID(int=rng.getrandbits(128), version=4), rng.random() < 0.4
    write = raw_text if raw else call_text
    name = rng.choice(("told", "told", "canary", "ping", "get_function_server", "", "\0", "x" * 5000, "told\n"))
    tree = rng.choice(
        (tag_tree, reference_tree, lambda r: nested(r, r.choice((99, 101, 3000))), lambda r: json.dumps(r.choice(VALUES)))
    )
    text = write(message_id, name, tree(rng))
    kind = rng.randrange(6)
    call = text.encode("utf-8", "surrogatepass")
    if kind == 0:
        call = changed_bytes(rng, call).decode("latin-1").encode()
    elif kind == 1:
        call = changed_tree(rng, write(message_id, name)).encode("utf-8", "surrogatepass")
    facts = CallFacts(timeout=rng.choice((None, 0.0, 1.0, 1e10)), headers={"a": "b"} if rng.random() < 0.2 else {})
    sent = now + rng.choice((0.0, 0.0, 0.0, -5.0, 290.0, -1e6, 1e6))
    body = write_event(Event(call[:300_000], max(0.0, sent), facts, raw=raw != (rng.random() < 0.1), strict=rng.random() < 0.5))
    if kind == 2:
        return changed_bytes(rng, body)
    if kind == 3:
        message = json.loads(body)
        message["event"][rng.choice(("message", "sent_ms", "timeout_ms", "headers", "raw", "loose", "cancel"))] = rng.choice(
            VALUES
        )
        return json.dumps(message).encode()
    return body


@pytest.mark.parametrize("seed", range(3))
def test_good_events_between_hostile_ones_are_heard(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng, good, ran, uncaught = Random(seed), [], [], []

    async def scenario() -> None:
        app = AppServer("memory", f"memory://{uuid.uuid4().hex}", "async", 2, name_queue=QUEUE, max_message_bytes=200_000)

        @app.function(broadcast=True)
        async def told(*values: Any, **named: Any) -> None:
            if values and isinstance(values[0], list) and values[0][:1] == ["good"]:
                good.append(values[0][1])

        @app.function
        async def canary(*values: Any, **named: Any) -> None:
            ran.append("canary")

        asyncio.get_running_loop().set_exception_handler(lambda _, context: uncaught.append(str(context)))
        server = asyncio.create_task(app.serve())
        await app.ready
        broker = MemoryBroker(app.settings)
        await broker.connect()
        for number in range(EVENTS // WINDOW):
            for _ in range(WINDOW):
                broker.broadcast(QUEUE, hostile(rng, broker.now()))
            text = call_text(uuid.uuid4(), "told", json.dumps(["good", number])).encode()
            broker.broadcast(QUEUE, write_event(Event(text, broker.now())))
            while len(good) <= number:
                await asyncio.sleep(0)
        assert app.ready.is_set()
        await app.stop()
        await server
        await broker.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert good == list(range(EVENTS // WINDOW))
    assert not ran and not uncaught
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "a control message was refused" in caplog.text
    assert CANARY_MODULE not in sys.modules and not Path(CANARY_FILE).exists()
