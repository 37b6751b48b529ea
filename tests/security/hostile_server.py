"""The server under fire: functions that answer, functions that misbehave, and a record of what ran."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from prpc import AppServer, current_call
from prpc.settings import Settings

__all__ = ["MISBEHAVING", "MISBEHAVING_THERE", "GoodCall", "Watch", "make_server"]


@dataclass
class Watch:
    """What the functions did, seen from inside the server's process."""

    #: (function, message id) of every run in this process.
    ran: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Calls of `gate` that may come: when each of them runs, and when it may go on.
    gates: dict[str, tuple[asyncio.Event, asyncio.Event]] = field(default_factory=dict)
    #: Names of what must never run and did.
    canary: list[str] = field(default_factory=list)

    def noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, and each run of it in `ran`."""

        def note() -> None:
            self.ran[function.__name__, current_call().message_id] += 1

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def running(*args: Any, **kwargs: Any) -> Any:
                note()
                return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def running(*args: Any, **kwargs: Any) -> Any:
                note()
                return function(*args, **kwargs)

        return running


# Functions that answer.


async def summ(a: int | float, b: Any, z: Any = 0.5) -> Any:
    return a + b + z


async def echo(*values: Any, **named: Any) -> Any:
    return [list(values), named]


async def typed(n: int, day: date, *, name: str = "x") -> str:
    return f"{n} {day.isoformat()} {name}"


def join(parts: list[str], between: str = "-") -> str:
    return between.join(parts)


def headers() -> dict[str, str]:
    return dict(current_call().headers)


async def make(kind: str) -> str:
    return kind


async def boom(text: str) -> None:
    raise ValueError(text)


def power(base: int, exponent: int) -> int:
    """For the process workers."""
    return base**exponent


def headers_there() -> dict[str, str]:
    """For the process workers: what crossed the pipe to them."""
    return dict(current_call().headers)


# Functions that misbehave: the first word of each is what it does.


class Sly:
    """Raises when anybody looks into it, also what no `except Exception` catches."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __getstate__(self) -> Any:
        raise self.error("in __getstate__")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self.error("in __reduce_ex__")

    def __repr__(self) -> str:
        raise self.error("in __repr__")


