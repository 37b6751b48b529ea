"""The line of calls whose function runs often enough already: bounded in time, in order, and never idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from prpc.server import line as line_module
from prpc.server.line import Line


class Record:
    """What the line did with its calls."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.given_back: list[str] = []
        self.expired: set[str] = set()
        self.changed = asyncio.Event()
        self.line: Line[str] = Line(self.start, self.give_back)

    def start(self, call: str, waited: float) -> None:
        assert waited >= 0
        self.started.append(call)
        if call not in self.expired:
            self.line.begin("f")

    def give_back(self, call: str) -> None:
        self.given_back.append(call)
        self.changed.set()


def in_loop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_next_in_line_starts_when_one_ends() -> None:
    async def scenario() -> None:
        record = Record()
        line = record.line
        assert line.has_room("f", 1)
        line.begin("f")
        assert not line.has_room("f", 1)
        assert line.has_room("f", 2) and line.has_room("f", None) and line.has_room("g", 1)
        for call in ("one", "two"):
            line.wait("f", call)
        assert len(line) == 2
        line.end("f")
        assert (record.started, len(line)) == (["one"], 1)
        assert not line.has_room("f", 1)
        line.end("f")
        line.end("f")
        assert (record.started, len(line), record.given_back) == (["one", "two"], 0, [])
        assert line.has_room("f", 1)

    in_loop(scenario)


def test_a_call_that_ends_at_its_turn_leaves_the_room_to_the_next() -> None:
    async def scenario() -> None:
        record = Record()
        record.expired = {"one", "two"}
        record.line.begin("f")
        for call in ("one", "two", "three", "four"):
            record.line.wait("f", call)
        record.line.end("f")
        assert record.started == ["one", "two", "three"]
        record.expired = {"four"}
        record.line.end("f")
        assert (record.started, len(record.line)) == (["one", "two", "three", "four"], 0)

    in_loop(scenario)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SECONDS_IN_LINE", 0.01)

    async def scenario() -> None:
        record = Record()
        record.line.begin("f")
        record.line.wait("f", "one")
        await record.changed.wait()
        assert (record.given_back, record.started, len(record.line)) == (["one"], [], 0)

    in_loop(scenario)


def test_it_is_bounded_and_can_be_cleared() -> None:
    async def scenario() -> None:
        record = Record()
        calls = [str(number) for number in range(line_module.MOST_WAITING)]
        for call in calls:
            assert not record.line.is_full
            record.line.wait("f" if int(call) % 2 else "g", call)
        assert record.line.is_full
        record.line.clear()
        assert (sorted(record.given_back), len(record.line), record.line.is_full) == (sorted(calls), 0, False)
        record.line.clear()

    in_loop(scenario)
