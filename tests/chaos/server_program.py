"""A server of the chaos runs: `python -m tests.chaos.server_program CONFIG`. Every execution is noted before it does anything."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from prpc import AppServer, current_call
from tests.chaos.journal import Journal

FOLDER, NAME = "CHAOS_FOLDER", "CHAOS_SERVER"


@cache
def journal(pid: int) -> Journal:
    return Journal(Path(os.environ[FOLDER]), f"{os.environ[NAME]}-{pid}")


@contextmanager
def execution() -> Iterator[str]:
    """Note the start and the end; the token belongs to this execution alone and is its result."""
    notes, token, message_id = journal(os.getpid()), uuid.uuid4().hex, current_call().message_id
    notes.write("start", id=message_id, server=f"{os.environ[NAME]}-{os.getpid()}", token=token)
    yield token
    notes.write("end", id=message_id, token=token)


def block(seconds: float) -> str:
    with execution() as token:
        time.sleep(seconds)
    return token


async def rest(seconds: float) -> str:
    with execution() as token:
        await asyncio.sleep(seconds)
    return token


def compute(seconds: float) -> str:
    """For process workers."""
    with execution() as token:
        time.sleep(seconds)
    return token


def make_app(config: dict[str, object]) -> AppServer:
    app = AppServer(**config["server"])  # type: ignore[arg-type]
    for idempotent in (False, True):
        mark = "_again" if idempotent else ""
        app.register_func(block, "thread", name=f"thread{mark}", idempotent=idempotent)
        app.register_func(rest, "async", name=f"async{mark}", idempotent=idempotent)
        if config["processes"]:
            app.register_func(compute, "process", name=f"process{mark}", idempotent=idempotent)
    return app


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    make_app(json.loads(sys.argv[1])).start()