class Bomb:
    """Goes off where it is unpickled: in the server, when a process worker gave it."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return explode, (self.error,)


def explode(error: Callable[[], BaseException]) -> None:
    raise error()


class SlyList(list[Any]):
    def __iter__(self) -> Any:
        raise KeyboardInterrupt


class SlyDict(dict[Any, Any]):
    def items(self) -> Any:
        raise asyncio.CancelledError


class SlyName(type):
    def __getattribute__(cls, name: str) -> Any:
        raise SystemExit(5)


class Nameless(metaclass=SlyName):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__


class Unaskable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5_000):
        value = [value]
    return value


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _chain() -> Exception:
    first = error = ValueError("first")
    for number in range(3_000):
        error.__cause__ = KeyError(number)
        error = error.__cause__  # type: ignore[assignment]
    error.__cause__ = first
    return first


RESULTS: dict[str, Callable[[], Any]] = {
    "object": object,
    "lock": threading.Lock,
    "class": lambda: Sly,
    "function": lambda: print,
    "module": lambda: os,
    "generator": lambda: (n for n in (1, 2)),
    "sly exit": lambda: Sly(SystemExit),
    "sly interrupt": lambda: Sly(KeyboardInterrupt),
    "sly cancel": lambda: [Sly(asyncio.CancelledError)],
    "sly generator exit": lambda: {"a": Sly(GeneratorExit)},
    "bomb exit": lambda: Bomb(SystemExit),
    "bomb interrupt": lambda: Bomb(KeyboardInterrupt),
    "bomb unprintable": lambda: Bomb(Unprintable),
    "sly list": lambda: SlyList([1]),
    "sly dict": lambda: SlyDict(a=1),
    "sly name": lambda: object.__new__(Nameless),
    "sly key": lambda: {Sly(KeyboardInterrupt): 1},
    "deep": _deep,
    "cycle": _cycle,
    "surrogate": lambda: "\ud800",
    "surrogate key": lambda: {"\udfff": 1},
    "huge number": lambda: 10**6000,
    "large": lambda: "x" * 500_000,
    "many": lambda: list(range(30_000)),
    "nan": lambda: float("nan"),
    "exception": lambda: Unprintable(),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "exit": lambda: SystemExit(3),
    "exit text": lambda: SystemExit("x" * 1000),
    "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
    "generator exit": GeneratorExit,
    "stop": lambda: StopIteration(1),
    "async stop": StopAsyncIteration,
    "unprintable": Unprintable,
    "unaskable": Unaskable,
    "long": lambda: ValueError("m" * 300_000),
    "surrogate": lambda: ValueError("\ud800"),
    "chain": _chain,
    "group": lambda: BaseExceptionGroup("g", [Unprintable(), SystemExit(1), ExceptionGroup("h", [Unaskable()])]),
    "base": lambda: BaseException("base"),
    "recursion": lambda: RecursionError("r"),
    "memory": MemoryError,
    "sly argument": lambda: ValueError(Sly(SystemExit)),
    "bad bytes": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
}


async def give(what: str) -> Any:
    return RESULTS[what]()


def give_in_thread(what: str) -> Any:
    return RESULTS[what]()


async def fail(how: str) -> None:
    raise ERRORS[how]()


def fail_in_thread(how: str) -> None:
    raise ERRORS[how]()


def give_there(what: str) -> Any:
    """For the process workers."""
    return RESULTS[what]()


def fail_there(how: str) -> None:
    """For the process workers."""
    raise ERRORS[how]()


#: Function -> what it may be asked to do.
MISBEHAVING = {
    "give": tuple(RESULTS),
    "give_in_thread": tuple(RESULTS),
    "fail": tuple(ERRORS),
    "fail_in_thread": tuple(ERRORS),
}
MISBEHAVING_THERE = {"give_there": tuple(RESULTS), "fail_there": tuple(ERRORS)}


def make_server(settings: Settings, watch: Watch, *, processes: bool = True) -> AppServer:
    """A server with functions of every kind of worker."""
    given = {
        name: getattr(settings, name) for name in ("max_message_bytes", "dead_letters_kept", "secret_key", "duplicate_window")
    }
    app = AppServer(settings.type_broker, settings.url_broker, "async", 8, name_queue=settings.queue_name, **given)

    async def gate(token: str) -> str:
        entered, opened = watch.gates.pop(token)
        entered.set()
        await opened.wait()
        return token

    async def canary() -> None:
        watch.canary.append("canary")

    for function in (summ, echo, typed, make, boom, give, fail, gate, canary):
        app.register_func(watch.noted(function), "async")
    app.register_func(watch.noted(boom), "async", name="boom_twice", idempotent=True)
    for plain in (join, headers, give_in_thread, fail_in_thread):
        app.register_func(watch.noted(plain), "thread")
    if processes:
        for there in (power, headers_there, give_there, fail_there):
            app.register_func(there, "process")
    return app


class GoodCall:
    """A call with the one answer that it must get."""

    def __init__(self, rng: random.Random, *, processes: bool) -> None:
        n, text = rng.randrange(1000), f"good {rng.getrandbits(32):x} \u2603"
        choices: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
            ("summ", (n, 1), {"z": 0.5}, n + 1.5),
            ("echo", (n, [text, None]), {"k": {"a": (1, b"\x00\xff")}}, [[n, [text, None]], {"k": {"a": (1, b"\x00\xff")}}]),
            ("typed", (n, date(2026, 11, 20)), {"name": text}, f"{n} 2026-11-20 {text}"),
            ("join", ([text, str(n)],), {}, f"{text}-{n}"),
        ]
        if processes:
            choices.append(("power", (n, 7), {}, n**7))
        self.name, self.args, self.kwargs, self.expected = rng.choice(choices)
