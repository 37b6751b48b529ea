"""Real traffic, recorded from programs that write with stock jsonpickle 3.3.0 and 4.1.4, is served and read."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonpickle
import pytest

from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage

SAMPLES = json.loads((Path(__file__).parents[1] / "data" / "wire_samples.json").read_text())["jsonpickle"]
CODEC = Codec()


def cases(raw: bool) -> list[Any]:
    return [
        pytest.param(sample, id=f"{version}-{name}")
        for version, samples in SAMPLES.items()
        for name, sample in samples.items()
        if name.startswith("raw_") is raw
    ]


def by_stock(text: str) -> PRPCMessage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the samples were written without keys=True
        message = jsonpickle.decode(text, keys=False)
    assert isinstance(message, PRPCMessage)
    return message


@pytest.mark.parametrize("sample", cases(raw=False))
def test_a_recorded_call_is_read_as_stock_reads_it(sample: dict[str, Any]) -> None:
    call, expected = CODEC.read_call(sample["call"].encode()), by_stock(sample["call"])
    assert call == expected
    assert type(call.func_args) is type(expected.func_args)
    assert sample["key"].endswith(str(call.message_id))


@pytest.mark.parametrize("sample", cases(raw=False))
def test_a_recorded_result_is_read_as_stock_reads_it(sample: dict[str, Any]) -> None:
    reply, expected = CODEC.read_reply(sample["result"].encode()), by_stock(sample["result"])
    assert (reply.message_id, reply.date_done_message) == (expected.message_id, expected.date_done_message)
    assert reply.result == expected.result and type(reply.result) is type(expected.result)
    if expected.exception_info is None:
        assert reply.failure is None
    else:
        assert reply.failure is not None and reply.failure.message == expected.exception_info
        assert reply.failure.type_name == "prpc.exceptions.RemoteError"


@pytest.mark.parametrize("sample", cases(raw=False))
def test_what_we_answer_to_a_recorded_call_is_what_was_recorded(sample: dict[str, Any]) -> None:
    recorded = by_stock(sample["result"])
    ours = CODEC.write_reply(recorded, None, for_us=False)
    assert by_stock(ours.body.decode()) == recorded
    assert ours.wake == b""


@pytest.mark.parametrize("sample", cases(raw=False))
def test_what_we_send_is_what_was_recorded(sample: dict[str, Any]) -> None:
    recorded = by_stock(sample["call"])
    assert by_stock(CODEC.write_call(recorded).decode()) == recorded


@pytest.mark.parametrize("version", SAMPLES)
def test_references_are_resolved(version: str) -> None:
    samples = SAMPLES[version]
    shared = CODEC.read_call(samples["shared_arg"]["call"].encode()).func_args[0]
    assert shared == [[1, 2], [1, 2]] and shared[0] is shared[1]
    first, second, third = CODEC.read_call(samples["same_list_twice"]["call"].encode()).func_args
    assert first == [1, 2] and first is second and third == []
    assert CODEC.read_reply(samples["shared_arg"]["result"].encode()).result == [[1, 2], [1, 2]]
    assert CODEC.read_reply(samples["make_shared"]["result"].encode()).result == [[1, 2], [1, 2]]
    assert CODEC.read_reply(samples["dict_arg"]["result"].encode()).result == {"a": [1, {"b": None}], "c": "x"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("make_tuple", (1, (2, 3))),
        ("make_set", {1}),
        ("make_bytes", b"\x00\xff"),
        ("make_date", datetime(2024, 11, 6, 12)),
        ("make_big", 2**70),
        ("make_float", [0.1, 1e300]),
        ("make_inf", float("inf")),
        ("make_unicode", "Привет ☃"),
        ("make_true", True),
        ("make_nested", {"a": [1, {"b": None}]}),
        ("no_args", "pong"),
    ],
)
@pytest.mark.parametrize("version", SAMPLES)
def test_recorded_values(version: str, name: str, value: Any) -> None:
    result = CODEC.read_reply(SAMPLES[version][name]["result"].encode()).result
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize("sample", cases(raw=True))
def test_a_recorded_raw_call_is_served_and_answered_as_recorded(sample: dict[str, Any]) -> None:
    call = json.loads(sample["call"])
    message = CODEC.read_raw_call(sample["call"].encode())
    assert message.func_name == call["func_name"] and message.message_id == UUID(call["message_id"])
    assert message.func_args == call.get("func_args", []) and message.func_kwargs == call.get("func_kwargs", {})

    recorded = json.loads(sample["result"])
    done = message.done(datetime.now(UTC), None, recorded["exception_info"])
    answer = json.loads(CODEC.write_raw_reply(done))
    assert answer.keys() == recorded.keys()
    for name in ("func_name", "func_args", "func_kwargs", "exception_info"):
        assert answer[name] == recorded[name]
    # The recorded program wrote the id as {"hex": ...}; ours is the dashed text that was promised.
    assert answer["message_id"] == call["message_id"] == str(UUID(recorded["message_id"]["hex"]))
    for name in ("date_create_message", "date_done_message"):
        assert datetime.fromisoformat(answer[name]).tzinfo is not None


RAW_VALUES = {
    "raw_make_tuple": (1, (2, 3)),
    "raw_make_set": {1},
    "raw_make_bytes": b"\x00\xff",
    "raw_make_date": datetime(2024, 11, 6, 12),
    "raw_make_unicode": "Привет ☃",
    "raw_make_shared": [[1, 2], [1, 2]],
}


@pytest.mark.parametrize("name", RAW_VALUES)
@pytest.mark.parametrize("version", SAMPLES)
def test_values_in_raw_answers_are_as_recorded(version: str, name: str) -> None:
    sample = SAMPLES[version][name]
    done = CODEC.read_raw_call(sample["call"].encode()).done(datetime.now(UTC), RAW_VALUES[name])
    assert json.loads(CODEC.write_raw_reply(done))["result"] == json.loads(sample["result"])["result"]
