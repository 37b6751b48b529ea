"""Broadcast functions in one process, over the memory broker: what servers do with the events that they hear."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from event_jobs import note_in_process

from prpc.app_client import AsyncClient
from prpc.app_server import AppServer
from prpc.brokers.memory import MemoryBroker
from prpc.call_context import current_call
from prpc.codec import Codec
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, EncodeError, RegistrationError
from prpc.protocol.facts import CallFacts, Event, read_control, write_event
from prpc.prpcmessage import PRPCMessage
from prpc.server import events as events_module
from prpc.server.events import workers_for_events
from prpc.server.middleware import IncomingCall, Proceed
from prpc.workers.base import WorkerKind

QUEUE = "q"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def until(check: Callable[[], bool]) -> None:
    """A state that other tasks bring about."""
    while not check():
        await asyncio.sleep(0.001)


def make_app(*, slots: int = 4, worker: str = "async", **settings: Any) -> AppServer:
    return AppServer("memory", f"memory://{uuid.uuid4().hex}", worker, slots, name_queue=QUEUE, **settings)


def joined(app: AppServer, **settings: Any) -> AppServer:
    """One more server of the same queue."""
    return AppServer("memory", app.settings.url_broker, "async", name_queue=QUEUE, **settings)


@asynccontextmanager
async def serving(*apps: AppServer, grace: float = 5) -> AsyncIterator[tuple[AsyncClient, MemoryBroker]]:
    servers = [asyncio.create_task(app.serve()) for app in apps]
    broker = MemoryBroker(apps[0].settings)
    await broker.connect()
    for app in apps:
        await app.ready
    try:
        async with AsyncClient("memory", apps[0].settings.url_broker, QUEUE) as client:
            yield client, broker
    finally:
        for app, server in zip(apps, servers, strict=True):
            await app.stop(grace)
            await server
        await broker.close()


def event_of(broker: MemoryBroker, name: str, *args: Any, ago: float = 0.0, **facts: Any) -> Event:
    message = PRPCMessage(name, args, {}, uuid.uuid4(), datetime.now(UTC))
    return Event(Codec().write_call(message), broker.now() - ago, CallFacts(**facts))


def tell(broker: MemoryBroker, *events: Event) -> None:
    for event in events:
        broker.broadcast(QUEUE, write_event(event))


class Ear:
    """A broadcast function's runs: it goes on when it is let."""

    def __init__(self, *, opened: bool = True) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.running = self.most = 0
        self.open = asyncio.Event()
        if opened:
            self.open.set()

    async def __call__(self, what: Any) -> None:
        self.began.append(what)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        self.ended.append(what)


@dataclass
class Trap:
    x: int

    def __post_init__(self) -> None:
        raise KeyboardInterrupt


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level and record.name == "prpc.server"]


