"""Calls that are taken before there is a worker, outcomes that wait for others, results that are told at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prpc.brokers.base import QueueState, Reply
from prpc.protocol.facts import write_cancel
from prpc.server.ahead import MOST_AHEAD, SECONDS_AHEAD, Ahead
from prpc.server.lingering import MOST_GATHERED, Lingering
from prpc.workers.promise import Promise
from tests.unit.test_dispatcher import QUEUE, Wire, make_app, run, serving


class Taken:
    """What an Ahead did with its calls."""

    def __init__(self, slots: int = 2) -> None:
        self.started: list[str] = []
        self.back: list[str] = []
        self.gave_back = asyncio.Event()
        self.ahead: Ahead[str] = Ahead(slots, self.start, self.give_back)

    def start(self, call: str, waited: float) -> None:
        assert 0 <= waited < 60
        self.started.append(call)

    def give_back(self, call: str) -> None:
        self.back.append(call)
        self.gave_back.set()

    def learn(self, seconds: float) -> None:
        for _ in range(200):
            self.ahead.note(seconds)


@pytest.mark.parametrize(
    ("seconds", "slots", "room"), [(1.0, 2, 0), (0.02, 2, 0), (0.001, 2, 9), (0.001, 1, 4), (0.0, 2, MOST_AHEAD)]
)
def test_only_the_work_of_a_moment_is_taken_ahead(seconds: float, slots: int, room: int) -> None:
    async def scenario() -> None:
        taken = Taken(slots)
        assert taken.ahead.room == 0  # nothing is known yet
        taken.learn(seconds)
        assert taken.ahead.room == room <= max(slots * SECONDS_AHEAD / max(seconds, 1e-9), 0)

    run(scenario)


def test_calls_start_in_their_order() -> None:
    async def scenario() -> None:
        taken = Taken()
        taken.learn(0.0)
        for call in "abc":
            taken.ahead.wait(call)
        assert len(taken.ahead) == 3 and taken.ahead.room == MOST_AHEAD - 3
        taken.ahead.start_next()
        taken.ahead.start_next()
        assert taken.started == ["a", "b"]
        taken.ahead.clear()
        assert taken.back == ["c"] and not len(taken.ahead)
        taken.ahead.start_next()  # there is none
        assert taken.started == ["a", "b"]

    run(scenario)


def test_calls_that_wait_too_long_go_back_and_none_is_taken_ahead_after_that() -> None:
    async def scenario() -> None:
        taken = Taken()
        taken.learn(0.0)
        taken.ahead.wait("a")
        taken.ahead.start_next()
        taken.ahead.wait("b")
        await taken.gave_back.wait()
        assert taken.started == ["a"] and taken.back == ["b"] and taken.ahead.room == 0

    run(scenario)


# a server


class Shop:
    """Work that is short, or takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.ran: list[str] = []

    def work(self, how: str) -> str:
        self.ran.append(how)
        if how == "long":
            self.begun.set()
            assert self.go_on.wait(30)
        return how


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take calls ahead that are short by far, and hold them until the test has seen it, however busy this machine is."""
    monkeypatch.setattr("prpc.server.ahead.SECONDS_AHEAD", 0.9)
    monkeypatch.setattr("prpc.server.ahead.SECONDS_UNTIL_BACK", 0.5)


async def short_calls(wire: Wire) -> None:
    for _ in range(100):
        await wire.call("work", "short")


async def until(wire: Wire, wanted: Callable[[QueueState], bool]) -> None:
    while not wanted(await wire.broker.state(QUEUE)):
        await asyncio.sleep(0)


def test_a_server_takes_short_calls_ahead_and_lets_others_have_them_where_one_takes_long(eager: None) -> None:
    shop = Shop()

    async def scenario() -> None:
        async with serving(make_app(shop.work, worker="thread", max_number_worker=1)) as wire:
            await short_calls(wire)
            long = wire.send("work", "long")
            short = [wire.send("work", "short") for _ in range(5)]
            await until(wire, lambda state: state.taken == 6)
            assert shop.begun.wait(30)
            await until(wire, lambda state: state.taken == 1 and state.waiting == 5)
            shop.go_on.set()
            assert await wire.result(long) == "long"
            assert [await wire.result(message_id) for message_id in short] == ["short"] * 5

    run(scenario)


def test_a_call_that_is_cancelled_while_it_waits_for_a_worker_does_not_start(eager: None) -> None:
    shop = Shop()

    async def scenario() -> None:
        async with serving(make_app(shop.work, worker="thread", max_number_worker=1)) as wire:
            await short_calls(wire)
            long, unwanted = wire.send("work", "long"), wire.send("work", "unwanted")
            await until(wire, lambda state: state.taken == 2)
            await wire.broker.broadcast(QUEUE, write_cancel([unwanted]))
            assert shop.begun.wait(30)
            shop.go_on.set()
            assert await wire.result(long) == "long"
            assert "cancelled" in str(await wire.error(unwanted)) and "unwanted" not in shop.ran

    run(scenario)


# a server with a worker process


def work(how: str, folder: str) -> str:
    """As `Shop.work`, with files: what ran, and a pipe from which a long one reads its end."""
    with open(f"{folder}/ran", "a") as file:
        file.write(f"{how}\n")
    if how == "long":
        with open(f"{folder}/begun", "w"):  # until the test reads it
            pass
        with open(f"{folder}/go_on"):  # until the test writes it
            pass
    return how


@dataclass
class Bench:
    """A server with one worker process, which is known to have short calls, and the test's ends of the pipes."""

    wire: Wire
    folder: Path

    def send(self, how: str) -> UUID:
        return self.wire.send("work", how, str(self.folder))

    async def begun(self) -> None:
        """The worker runs a long call."""
        await asyncio.to_thread((self.folder / "begun").read_bytes)

    async def go_on(self) -> None:
        await asyncio.to_thread((self.folder / "go_on").write_bytes, b"")

    @property
    def ran(self) -> list[str]:
        return (self.folder / "ran").read_text().split()


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    for name in ("begun", "go_on"):
        os.mkfifo(folder / name)
    async with serving(make_app(work, worker="process", max_number_worker=1)) as wire:
        for _ in range(100):
            await wire.call("work", "short", str(folder))
        (folder / "ran").unlink()
        yield Bench(wire, folder)


