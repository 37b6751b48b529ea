"""What we write is read by stock jsonpickle to equal values: by the installed one and by 3.3.0, each in its own process.

`make test` puts 3.3.0 into a folder of the environment; without it there is a skip at home and a failure in CI.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import stock_reader
from stock_reader import Point

from prpc.codec import Codec
from prpc.failure import describe
from prpc.prpcmessage import PRPCMessage

OLD = "3.3.0"
OLD_FOLDER = Path(sys.prefix) / f"jsonpickle-{OLD}"
ROOT = Path(__file__).parents[2]
CODEC = Codec()
ID = UUID("8dcd1fcc-737c-44c5-b079-9b8ffce37566")
MADE = datetime(2026, 11, 20, 8, 6, 55, 591876, UTC)
DONE = datetime(2026, 11, 20, 8, 6, 56, 0, UTC)
SHARED = [1, (2, 3)]

VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**31, 2**63 - 1, 2**64, -(2**70)],
    "floats": [0.0, -0.0, 1e308, 5e-324, 0.1],
    "no_numbers": [math.inf, -math.inf, math.nan],
    "texts": ["", "é☃𝄞", '\x00\n"\\', "\ud800", "py/tuple", "json://1", "</script>\u2028"],
    "bytes": [b"", b"\x00\xff", b"a" * 1000],
    "bytearray": bytearray(b"\x00ab"),
    "tuples": ((), (1,), (1, ("a", None))),
    "sets": [set(), {1, 2}, {(1, 2)}, {"a"}, frozenset(), frozenset({1, frozenset({2})})],
    "dict": {"a": {"b": {"c": []}}, "": 1},
    "dict_of_ints": {1: "a", -5: {2: "b"}},
    "dict_of_others": {None: 1, True: 2, 1.5: 3, (1, "a"): 4, MADE: 5, ID: 6, b"k": 7, frozenset({1}): 8},
    "dict_like_tags": {"py/object": "os.system", "py/tuple": [1], "json://1": 2, "py/id": 1},
    "complex": [1 + 2j, complex(-0.0, math.inf)],
    "decimals": [Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("Infinity")],
    "datetimes": [
        datetime(2024, 2, 29, 1, 2, 3, 4),
        MADE,
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3), "west")),
        datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")),
    ],
    "dates": [date(2024, 2, 29), date.min, date.max],
    "times": [time(1, 2, 3, 4), time(23, tzinfo=UTC)],
    "durations": [timedelta(0), timedelta(days=-1, microseconds=3), timedelta.max],
    "zones": [UTC, timezone(timedelta(hours=1))],
    "ids": [ID, ID],
    "paths": [PurePosixPath("/a/b"), PureWindowsPath("c:/a"), Path("x")],
    "dataclass": Point(1.0, 2.5, ("a", "b"), [Point(3.0)]),
    "dataclasses": {"a": [Point(1.0), Point(1.0)], "b": (Point(2.0),)},
    "shared": [SHARED, SHARED, {"again": SHARED}, SHARED[1]],
    "mixed": [MADE, ID, (MADE, {ID: {MADE}}), Point(0.0), b"x", {"k": Decimal(1)}, MADE],
    "deep": [[[[[[[[[[(1,)]]]]]]]]]],
    "wide": list(range(5000)),
}


def failures() -> Iterator[BaseException]:
    """Raised, so that they have tracebacks, causes and notes."""
    try:
        try:
            raise KeyError("no 'bread' \ud800 ☃")
        except KeyError as exc:
            exc.add_note("seen today")
            yield exc
            raise ValueError("outer", 3) from exc
    except ValueError as exc:
        yield exc
    yield ExceptionGroup("several", [OSError(2, "none"), ExceptionGroup("inner", [RuntimeError()])])


def texts() -> Iterator[tuple[str, str, Any]]:
    """(name, text that we write, what a stock reader must make of it)."""

    def written(name: str, body: bytes, message: Any) -> tuple[str, str, Any]:
        return name, body.decode(), stock_reader.plain(message)

    def message(args: Any, kwargs: dict[str, Any]) -> PRPCMessage:
        return PRPCMessage("orders.größe", args, kwargs, ID, MADE)

    empty = message((), {})
    for name, value in VALUES.items():
        for args, kwargs in (((value,), {}), ([value, value], {}), ((), {"k": value}), ((1, value), {"a": "x", "b": value})):
            call = message(args, kwargs)
            yield written(f"call {name}", CODEC.write_call(call), call)
            done = call.done(DONE, value)
            yield written(f"foreign reply {name}", CODEC.write_reply(done, None, for_us=False).body, done)
        reply = CODEC.write_reply(message((value,), {}).done(DONE, value), None, for_us=True)
        yield written(f"our reply {name}", reply.body, empty.done(DONE, value))
        yield written(f"wake {name}", reply.wake, [ID.hex, value, None, json.loads(reply.wake)[3]])
    for error in failures():
        name, failure = type(error).__name__, describe(error)
        done = message((1,), {}).done(DONE, None, failure.message)
        yield written(f"foreign error {name}", CODEC.write_reply(done, failure, for_us=False).body, done)
        reply = CODEC.write_reply(done, failure, for_us=True)
        described = json.loads(reply.body)["result"]
        yield written(f"our error {name}", reply.body, empty.done(DONE, described, failure.message))
        yield written(f"error wake {name}", reply.wake, [ID.hex, None, described, json.loads(reply.wake)[3]])
        raw = CODEC.write_raw_reply(done)
        yield written(f"raw error {name}", raw, json.loads(raw))
    raw = CODEC.write_raw_reply(message([1, "a"], {"k": [True]}).done(DONE, {"b": 1.5}))
    yield written("raw reply", raw, json.loads(raw))


def read_all(folder: Path, expected_version: str, *path: Path) -> None:
    file = folder / "texts.pickle"
    file.write_bytes(pickle.dumps(list(texts())))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    command = [sys.executable, stock_reader.__file__, expected_version, str(file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="backslashreplace")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_installed_jsonpickle_reads_what_we_write(tmp_path: Path) -> None:
    read_all(tmp_path, version("jsonpickle"))


def test_jsonpickle_3_3_reads_what_we_write(tmp_path: Path) -> None:
    if not OLD_FOLDER.is_dir():
        text = f"no {OLD_FOLDER}: pip install --no-deps --target {OLD_FOLDER} jsonpickle=={OLD}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)
    read_all(tmp_path, OLD, OLD_FOLDER)


def test_the_comparison_sees_differences() -> None:
    pairs: list[tuple[Any, Any]] = [(1, True), ((1,), [1]), ({1: 2}, {"1": 2}), (Point(1.0), Point(1)), (0.0, -0.0), ({1}, {2})]
    same: Callable[[Any, Any], str] = stock_reader.difference
    assert all(same(one, other) for one, other in pairs)
    assert not any(same(one, one) for pair in pairs for one in pair) and not same(math.nan, math.nan)
