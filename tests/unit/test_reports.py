"""What a server sends of what its calls say: the newest, now and then, and the last before the outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from prpc.brokers.awaiting import answered
from prpc.exceptions import BrokerUnavailableError
from prpc.progress import Progress
from prpc.protocol.call_table import CallTable
from prpc.protocol.facts import CallFacts
from prpc.protocol.mail import read_progress
from prpc.prpcmessage import PRPCMessage
from prpc.server.progress import Reports
from prpc.server.run import Run


@dataclass
class Entry:
    """Stands for a delivery, as far as a Run looks into it."""

    raw: bool = False
    age: float = 0.0
    attempt: int = 1


@dataclass
class Desk:
    """Runs, and the mail about them."""

    table: CallTable[Run] = field(default_factory=CallTable)
    sent: list[tuple[str, Progress]] = field(default_factory=list)
    error: BrokerUnavailableError | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, address: str, body: bytes, message_id: UUID) -> Awaitable[None]:
        if self.error is not None:
            raise self.error
        about, progress = read_progress(body)
        assert about == message_id
        self.sent.append((address, progress))
        self.news.set()
        return answered(None)

    def run(self, address: str | None = "here", message_id: UUID | None = None, *, raw: bool = False) -> Run:
        message = PRPCMessage("f", (), {}, message_id or uuid4(), datetime.now(UTC))
        return Run(Entry(raw), message, CallFacts(address))  # type: ignore[arg-type]

    def begin(self, **more: Any) -> Run:
        run = self.run(**more)
        self.table.begin(run.message.message_id, run)
        return run

    async def until(self, count: int) -> None:
        while len(self.sent) < count:
            self.news.clear()
            await self.news.wait()


def id_of(run: Run) -> str:
    return str(run.message.message_id)


def run_it(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_first_is_sent_at_once_then_the_newest_only() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin()
        for number in range(10_000):
            reports.report(id_of(run), Progress(number))
        assert desk.sent == []
        await asyncio.sleep(0)
        assert desk.sent == [("here", Progress(9999))]
        for number in range(10_000, 20_000):
            reports.report(id_of(run), Progress(number))
        reports.flush(run)
        assert desk.sent[1:] == [("here", Progress(19_999))]
        assert not reports.open

    run_it(scenario)


def test_what_came_too_soon_is_sent_by_itself() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin()
        reports.report(id_of(run), Progress(1))
        await asyncio.sleep(0)
        for number in range(2, 100):
            reports.report(id_of(run), Progress(number))
        await desk.until(2)
        assert [progress.done for _, progress in desk.sent] == [1, 99]
        reports.flush(run)
        assert len(desk.sent) == 2

    run_it(scenario)


def test_the_same_value_said_twice_is_said_twice_and_nothing_new_sends_nothing() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin()
        reports.report(id_of(run), Progress(1))
        await desk.until(1)
        reports.report(id_of(run), Progress(1))
        await desk.until(2)
        reports.flush(run)
        reports.flush(run)
        assert len(desk.sent) == 2

    run_it(scenario)


def test_threads_may_speak() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin()

        def speak() -> None:
            for number in range(1000):
                reports.report(id_of(run), Progress(number))

        threads = [threading.Thread(target=speak) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        reports.report(id_of(run), Progress(5000))
        reports.flush(run)
        assert desk.sent[-1] == ("here", Progress(5000))

    run_it(scenario)


def test_calls_are_told_apart() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, one, two = Reports(desk.post, desk.table), desk.begin(address="one"), desk.begin(address="two")
        reports.report(id_of(one), Progress(1))
        reports.report(id_of(two), Progress(2))
        reports.flush(two)
        assert desk.sent == [("two", Progress(2))]
        await desk.until(2)
        assert desk.sent[1] == ("one", Progress(1))
        reports.flush(one)

    run_it(scenario)


def test_everybody_who_waits_for_the_outcome_is_told() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin(address="one")
        message_id = run.message.message_id
        run.followers = [desk.run("two", message_id), desk.run(None, message_id), desk.run("three", message_id, raw=True)]
        reports.report(id_of(run), Progress(1))
        reports.flush(run)
        assert desk.sent == [("one", Progress(1)), ("two", Progress(1))]

    run_it(scenario)


def test_who_named_no_address_or_called_in_plain_json_is_not_told() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports = Reports(desk.post, desk.table)
        for run in (desk.begin(address=None), desk.begin(raw=True)):
            reports.report(id_of(run), Progress(1))
            await asyncio.sleep(0)
            reports.flush(run)
        assert desk.sent == []

    run_it(scenario)


def test_a_call_that_has_ended_says_nothing_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        desk = Desk()
        reports, run = Reports(desk.post, desk.table), desk.begin()
        desk.table.end(run.message.message_id)
        reports.flush(run)
        reports.report(id_of(run), Progress(1))
        reports.report(str(uuid4()), Progress(1))
        assert len(reports.open) == 2
        await asyncio.sleep(0)
        assert desk.sent == []
        assert not reports.open

    run_it(scenario)


def test_a_broker_that_is_away_does_no_harm() -> None:
    async def scenario() -> None:
        desk = Desk(error=BrokerUnavailableError("away"))
        reports, run = Reports(desk.post, desk.table), desk.begin()
        reports.report(id_of(run), Progress(1))
        await asyncio.sleep(0)
        desk.error = None
        reports.report(id_of(run), Progress(2))
        reports.flush(run)
        assert desk.sent == [("here", Progress(2))]

    run_it(scenario)


def test_an_abandoned_thread_may_speak_after_the_end_of_the_loop() -> None:
    found: list[Reports] = []

    async def scenario() -> None:
        desk = Desk()
        found.append(Reports(desk.post, desk.table))

    run_it(scenario)
    found[0].report(str(uuid4()), Progress(1))
