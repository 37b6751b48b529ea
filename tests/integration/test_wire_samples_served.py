"""The calls captured from the earlier implementation are served over a real Redis, and stock jsonpickle reads the answers."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonpickle
import pytest
import redis

from prpc import AppServer

CAPTURED = json.loads((Path(__file__).parent.parent / "data" / "wire_samples.json").read_text())["jsonpickle"]
SAMPLES = [pytest.param(sample, id=f"{version}-{name}") for version, cases in CAPTURED.items() for name, sample in cases.items()]
VALUES: dict[str, Any] = {
    "tuple": (1, (2, 3)),
    "set": {1},
    "bytes": b"\x00\xff",
    "intkeys": {1: "a", "1": "b"},
    "tupkey": {(1, 2): 3},
    "date": datetime(2024, 11, 6, 12),
    "shared": [[1, 2], [1, 2]],
    "nested": {"a": [1, {"b": None}]},
    "big": 2**70,
    "float": 0.1,
    "inf": float("inf"),
    "unicode": "Привет ☃",
    "true": True,
}


def server_of(url: str, queue: str) -> AppServer:
    app = AppServer("redis", url, "async", 4, name_queue=queue)

    @app.function()
    async def summ(a: int | float, b: Any, z: Any = 0.5) -> Any:
        return a + b + z

    @app.function()
    async def echo(x: Any) -> Any:
        return x

    @app.function()
    async def boom(text: str) -> None:
        raise ValueError(text)

    @app.function()
    async def make(kind: str) -> Any:
        return VALUES[kind]

    return app


async def answer(url: str, queue: str, stream: str, key: str, text: str) -> str:
    app = server_of(url, queue)
    bare = redis.Redis.from_url(url, decode_responses=True)
    serving = asyncio.create_task(app.serve())
    try:
        await app.ready
        bare.xadd(stream, {"message": text})
        while not bare.exists(key):
            await asyncio.sleep(0.002)
        assert 0 < bare.ttl(key) <= 6 * 3600
        kept = bare.get(key)
        assert isinstance(kept, str)
        bare.delete(key)
        await app.stop()
        await serving
        assert bare.xlen(stream) == 0
        return kept
    finally:
        bare.close()


def dashed(message_id: Any) -> str:
    return str(UUID(message_id["hex"] if isinstance(message_id, dict) else message_id))


@pytest.mark.real_redis
@pytest.mark.parametrize("sample", [s for s in SAMPLES if "-raw_" not in str(s.id)])
def test_a_captured_call_is_served(sample: dict[str, str], redis_url: str, queue: str) -> None:
    call, expected = (jsonpickle.decode(sample[part], keys=True) for part in ("call", "result"))
    key = f"prpc_feedback_{queue}_{call.message_id}"
    kept = asyncio.run(answer(redis_url, queue, f"prpc_{queue}", key, sample["call"]))
    done = jsonpickle.decode(kept, keys=True)
    for field in ("func_name", "func_kwargs", "message_id", "date_create_message"):
        assert getattr(done, field) == getattr(expected, field)
    assert list(done.func_args) == list(expected.func_args)
    assert done.date_done_message.tzinfo is not None
    if expected.exception_info is None:
        assert done.exception_info is None
        if call.func_name == "make":
            assert done.result == VALUES[call.func_args[0]] or call.func_args[0] == "float"
        elif call.func_name == "get_function_server":
            assert [entry["func_name"] for entry in done.result] == ["ping", "summ", "echo", "boom", "make"]
            assert done.result[1]["func_kwargs"][0]["name"] == "z"
            assert done.result[1]["func_kwargs"][0]["default"] == 0.5
        else:
            assert done.result == expected.result
    else:
        assert done.result is None
        if call.func_name == "boom":
            assert done.exception_info == expected.exception_info
        else:
            assert done.exception_info


@pytest.mark.real_redis
@pytest.mark.parametrize("sample", [s for s in SAMPLES if "-raw_" in str(s.id)])
def test_a_captured_raw_call_is_served(sample: dict[str, str], redis_url: str, queue: str) -> None:
    call, expected = json.loads(sample["call"]), json.loads(sample["result"])
    key = f"prpc_feedback_raw_{queue}_{call['message_id']}"
    done = json.loads(asyncio.run(answer(redis_url, queue, f"prpc_raw_{queue}", key, sample["call"])))
    assert list(done) == list(expected)
    assert done["message_id"] == dashed(expected["message_id"])
    for field in ("func_name", "func_args", "func_kwargs"):
        assert done[field] == expected[field]
    for field in ("date_create_message", "date_done_message"):
        assert datetime.fromisoformat(done[field]).tzinfo is not None
    if expected["exception_info"] is None:
        assert done["result"] == expected["result"]
    else:
        assert done["result"] is None and done["exception_info"]
        if call["func_name"] == "boom":
            assert done["exception_info"] == "bad value"
