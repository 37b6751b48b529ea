"""How fast the codec is, beside stock jsonpickle, json, orjson and msgspec in the same run: `python benchmarks/codec.py`.

Prints microseconds (the best of several repeats, the kinds taken in turns) and ratios; the ratios are what counts.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jsonpickle
import msgspec

from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage

REPEATS = 7


@dataclass
class Point:
    """An argument that is no plain JSON."""

    x: int
    y: float


def best(cases: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Microseconds of each case: the best of several repeats, in turns so that a slow phase meets all alike."""
    timers = {name: timeit.Timer(case) for name, case in cases.items()}
    once = {name: min(timer.repeat(3, 1)) for name, timer in timers.items()}
    numbers = {name: max(1, min(20_000, round(0.05 / max(1e-7, seconds)))) for name, seconds in once.items()}
    found = dict.fromkeys(timers, float("inf"))
    for _ in range(REPEATS):
        for name, timer in timers.items():
            found[name] = min(found[name], timer.timeit(numbers[name]) / numbers[name] * 1e6)
    return found


def say(text: str) -> None:
    """One line of the table."""
    sys.stdout.write(text + "\n")


def compare(title: str, ours: float, other: float, name: str) -> None:
    """One line with a ratio."""
    say(f"{title:44} {ours:10.2f} us   {name} {other:10.2f} us   {other / ours:6.1f} x faster")


def call(*args: Any, **kwargs: Any) -> PRPCMessage:
    """A fresh call."""
    return PRPCMessage("summ", args, kwargs, uuid4(), datetime.now(UTC))


def pickled(value: Any) -> str:
    """As the stock library writes it."""
    return str(jsonpickle.encode(value, keys=True))


def small(codec: Codec, title: str, message: PRPCMessage, result: Any) -> None:
    """One call and its reply."""
    done = message.done(datetime.now(UTC), result)
    ours, stock = codec.write_call(message), pickled(message)
    reply, stock_reply = codec.write_reply(done, None, for_us=True), pickled(done)
    found = best(
        {
            "write_call": lambda: codec.write_call(message),
            "read_call": lambda: codec.read_call(ours),
            "write_reply": lambda: codec.write_reply(done, None, for_us=True),
            "read_wake": lambda: codec.read_reply(reply.wake),
            "read_body": lambda: codec.read_reply(reply.body),
            "stock_write_call": lambda: pickled(message),
            "stock_read_call": lambda: jsonpickle.decode(stock, keys=True),
            "stock_write_reply": lambda: pickled(done),
            "stock_read_reply": lambda: jsonpickle.decode(stock_reply, keys=True),
        }
    )
    say(f"-- {title}")
    compare("write_call", found["write_call"], found["stock_write_call"], "jsonpickle")
    compare("read_call", found["read_call"], found["stock_read_call"], "jsonpickle")
    compare("write_reply (kept text and wake-up)", found["write_reply"], found["stock_write_reply"], "jsonpickle")
    compare("read_reply (wake-up)", found["read_wake"], found["stock_read_reply"], "jsonpickle")
    compare("read_reply (kept text)", found["read_body"], found["stock_read_reply"], "jsonpickle")
    there, back = found["write_call"] + found["read_call"], found["write_reply"] + found["read_wake"]
    say(f"{'both ends of a call, of a reply':44} {there:10.2f} us {back:10.2f} us")


def large(codec: Codec, title: str, value: Any) -> None:
    """One argument of a megabyte, against Python's json."""
    message = call(value)
    text, plain = codec.write_call(message), json.dumps(value)
    found = best(
        {
            "write": lambda: codec.write_call(message),
            "read": lambda: codec.read_call(text),
            "json_write": lambda: json.dumps(value),
            "json_read": lambda: json.loads(plain),
        }
    )
    say(f"-- {title}, {len(plain):,} bytes")
    compare("write_call", found["write"], found["json_write"], "json")
    compare("read_call", found["read"], found["json_read"], "json")


def bare(value: Any) -> None:
    """The libraries that the fast path could stand on."""
    middle = b'{"func_name": "summ", "func_args": {"py/tuple": [1, 2]}, "func_kwargs": {}}'
    text = json.dumps(value).encode()
    libraries: dict[str, tuple[Callable[[Any], Any], Callable[[bytes], Any]]] = {
        "msgspec": (msgspec.json.Encoder().encode, msgspec.json.Decoder().decode),
        "json": (json.dumps, json.loads),
    }
    if importlib.util.find_spec("orjson") is not None:
        orjson = importlib.import_module("orjson")
        libraries["orjson"] = (orjson.dumps, orjson.loads)
    cases: dict[str, Callable[[], Any]] = {}
    for name, (write, read) in libraries.items():
        cases[f"{name}: write [1, 2]"] = _later(write, [1, 2])
        cases[f"{name}: read the middle of a small call"] = _later(read, middle)
        cases[f"{name}: write 1 MB of nested lists"] = _later(write, value)
        cases[f"{name}: read 1 MB of nested lists"] = _later(read, text)
    say("-- bare libraries")
    for name, microseconds in best(cases).items():
        say(f"{name:44} {microseconds:10.2f} us")


def _later(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def main() -> None:
    """The whole table."""
    say(f"Python {sys.version.split()[0]}, jsonpickle {jsonpickle.__version__}, msgspec {msgspec.__version__}")
    codec = Codec()
    small(codec, "summ(1, 2) -> 3", call(1, 2), 3)
    small(codec, "summ(1, b='x') -> dict", call(1, b="x"), {"a": 1, "b": [1, 2]})
    small(codec, "summ({'a': 1, 'b': '12:30'}) -> str", call({"a": 1, "b": "12:30"}), "ok")
    small(codec, "summ((1, 2)) -> tuple", call((1, 2)), (1, 2))
    small(codec, "summ(Point, datetime) -> datetime", call(Point(1, 2.0), datetime.now(UTC)), datetime.now(UTC))
    nested = [[i, i * 2, [i / 7, str(i)]] for i in range(24_000)]
    large(codec, "nested lists", nested)
    large(codec, "records", [{"id": i, "name": f"name {i}", "tags": ["a", "b"], "ok": True} for i in range(15_000)])
    bare(nested)


if __name__ == "__main__":
    main()