class TestWorkers:
    def test_threads_and_processes_run_events(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            apps, threads = [make_app(slots=1)], []
            apps.append(joined(apps[0]))
            for app in apps:

                def note(what: str) -> None:
                    threads.append((threading.current_thread().name, what, current_call().headers["by"]))

                app.register_func(note, "thread", broadcast=True)
                app.register_func(note_in_process, "process", broadcast=True)
            async with serving(*apps) as (client, _):
                caller = client.options(headers={"by": "me"})
                await caller.call("note", "x")
                task = caller.call("note_in_process", str(tmp_path), "y")
                await task
                await until(lambda: len(threads) == len(list(tmp_path.iterdir())) == 2)
            assert {(name.startswith("prpc-thread"), what, by) for name, what, by in threads} == {(True, "x", "me")}
            told = [file.name.split(" ", 1) for file in tmp_path.iterdir()]
            assert len({pid for pid, _ in told}) == 2
            assert {text for _, text in told} == {f"{task.message.message_id} me y"}

        run(scenario)

    def test_events_and_calls_do_not_wait_for_each_other(self) -> None:
        async def scenario() -> None:
            app, ear, gate = make_app(slots=2), Ear(opened=False), asyncio.Event()
            app.register_func(ear, name="ear", broadcast=True)

            @app.function()
            async def hold() -> None:
                await gate.wait()

            async with serving(app) as (client, broker):
                held = [client.call("hold") for _ in range(2)]
                # Every slot for calls is taken: no call would be published.
                tell(broker, *(event_of(broker, "ear", number) for number in range(5)))
                await until(lambda: ear.began == [0, 1])
                gate.set()
                await asyncio.gather(*held)
                assert await client.call("hold") is None  # no slot for calls is held by the events
                ear.open.set()
                await until(lambda: ear.ended == [0, 1, 2, 3, 4])
                assert ear.began == [0, 1, 2, 3, 4] and ear.most == 2

        run(scenario)

    def test_a_limited_function_runs_one_after_another_and_holds_up_no_other(self) -> None:
        async def scenario() -> None:
            app, slow, other = make_app(slots=4), Ear(opened=False), Ear()
            app.register_func(slow, name="slow", broadcast=True, max_concurrency=1)
            app.register_func(other, name="other", broadcast=True)
            async with serving(app) as (client, _):
                for number in range(10):
                    await client.call("slow", number)
                await client.call("other", "x")
                await until(lambda: other.ended == ["x"])
                assert slow.began == [0]
                slow.open.set()
                await until(lambda: len(slow.ended) == 10)
            assert slow.began == list(range(10)) and slow.most == 1

        run(scenario)

    def test_how_many_workers_there_are(self) -> None:
        assert workers_for_events(WorkerKind.ASYNC, 100) == 100
        assert workers_for_events(WorkerKind.THREAD, 100) == workers_for_events(WorkerKind.PROCESS, 100) == 4
        assert workers_for_events(WorkerKind.THREAD, 2) == 2

    def test_a_function_that_comes_too_late(self) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (client, _):
                with pytest.raises(RegistrationError, match=r"'late' comes too late: .* any broadcast function of type 'thread'"):
                    app.register_func(print, "thread", name="late", broadcast=True)
                with pytest.raises(RegistrationError, match=r"'late' comes too late: .* any function of type 'async'"):
                    app.register_func(ear, name="late")
                app.register_func(ear, name="another", broadcast=True)
                await client.call("another", 1)
                await until(lambda: ear.ended == [1])

        run(scenario)


class TestHearing:
    def test_an_event_that_is_heard_twice_runs_once(self) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (client, broker):
                spy = await broker.listen(QUEUE)
                await client.call("ear", 1)
                (body,) = await spy.receive()
                for _ in range(3):
                    broker.broadcast(QUEUE, body)
                tell(broker, event_of(broker, "ear", 2))
                await until(lambda: ear.ended == [1, 2])

        run(scenario)

    def test_other_servers_functions_are_none_of_ours(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "prpc.server")

        async def scenario() -> None:
            app, ear, plain = make_app(), Ear(), Ear()
            without, otherwise = joined(app), joined(app)
            app.register_func(ear, name="ear", broadcast=True)
            otherwise.register_func(plain, name="ear")
            without.register_func(plain, name="plain")
            async with serving(app, without, otherwise) as (_, broker):
                tell(broker, event_of(broker, "ear", 1), event_of(broker, "no\nsuch" + "x" * 1000, 2))
                said = "which is no broadcast function of this server"
                await until(lambda: sum(said in line for line in lines(caplog, logging.DEBUG)) == 5)
                await until(lambda: ear.ended == [1])
                assert plain.began == []
            assert all(len(line) < 400 and line.isprintable() for line in lines(caplog, logging.DEBUG) if said in line)

        run(scenario)

    @pytest.mark.parametrize("ago", [3600.0, -3600.0])
    def test_what_was_sent_long_ago_is_not_run(self, ago: float, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (_, broker):
                tell(broker, event_of(broker, "ear", 1, ago=ago), event_of(broker, "ear", 2))
                await until(lambda: ear.ended == [2])
            (line,) = lines(caplog, logging.WARNING)
            assert line.startswith("a control message was refused: an event of ear was sent")

        run(scenario)

    def test_what_cannot_be_read_is_refused_and_harms_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (_, broker):
                good = event_of(broker, "ear", 1)
                for call in (b"", b"{}", b"[" * 5000, good.call[:-1], good.call.replace(b"uuid.UUID", b"os.system")):
                    tell(broker, replace(good, call=call), replace(good, call=call, raw=True))
                tell(broker, good)
                await until(lambda: ear.ended == [1])
            assert sum("a control message was refused" in line for line in lines(caplog, logging.WARNING)) == 10

        run(scenario)

    def test_too_many_events_drop_the_oldest_with_one_warning(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events_module, "MOST_WAITING", 5)
        caplog.set_level(logging.INFO, "prpc.server")

        async def scenario() -> None:
            app, ear, other = make_app(slots=1), Ear(opened=False), Ear(opened=False)
            app.register_func(ear, name="ear", broadcast=True)
            app.register_func(other, name="other", broadcast=True)
            async with serving(app) as (_, broker):
                tell(broker, *(event_of(broker, ("ear", "other")[number % 2], number) for number in range(20)))
                await until(lambda: ear.began == [0])
                ear.open.set()
                other.open.set()
                await until(lambda: len(ear.ended + other.ended) == 6)
            assert sorted(ear.ended + other.ended) == [0, 15, 16, 17, 18, 19]
            assert lines(caplog, logging.WARNING) == [
                "events come faster than they are run: beyond 5 that wait, the oldest are dropped"
            ]
            assert "14 events were dropped" in lines(caplog, logging.INFO)

        run(scenario)

    def test_waiting_events_have_a_bound_in_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events_module, "MOST_BYTES", 250_000)

        async def scenario() -> None:
            app, ear = make_app(slots=1), Ear(opened=False)
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (_, broker):
                tell(broker, *(event_of(broker, "ear", str(number) * 100_000) for number in range(6)))
                ear.open.set()
                await until(lambda: len(ear.ended) == 3)
            assert [what[0] for what in ear.ended] == ["0", "4", "5"]

        run(scenario)


class TestRuns:
    def test_a_failure_is_told_to_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "prpc.server")

        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)

            @app.function(broadcast=True)
            async def fail() -> None:
                raise KeyError("lost")

            @app.function(broadcast=True)
            async def leave() -> None:
                raise SystemExit(3)

            @app.function(broadcast=True)
            async def numbers(number: int) -> None: ...

            async with serving(app) as (client, broker):
                task = client.call("fail")
                assert await task is None
                await client.call("leave")
                tell(broker, event_of(broker, "numbers", "x"))
                await client.call("ear", 1)
                await until(lambda: ear.ended == [1])
            warned = lines(caplog, logging.WARNING)
            assert warned[0].startswith(f"{task.message.message_id} fail() builtins.KeyError: queued")
            assert " leave() builtins.SystemExit: " in warned[1]
            assert " numbers() prpc.exceptions.BadArgumentsError: " in warned[2]
            assert len(warned) == 3
            tracebacks = [line for line in lines(caplog, logging.DEBUG) if 'raise KeyError("lost")' in line]
            assert tracebacks[0].startswith(str(task.message.message_id))

        run(scenario)

    def test_validators_that_raise_harm_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)

            @app.function(broadcast=True)
            async def spring(trap: Trap) -> None: ...

            async with serving(app) as (_, broker):
                tell(broker, event_of(broker, "spring", {"x": 1}), event_of(broker, "ear", 1))
                await until(lambda: ear.ended == [1])
            assert " spring() builtins.KeyboardInterrupt: " in lines(caplog, logging.WARNING)[0]

        run(scenario)

    def test_limits_end_a_run(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            app, ear, slow = make_app(), Ear(), Ear(opened=False)
            app.register_func(ear, name="ear", broadcast=True)
            app.register_func(slow, name="slow", broadcast=True, timeout=0.05)
            async with serving(app) as (client, broker):
                await client.call("slow", 1)
                tell(broker, event_of(broker, "slow", 2, timeout=0.01))
                tell(broker, event_of(broker, "ear", 3, timeout=0.5, ago=0.6))
                await until(lambda: len(lines(caplog, logging.WARNING)) == 3)
            assert sorted(slow.began) == [1, 2] and slow.ended == ear.began == [] and slow.running == 0
            outcomes = [line.split()[2] for line in lines(caplog, logging.WARNING)]
            assert sorted(outcomes) == ["prpc.exceptions.DeadlineExceededError:"] + ["prpc.exceptions.WorkerTimeoutError:"] * 2

        run(scenario)

    def test_the_deadline_counts_from_the_call(self) -> None:
        async def scenario() -> None:
            app, left = make_app(), []

            @app.function(broadcast=True)
            async def look() -> None:
                left.append(current_call().remaining())

            async with serving(app) as (client, broker):
                await client.options(timeout=20).call("look")
                tell(broker, event_of(broker, "look", timeout=20.0, ago=5))
                await until(lambda: len(left) == 2)
            assert 0 < left[0] <= 20 and 0 < left[1] < 16

        run(scenario)

    def test_middleware_surrounds_the_call_and_each_run(self) -> None:
        seen: list[tuple[str, bool]] = []

        async def guard(call: IncomingCall, proceed: Proceed) -> Any:
            seen.append((call.function, call.event))
            if call.context.headers.get("token") != "x":
                raise PermissionError("who are you?")
            return await proceed(replace(call, args=(f"{call.args[0]}!",)) if call.event else call)

        async def scenario() -> None:
            app, ear = make_app(middleware=[guard]), Ear()
            other = joined(app, middleware=[guard])
            for each in (app, other):
                each.register_func(ear, name="ear", broadcast=True)
            async with serving(app, other) as (client, _):
                with pytest.raises(PermissionError, match="who are you"):
                    await client.call("ear", 1)
                assert await client.options(headers={"token": "x"}).call("ear", 2) is None
                await until(lambda: ear.ended == ["2!", "2!"])
            assert sorted(seen) == [("ear", False)] * 2 + [("ear", True)] * 2

        run(scenario)

    def test_a_stopping_server_waits_for_events_that_run(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            app, ear = make_app(slots=2), Ear(opened=False)
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (_, broker):
                tell(broker, *(event_of(broker, "ear", number) for number in range(4)))
                await until(lambda: ear.began == [0, 1])
                stopping = asyncio.create_task(app.stop(grace=20))
                await until(lambda: bool(lines(caplog, logging.WARNING)))
                tell(broker, event_of(broker, "ear", 5))
                await asyncio.sleep(0)
                assert not stopping.done()
                ear.open.set()
                await stopping
            assert ear.began == ear.ended == [0, 1]
            assert lines(caplog, logging.WARNING) == ["2 events that were heard are not run: the server stops"]

        run(scenario)

    def test_what_runs_longer_than_the_grace_is_ended(self) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear(opened=False)
            app.register_func(ear, name="ear", broadcast=True)
            service = app._new_service(app.settings)
            server = asyncio.create_task(app._serve(service, lambda: None))
            await app.ready
            async with AsyncClient("memory", app.settings.url_broker, QUEUE) as client:
                await client.call("ear", 1)
                await until(lambda: ear.began == [1])
                await app.stop(grace=0.01)
                await server
            assert ear.running == 0 and ear.ended == []
            assert service.cut_short == 1

        run(scenario)


class TestPublishing:
    def test_a_caller_of_before_is_not_bound_by_annotations(self) -> None:
        async def scenario() -> None:
            app, got = make_app(), []

            @app.function(broadcast=True)
            async def note(number: int) -> None:
                got.append(number)

            async with serving(app) as (_, broker):
                message = PRPCMessage("note", ("x",), {}, uuid.uuid4(), datetime.now(UTC))
                broker.put_raw(QUEUE, Codec().write_call(message), {}, raw=False)
                await until(lambda: got == ["x"])

        run(scenario)

    def test_the_event_is_what_the_caller_sent(self) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (client, broker):
                spy = await broker.listen(QUEUE)
                task = client.options(timeout=9, headers={"a": "b"}).call("ear", (1, 2))
                await task
                (body,) = await spy.receive()
                assert set(json.loads(body)["event"]) == {"message", "sent_ms", "timeout_ms", "headers"}
                event = read_control(body).event
                assert event is not None and event.facts.headers == {"a": "b"} and 0 < (event.facts.timeout or 0) <= 9
                assert Codec().read_call(event.call) == replace(task.message, date_done_message=None)

        run(scenario)

    def test_a_call_that_is_too_large_is_refused(self) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (client, _):
                with pytest.raises(EncodeError, match="at most 1000000 go to every server"):
                    await client.call("ear", "x" * 1_000_000)
                await client.call("ear", "small")
                await until(lambda: ear.ended == ["small"])

        run(scenario)

    def test_a_broker_that_does_not_take_it_is_told_to_the_caller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            app, ear = make_app(), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            async with serving(app) as (client, _):

                async def away(self: MemoryBroker, queue: str, body: bytes) -> None:
                    raise BrokerUnavailableError("the broker is away", url="memory://x")

                with monkeypatch.context() as patch:
                    patch.setattr(MemoryBroker, "broadcast", away)
                    with pytest.raises(BrokerUnavailableError, match="the broker is away"):
                        await client.call("ear", 1)
                assert await client.call("ear", 2) is None
                await until(lambda: ear.ended == [2])

        run(scenario)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_call_is_cancelled_while_it_is_published(self, monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
        async def pass_on(call: IncomingCall, proceed: Proceed) -> Any:
            return await proceed(call)

        async def scenario() -> None:
            app, ear = make_app(middleware=[pass_on] if wrapped else []), Ear()
            app.register_func(ear, name="ear", broadcast=True)
            sending, gate, send = asyncio.Event(), asyncio.Event(), MemoryBroker.broadcast

            async def slowly(self: MemoryBroker, queue: str, body: bytes) -> None:
                if read_control(body).event is not None:
                    sending.set()
                    await gate.wait()
                await send(self, queue, body)

            monkeypatch.setattr(MemoryBroker, "broadcast", slowly)
            async with serving(app) as (client, _):
                task = client.call("ear", 1)
                await sending.wait()
                task.cancel()
                with pytest.raises(CallCancelledError):
                    await task
                gate.set()
                await client.call("ear", 2)
                await until(lambda: sorted(ear.ended) == [1, 2])  # what was on its way to the broker cannot be taken back

        run(scenario)

    def test_stubs_and_descriptions_say_so(self) -> None:
        async def scenario() -> None:
            app = make_app()

            @app.function(broadcast=True)
            async def told(): ...  # type: ignore[no-untyped-def]

            @app.function
            async def plain() -> None: ...

            async with serving(app) as (client, _):
                descriptions: Sequence[dict[str, Any]] = await client.get_function_server()
            found = {each["func_name"]: each for each in descriptions}
            assert found["told"]["broadcast"] is True and found["told"]["returns"] == "None"
            assert all("broadcast" not in found[name] for name in ("plain", "ping"))

        run(scenario)