def test_calls_behind_one_in_a_worker_process_go_back_where_it_takes_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as it:
            long, short = it.send("long"), [it.send("short") for _ in range(5)]
            await it.begun()
            await until(it.wire, lambda state: state.taken == 1 and state.waiting == 5)
            assert it.ran == ["long"]
            await it.go_on()
            assert await it.wire.result(long) == "long"
            assert [await it.wire.result(message_id) for message_id in short] == ["short"] * 5

    run(scenario)


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait behind another for as long as it takes."""
    monkeypatch.setattr("prpc.workers.process.SECONDS_BEHIND", 1000.0)


def test_a_call_that_is_cancelled_behind_another_does_not_start(tmp_path: Path, for_ever: None) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as it:
            long, unwanted, wanted = (it.send(how) for how in ("long", "unwanted", "wanted"))
            await it.begun()
            await until(it.wire, lambda state: state.taken == 3)
            await it.wire.broker.broadcast(QUEUE, write_cancel([unwanted]))
            assert "cancelled" in str(await it.wire.error(unwanted))
            await it.go_on()
            assert await it.wire.result(long) == "long" and await it.wire.result(wanted) == "wanted"
            assert it.ran == ["long", "wanted"]

    run(scenario)


def test_a_server_that_stops_gives_back_what_waits_in_its_workers(tmp_path: Path, for_ever: None) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as it:
            long = it.send("long")
            for _ in range(3):
                it.send("short")
            await it.begun()
            await until(it.wire, lambda state: state.taken == 4)
            stopping = asyncio.create_task(it.wire.app.stop(grace=30))
            await until(it.wire, lambda state: state.taken == 1 and state.waiting == 3)
            await it.go_on()
            assert await it.wire.result(long) == "long"
            await stopping
            assert it.ran == ["long"] and (await it.wire.broker.state(QUEUE)).waiting == 3

    run(scenario)


# outcomes that wait for others


def reply(number: int) -> Any:
    return Reply(None, b"%d" % number)  # type: ignore[arg-type]  # nobody looks at the id


def test_outcomes_are_gathered_while_more_are_about_to_come() -> None:
    async def scenario() -> None:
        settled: list[bytes] = []
        lingering = Lingering(lambda _, reply: settled.append(reply.body))
        lingering.add(None, reply(1), more=False)  # type: ignore[arg-type]
        assert settled == [b"1"]
        lingering.add(None, reply(2), more=True)  # type: ignore[arg-type]
        lingering.add(None, reply(3), more=True)  # type: ignore[arg-type]
        assert settled == [b"1"]
        lingering.add(None, reply(4), more=False)  # type: ignore[arg-type]
        assert settled == [b"1", b"2", b"3", b"4"]
        for number in range(MOST_GATHERED):
            lingering.add(None, reply(number), more=True)  # type: ignore[arg-type]
        assert len(settled) == 4 + MOST_GATHERED

    run(scenario)


def test_what_nothing_follows_on_goes_out_by_itself() -> None:
    async def scenario() -> None:
        settled = asyncio.Event()
        lingering = Lingering(lambda *_: settled.set())
        lingering.add(None, reply(1), more=True)  # type: ignore[arg-type]
        await settled.wait()
        lingering.flush()  # of nothing

    run(scenario)


# results that are told at once


def test_a_promise_tells_at_once_and_in_order() -> None:
    async def scenario() -> None:
        promise: Promise[int] = Promise()
        told: list[str] = []
        promise.add_done_callback(lambda done: told.append(f"first {done.result()}"))
        promise.add_done_callback(lambda _: told.append("second"))
        waiting = asyncio.ensure_future(promise)
        given_up = asyncio.ensure_future(promise)
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.InvalidStateError):
            promise.result()
        promise.set_result(7)
        assert told == ["first 7", "second"] and promise.done()
        assert await waiting == 7 and await promise == 7
        with pytest.raises(asyncio.InvalidStateError):
            promise.set_result(8)

    run(scenario)


def test_what_is_told_of_a_result_that_is_there_does_not_pile_up_on_the_stack() -> None:
    async def scenario() -> None:
        told: list[int] = []
        ended = asyncio.Event()

        def again(promise: Promise[int]) -> None:
            told.append(promise.result())
            if len(told) == 5_000:
                ended.set()
                return
            following: Promise[int] = Promise()
            following.set_result(len(told))
            following.add_done_callback(again)

        first: Promise[int] = Promise()
        first.set_result(0)
        first.add_done_callback(again)
        assert told == []
        await ended.wait()

    run(scenario)


def test_one_who_fails_keeps_nobody_from_being_told() -> None:
    async def scenario() -> None:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
        promise: Promise[int] = Promise()
        told: list[int] = []
        promise.add_done_callback(lambda _: 1 / 0)
        promise.add_done_callback(lambda done: told.append(done.result()))
        promise.set_result(1)
        assert told == [1] and isinstance(failed[0], ZeroDivisionError)

    run(scenario)
