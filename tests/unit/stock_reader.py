"""Reads with the jsonpickle that is first on the path, in a process of its own; for test_stock_jsonpickle.py.

    python stock_reader.py VERSION TEXTS

TEXTS is a pickle of (name, text, what it must be read as). Prints each text that is read as something else.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Point:
    x: float
    y: float = 0.0
    tags: tuple[str, ...] = ()
    inner: list[Point] = field(default_factory=list)


def types_of(value: Any) -> Any:
    """The value's types all the way down, for True is 1 and 1.0 to `==`."""
    if isinstance(value, list | tuple):
        return type(value), [types_of(member) for member in value]
    if isinstance(value, dict):
        return type(value), [(types_of(key), types_of(member)) for key, member in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(types_of(member)) for member in value)
    if isinstance(value, Point):
        return type(value), types_of(vars(value))
    return type(value), repr(value)


def difference(read: Any, expected: Any) -> str:
    """Empty where both are equal, types included; NaN equals NaN."""
    one, other = types_of(read), types_of(expected)
    return "" if one == other else f"{one!r:.500}\n  instead of\n{other!r:.500}"


def plain(value: Any) -> Any:
    """A message as its attributes."""
    attributes = ("func_name", "func_args", "func_kwargs", "message_id", "date_create_message", "result", "exception_info")
    if type(value).__name__ != "PRPCMessage":
        return value
    return {name: getattr(value, name) for name in (*attributes, "date_done_message")}


def main(version: str, texts: str) -> int:
    import jsonpickle

    assert jsonpickle.__version__ == version, (jsonpickle.__version__, jsonpickle.__file__)
    # Point was written as a class of the test's module of this name.
    sys.modules["stock_reader"] = sys.modules[__name__]
    warnings.simplefilter("error")
    failed = 0
    for name, text, expected in pickle.loads(Path(texts).read_bytes()):
        try:
            found = difference(plain(jsonpickle.decode(text, keys=True)), expected)
        except Exception as exc:
            found = repr(exc)
        if found:
            failed += 1
            print(f"{name}: {text[:500]}\n  is read as\n{found}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
