"""Calls as the earlier implementation wrote them get the answers that it gave (tests/data/wire_samples.json)."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from prpc.app_server import AppServer
from prpc.brokers.memory import MemoryBroker
from prpc.codec import Codec
from prpc.names import QueueNames

SAMPLES = json.loads((Path(__file__).parent.parent / "data" / "wire_samples.json").read_text())["jsonpickle"]
CASES = [(version, name) for version, samples in SAMPLES.items() for name in samples]

#: Said in other words than before, with the same gist.
REPHRASED = {"error_signature": "misses the argument 'b'", "error_not_found": "func name 'nope' not found in server"}
REPHRASED["raw_not_found"] = REPHRASED["error_not_found"]

SHARED = [1, 2]
MADE: dict[str, Any] = {
    "tuple": (1, (2, 3)),
    "set": {1},
    "bytes": b"\x00\xff",
    "intkeys": {1: "a", "1": "b"},
    "tupkey": {(1, 2): 3},
    "date": datetime(2024, 11, 6, 12),
    "shared": [SHARED, SHARED],
    "nested": {"a": [1, {"b": None}]},
    "big": 2**70,
    "float": [0.1, 1e300],
    "inf": float("inf"),
    "unicode": "Привет ☃",
    "true": True,
}


# Annotated as in the samples, which hold the descriptions too.


def summ(a: int | float, b, z=0.5):
    return a + b + z


def echo(x):
    return x


def boom(text):
    raise ValueError(text)


def make(kind):
    return MADE[kind]


async def answer(body: bytes, message_id: UUID, *, raw: bool) -> bytes:
    app = AppServer("memory", f"memory://{uuid4().hex}", name_queue="q")
    app.register_funcs(summ, echo, boom, make)
    broker = MemoryBroker(app.settings)
    broker.put_raw("q", body, raw=raw)
    names = QueueNames("q")
    key = names.raw_feedback(message_id) if raw else names.feedback(message_id)
    server = asyncio.create_task(app.serve())
    while True:
        found = broker._space.collect([(message_id, key)])
        if found:
            break
        await asyncio.sleep(0)
    await app.stop()
    await server
    await broker.close()
    return found[message_id]


@pytest.mark.parametrize(("version", "name"), CASES)
def test_a_sample_is_served(version: str, name: str) -> None:
    sample, raw = SAMPLES[version][name], name.startswith("raw_")
    call, theirs = json.loads(sample["call"]), json.loads(sample["result"])
    message_id = UUID(call["message_id"] if raw else call["message_id"]["hex"])
    body = asyncio.run(asyncio.wait_for(answer(sample["call"].encode(), message_id, raw=raw), 20))
    ours = json.loads(body)
    if name in REPHRASED:
        assert REPHRASED[name] in ours["exception_info"]
    elif raw:
        assert (ours["result"], ours["exception_info"]) == (theirs["result"], theirs["exception_info"])
        assert (ours["func_args"], ours["func_kwargs"]) == (theirs["func_args"], theirs["func_kwargs"])
    else:
        check(name, Codec().read_reply(body).result, Codec().read_reply(sample["result"].encode()).result)
        assert ours["exception_info"] == theirs["exception_info"]
        assert list(ours) == list(theirs)


def check(name: str, ours: Any, theirs: Any) -> None:
    if name == "get_function_server":
        old_keys = ("func_name", "func_args", "func_kwargs")
        ours = [{key: function[key] for key in old_keys} for function in ours]
    if name in ("make_intkeys", "make_tupkey"):
        assert ours == MADE[name.removeprefix("make_")]  # keys that are no texts were lost before
    else:
        assert ours == theirs
