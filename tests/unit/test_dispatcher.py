"""From an entry in the queue to its settlement, over the memory broker: what each call ends in."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from prpc.app_server import AppServer
from prpc.brokers.base import DeadLetter, Mailbox, Outgoing
from prpc.brokers.memory import MemoryBroker, _Delivery
from prpc.call_context import current_call
from prpc.codec import Codec, ReadReply
from prpc.exceptions import DeadlineExceededError, EncodeError, WorkerLostError
from prpc.failure import restore
from prpc.names import QueueNames
from prpc.protocol.facts import CallFacts, write_cancel
from prpc.prpcmessage import PRPCMessage
from prpc.server.middleware import IncomingCall, Proceed
from prpc.testing import ManualClock
from prpc.workers.coroutine import CoroutinePool
from prpc.workers.slots import SlotExecution

QUEUE = "task_prpc"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


@dataclass
class Wire:
    """The queue's other end: publishes entries and reads what becomes of them."""

    broker: MemoryBroker
    mailbox: Mailbox
    app: AppServer
    codec: Codec = field(default_factory=Codec)
    _arrived: dict[UUID, list[ReadReply]] = field(default_factory=dict)

    def send(
        self,
        name: str,
        *args: Any,
        message_id: UUID | None = None,
        facts: CallFacts | None = None,
        fields: dict[str, str] | None = None,
        address: bool = True,
        **kwargs: Any,
    ) -> UUID:
        message = PRPCMessage(name, args, kwargs, message_id or uuid4(), datetime.now(UTC))
        facts = facts or CallFacts(reply_to=self.mailbox.address if address else None)
        all_fields = {**facts.to_fields(), **(fields or {})}
        body = self.codec.write_call(message)
        self.broker.publish(QUEUE, Outgoing(message.message_id, body, all_fields, facts.reply_to))
        return message.message_id

    def facts(self, **given: Any) -> CallFacts:
        return CallFacts(reply_to=self.mailbox.address, **given)

    async def reply(self, message_id: UUID) -> ReadReply:
        while not self._arrived.get(message_id):
            for body in (await self.mailbox.receive()).bodies:
                reply = self.codec.read_reply(body)
                self._arrived.setdefault(reply.message_id, []).append(reply)
        return self._arrived[message_id].pop(0)

    async def result(self, message_id: UUID) -> Any:
        reply = await self.reply(message_id)
        assert reply.failure is None, reply.failure
        return reply.result

    async def error(self, message_id: UUID) -> BaseException:
        reply = await self.reply(message_id)
        assert reply.failure is not None
        return restore(reply.failure)

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self.result(self.send(name, *args, **kwargs))

    async def failing_call(self, name: str, *args: Any, **kwargs: Any) -> BaseException:
        return await self.error(self.send(name, *args, **kwargs))

    def dead_letters(self) -> Sequence[DeadLetter]:
        return self.broker._space.dead_letters(QUEUE)

    async def kept(self, message_id: UUID, *, raw: bool = False) -> bytes:
        """The reply's kept text."""
        names = QueueNames(QUEUE)
        key = names.raw_feedback(message_id) if raw else names.feedback(message_id)
        while True:
            found = self.broker._space.collect([(message_id, key)])
            if found:
                return found[message_id]
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(app: AppServer) -> AsyncIterator[Wire]:
    broker = MemoryBroker(app.settings)
    await broker.connect()
    mailbox = await broker.open_mailbox(QUEUE)
    server = asyncio.create_task(app.serve())
    await app.ready
    try:
        yield Wire(broker, mailbox, app)
    finally:
        await app.stop(grace=5)
        await server
        await broker.close()


def make_app(*functions: Callable[..., Any], worker: str = "async", **settings: Any) -> AppServer:
    app = AppServer("memory", f"memory://{uuid4().hex}", worker, name_queue=QUEUE, **settings)
    app.register_funcs(*functions)
    return app


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Trap:
    x: int

    def __post_init__(self) -> None:
        raise KeyboardInterrupt


async def summ(a: int | float, b: Any, z: float = 0.5) -> Any:
    return a + b + z


async def echo(x: Any) -> Any:
    return x


class TestOutcomes:
    def test_result_exception_and_conversion(self) -> None:
        async def move(p: Point, by: int = 1) -> Point:
            assert isinstance(p, Point)
            return Point(p.x + by, p.y)

        async def boom(text: str) -> None:
            raise KeyError(text)

        async def scenario() -> None:
            async with serving(make_app(summ, move, boom)) as wire:
                assert await wire.call("summ", 1, b=2) == 3.5
                assert await wire.call("move", {"x": 1}, by=2) == {"x": 3, "y": 0.0}
                error = await wire.failing_call("boom", "lost")
                assert isinstance(error, KeyError)

        run(scenario)

    def test_threads_take_plain_functions(self) -> None:
        def where(x: int) -> str:
            return f"{threading.current_thread().name} {x}"

        async def scenario() -> None:
            async with serving(make_app(where, worker="thread")) as wire:
                assert (await wire.call("where", 5)).endswith(" 5")

        run(scenario)

    def test_the_server_outlives_whatever_the_arguments_raise(self) -> None:
        async def spring(trap: Trap) -> None: ...

        async def scenario() -> None:
            async with serving(make_app(summ, spring)) as wire:
                error = await wire.failing_call("spring", {"x": 1})
                assert type(error).__name__ == "RemoteException"
                assert [letter.reason for letter in wire.dead_letters()] == ["internal error"]
                assert await wire.call("summ", 1, b=2) == 3.5

        run(scenario)

    def test_the_server_outlives_whatever_a_function_raises(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        async def leave() -> None:
            raise SystemExit(3)

        async def interrupt() -> None:
            raise KeyboardInterrupt

        async def mumble() -> None:
            raise Unprintable

        async def scenario() -> None:
            async with serving(make_app(leave, interrupt, mumble, echo)) as wire:
                for name in ("leave", "interrupt", "mumble"):
                    await wire.failing_call(name)
                assert await wire.call("echo", 1) == 1

        run(scenario)

    def test_an_unknown_function_and_bad_arguments(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(summ)) as wire:
                error = await wire.failing_call("sum")
                assert "func name 'sum' not found in server" in str(error)
                assert getattr(error, "nearest", None) == ["summ"]
                error = await wire.failing_call("summ", 1)
                assert str(error) == "summ() misses the argument 'b'"
                assert getattr(error, "parameter", None) == "b"

        run(scenario)

    def test_a_stale_stub_is_named_only_where_the_arguments_do_not_fit(self) -> None:
        async def scenario() -> None:
            app = make_app(summ)
            async with serving(app) as wire:
                assert await wire.result(wire.send("summ", 1, 2, facts=wire.facts(schema="0" * 16))) == 3.5
                error = await wire.error(wire.send("summ", 1, facts=wire.facts(schema="0" * 16)))
                assert type(error).__name__ == "StaleStubError"
                assert "python -m prpc.create_server_func" in str(error)
                error = await wire.error(wire.send("gone", facts=wire.facts(schema="0" * 16)))
                assert type(error).__name__ == "FunctionNotFoundError"
                assert "python -m prpc.create_server_func" in str(error)

        run(scenario)

    def test_a_result_that_cannot_be_written_is_a_failure(self) -> None:
        class Rude:
            def __getstate__(self) -> Any:
                raise RuntimeError("no")

        async def generator(box: list[Any]) -> Any:
            box.append(threading.Lock())  # spoils the argument, too
            return (x for x in box)

        async def rude() -> Any:
            return Rude()

        async def scenario() -> None:
            async with serving(make_app(generator, rude, echo)) as wire:
                error = await wire.failing_call("generator", [])
                assert isinstance(error, EncodeError)
                assert "result of generator()" in str(error)
                without_address = wire.send("generator", [], address=False)
                assert b"exception_info" in await wire.kept(without_address)
                assert isinstance(await wire.failing_call("rude"), EncodeError)
                assert await wire.call("echo", 1) == 1

        run(scenario)

    def test_a_caller_without_address_finds_its_arguments_in_the_kept_reply(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(summ)) as wire:
                text = json.loads(await wire.kept(wire.send("summ", 1, 2, address=False)))
                assert text["func_args"] == {"py/tuple": [1, 2]}
                assert text["result"] == 3.5

        run(scenario)

    def test_annotations_do_not_bind_a_caller_of_before(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(summ)) as wire:
                assert "must be int or float" in str(await wire.failing_call("summ", [1], [2], [3]))
                text = json.loads(await wire.kept(wire.send("summ", [1], [2], [3], address=False)))
                assert text["result"] == [1, 2, 3]
                text = json.loads(await wire.kept(wire.send("summ", [1], address=False)))
                assert text["exception_info"] == "summ() misses the argument 'b'"

        run(scenario)

    def test_raw_calls_are_answered_in_plain_json(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(summ)) as wire:
                ids = [uuid4(), uuid4()]
                for message_id, args in zip(ids, ([1, 2], [1]), strict=True):
                    call = {"func_name": "summ", "func_args": args, "func_kwargs": {}, "message_id": str(message_id)}
                    wire.broker.put_raw(QUEUE, json.dumps(call).encode())
                good, bad = [json.loads(await wire.kept(i, raw=True)) for i in ids]
                assert (good["result"], good["exception_info"], good["message_id"]) == (3.5, None, str(ids[0]))
                assert (bad["result"], bad["exception_info"]) == (None, "summ() misses the argument 'b'")

        run(scenario)


class TestBuiltIns:
    def test_ping_and_description(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(summ, echo)) as wire:
                assert await wire.call("ping") == "pong"
                descriptions = await wire.call("get_function_server")
                assert [d["func_name"] for d in descriptions] == ["ping", "summ", "echo"]
                error = await wire.failing_call("ping", 1)
                assert str(error) == "ping() takes no arguments"

        run(scenario)

    def test_an_expired_ping_is_not_answered_with_pong(self) -> None:
        async def scenario() -> None:
            async with serving(make_app()) as wire:
                error = await wire.error(wire.send("ping", facts=wire.facts(timeout=0.0)))
                assert type(error).__name__ == "DeadlineExceededError"

        run(scenario)


class TestBadInput:
    def test_entries_that_cannot_be_read_are_buried_and_answered_where_possible(self) -> None:
        hostile = json.dumps({"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]}).encode()

        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                for body in (None, b"", b"{", b"[]", b"null", hostile, b"[" * 100_000, b"\xff\xfe", b'{"a": 1}'):
                    for raw in (False, True):
                        wire.broker.put_raw(QUEUE, body, raw=raw)
                assert await wire.call("echo", "alive") == "alive"
                letters = wire.dead_letters()
                assert len(letters) == 18
                assert all(letter.reason for letter in letters)

        run(scenario)

    def test_the_caller_of_a_refused_call_is_told(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                message_id = uuid4()
                message = PRPCMessage("echo", (1,), {}, message_id, datetime.now(UTC))
                text = wire.codec.write_call(message).replace(b'"func_args":', b'"func_args_": 1, "func_args":')
                hostile = text.replace(b"[1]", b'[{"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]}]')
                assert hostile != text
                wire.broker.put_raw(QUEUE, hostile, {"reply_to": wire.mailbox.address}, raw=False)
                error = await wire.error(message_id)
                assert type(error).__name__ == "DecodeError"

        run(scenario)

    @pytest.mark.parametrize("fields", [{"timeout_ms": "soon"}, {"headers": "{"}, {"headers": "[" * 10_000}])
    def test_facts_that_cannot_be_read_are_answered(self, fields: dict[str, str]) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                error = await wire.error(wire.send("echo", 1, fields=fields))
                assert type(error).__name__ == "DecodeError"
                assert len(wire.dead_letters()) == 1

        run(scenario)

    def test_unknown_facts_are_left_alone(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                assert await wire.result(wire.send("echo", 1, fields={"traceparent": "00-..."})) == 1

        run(scenario)

    def test_a_fault_of_the_server_itself_is_told_and_kept(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "prpc.server")

        def broken(*_: Any) -> Any:
            raise RuntimeError("a bug")

        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                with monkeypatch.context() as patch:
                    patch.setattr(CoroutinePool, "submit", broken)
                    assert isinstance(await wire.failing_call("echo", 1), RuntimeError)
                with monkeypatch.context() as patch:
                    patch.setattr(Codec, "read_call", broken)
                    wire.send("echo", 1)
                    raw = uuid4()
                    call = {"func_name": "ping", "func_args": [], "func_kwargs": {}, "message_id": str(raw)}
                    wire.broker.put_raw(QUEUE, json.dumps(call).encode())
                    assert b"pong" in await wire.kept(raw, raw=True)
                with monkeypatch.context() as patch:
                    patch.setattr(Codec, "write_reply", lambda *args, **kw: patch.undo() or broken())
                    assert isinstance(await wire.failing_call("echo", 1), EncodeError)
                with monkeypatch.context() as patch:
                    patch.setattr("prpc.server.endings.log_outcome", broken)
                    assert isinstance(await wire.failing_call("echo", 1), RuntimeError)
                assert [letter.reason for letter in wire.dead_letters()] == ["internal error"] * 3
                assert await wire.call("echo", 1) == 1

        run(scenario)

    def test_a_line_break_in_a_name_forges_no_log_line(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                await wire.failing_call("x\nINFO forged")

        with caplog.at_level(logging.INFO, "prpc.server"):
            run(scenario)
        assert all("\n" not in record.getMessage() for record in caplog.records)


class TestRules:
    def test_an_expired_call_is_not_started(self) -> None:
        async def scenario() -> None:
            ran: list[int] = []

            async def note() -> None:
                ran.append(1)

            async with serving(make_app(note)) as wire:
                error = await wire.error(wire.send("note", facts=wire.facts(timeout=0.0)))
                assert type(error).__name__ == "DeadlineExceededError"
                assert ran == []

        run(scenario)

    @pytest.mark.parametrize("limit", ["server", "function", "call"])
    def test_the_shortest_time_limit_holds(self, limit: str) -> None:
        async def forever() -> None:
            await asyncio.Event().wait()

        async def scenario() -> None:
            app = make_app(timeout_worker=0.05 if limit == "server" else 60.0)
            app.register_func(forever, timeout=0.05 if limit == "function" else None)
            async with serving(app) as wire:
                facts = wire.facts(timeout=0.05 if limit == "call" else 60.0)
                error = await wire.error(wire.send("forever", facts=facts))
                assert type(error).__name__ == "WorkerTimeoutError"
                assert isinstance(getattr(error, "queued", None), float)

        run(scenario)

    def test_a_running_call_is_cancelled(self) -> None:
        async def scenario() -> None:
            started, ended = asyncio.Event(), asyncio.Event()

            async def forever() -> None:
                started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    assert current_call().cancelled
                    ended.set()

            async with serving(make_app(forever)) as wire:
                message_id = wire.send("forever")
                await started.wait()
                wire.broker.broadcast(QUEUE, b"no control message")
                wire.broker.broadcast(QUEUE, write_cancel([message_id]))
                error = await wire.error(message_id)
                assert type(error).__name__ == "CallCancelledError"
                await ended.wait()

        run(scenario)

    def test_a_cancel_that_overtakes_its_call(self) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                message_id = uuid4()
                wire.broker.broadcast(QUEUE, write_cancel([message_id]))
                await asyncio.sleep(0.01)
                error = await wire.error(wire.send("echo", 1, message_id=message_id))
                assert type(error).__name__ == "CallCancelledError"

        run(scenario)

    def test_a_doubled_entry_does_not_run_beside_the_first(self) -> None:
        async def scenario() -> None:
            ran: list[int] = []
            go = asyncio.Event()

            async def once() -> int:
                ran.append(1)
                await go.wait()
                return len(ran)

            async with serving(make_app(once, echo)) as wire:
                other = await wire.broker.open_mailbox(QUEUE)
                message_id = wire.send("once")
                wire.send("once", message_id=message_id)
                wire.send("once", message_id=message_id, facts=CallFacts(reply_to=other.address))
                await wire.call("echo", 1)
                go.set()
                assert await wire.result(message_id) == 1
                (body,) = (await other.receive()).bodies
                assert wire.codec.read_reply(body).result == 1
                assert ran == [1]

        run(scenario)

    def test_no_more_calls_run_at_once_than_there_are_slots(self) -> None:
        async def scenario() -> None:
            running, most = 0, 0

            async def busy() -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1

            async with serving(make_app(busy, max_number_worker=3)) as wire:
                ids = [wire.send("busy") for _ in range(20)]
                for message_id in ids:
                    await wire.result(message_id)
                assert most == 3

        run(scenario)

    def test_an_abandoned_thread_keeps_its_slot(self) -> None:
        async def scenario() -> None:
            go = threading.Event()

            def stuck() -> None:
                go.wait(20)

            def free() -> str:
                return "free"

            async with serving(make_app(stuck, free, worker="thread", max_number_worker=1)) as wire:
                error = await wire.error(wire.send("stuck", facts=wire.facts(timeout=0.05)))
                assert type(error).__name__ == "WorkerTimeoutError"
                message_id = wire.send("free")
                await asyncio.sleep(0.05)
                assert await wire.mailbox.collect([message_id]) == {}
                go.set()
                assert await wire.result(message_id) == "free"

        run(scenario)

    def test_a_call_of_a_lost_server_is_not_repeated_unless_idempotent(self) -> None:
        async def scenario() -> None:
            url = f"memory://{uuid4().hex}"
            settings: dict[str, Any] = {"redis_heartbeat": 0.05, "redis_recover": 0.1}
            app = AppServer("memory", url, "async", name_queue=QUEUE, **settings)
            app.register_func(echo)
            app.register_func(echo, name="again", idempotent=True)
            broker = MemoryBroker(app.settings)
            mailbox = await broker.open_mailbox(QUEUE)
            wire = Wire(broker, mailbox, app)
            ids = [wire.send("echo", 1), wire.send("again", 2)]
            lost = broker.consume(QUEUE, consumer="lost")
            assert len(await lost.take(2)) == 2
            lost._renewal.cancel()  # type: ignore[union-attr]  # dies
            server = asyncio.create_task(app.serve())
            error = await wire.error(ids[0])
            assert type(error).__name__ == "WorkerLostError"
            assert await wire.result(ids[1]) == 2
            await app.stop()
            await server
            await broker.close()

        run(scenario)


class TestEnd:
    """What a stopping or displaced server does with outcomes."""

    def test_a_full_server_stops(self) -> None:
        async def scenario() -> None:
            started = asyncio.Event()

            async def forever() -> None:
                started.set()
                await asyncio.Event().wait()

            async with serving(make_app(forever, max_number_worker=1)) as wire:
                message_id = wire.send("forever")
                await started.wait()
                await wire.app.stop(grace=0)
                assert type(await wire.error(message_id)).__name__ == "ServerShutdownError"

        run(scenario)

    def test_a_worker_that_does_not_let_go_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("prpc.server.dispatcher._SECONDS_TO_END", 0.01)
        monkeypatch.setattr(SlotExecution, "cancel", lambda *_: None)

        async def scenario() -> None:
            started, go = asyncio.Event(), asyncio.Event()

            async def wait() -> None:
                started.set()
                await go.wait()

            async with serving(make_app(wait)) as wire:
                message_id = wire.send("wait")
                await started.wait()
                await wire.app.stop(grace=0)
                assert type(await wire.error(message_id)).__name__ == "ServerShutdownError"
                go.set()

        run(scenario)

    def test_outcomes_that_the_broker_does_not_take_are_counted(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("prpc.server.dispatcher._SECONDS_TO_END", 0.01)

        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                pending: list[asyncio.Future[bool]] = []

                def settle(*_: Any) -> asyncio.Future[bool]:
                    pending.append(asyncio.get_running_loop().create_future())
                    settled.set()
                    return pending[-1]

                settled = asyncio.Event()
                monkeypatch.setattr(_Delivery, "settle", settle)
                wire.send("echo", 1)
                await settled.wait()
                await wire.app.stop()
                pending[0].cancel()

        run(scenario)
        assert "1 outcomes could not be handed over" in caplog.text

    @pytest.mark.parametrize(
        ("answer", "text"),
        [(False, "another server had taken the call over"), (OSError("gone"), "could not be handed over: gone")],
    )
    def test_lost_outcomes_are_seen_in_the_log(
        self, answer: Any, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:

                async def settle(*_: Any) -> bool:
                    settled.set()
                    if isinstance(answer, Exception):
                        raise answer
                    return bool(answer)

                settled = asyncio.Event()
                monkeypatch.setattr(_Delivery, "settle", settle)
                wire.send("echo", 1)
                await settled.wait()

        run(scenario)
        assert text in caplog.text

    def test_what_arrives_while_the_server_stops_is_given_back(self) -> None:
        async def scenario() -> None:
            app = make_app(echo)
            async with serving(app) as wire:
                consumer_type = type(wire.broker.consume("q", consumer="c"))
                original = consumer_type.stop

                async def stop(self: Any) -> None:
                    wire.send("echo", 1)
                    await asyncio.sleep(0.01)
                    await original(self)

                consumer_type.stop = stop  # type: ignore[method-assign]
                try:
                    await app.stop()
                finally:
                    consumer_type.stop = original  # type: ignore[method-assign]
                other = wire.broker.consume(QUEUE, consumer="other")
                (delivery,) = await other.take(1)
                assert delivery.attempt == 1

        run(scenario)


class TestContext:
    def test_the_current_call(self) -> None:
        async def facts() -> Any:
            call = current_call()
            left = call.remaining()
            assert left is not None
            return [call.message_id, call.function, dict(call.headers), call.attempt, 50 < left <= 60, call.cancelled]

        def thread_facts() -> Any:
            return current_call().message_id

        async def scenario() -> None:
            app = make_app(facts)
            app.register_func(thread_facts, "thread")
            async with serving(app) as wire:
                message_id = wire.send("facts", facts=wire.facts(timeout=60.0, headers={"user": "anna"}))
                assert await wire.result(message_id) == [str(message_id), "facts", {"user": "anna"}, 1, True, False]
                message_id = wire.send("thread_facts")
                assert await wire.result(message_id) == str(message_id)

        run(scenario)


class TestLog:
    def test_one_line_a_call(self, caplog: pytest.LogCaptureFixture) -> None:
        async def boom() -> None:
            raise ValueError("secret text")

        async def scenario() -> None:
            async with serving(make_app(echo, boom)) as wire:
                ids.append(wire.send("echo", "secret argument"))
                await wire.result(ids[0])
                await wire.failing_call("boom")

        ids: list[UUID] = []
        with caplog.at_level(logging.INFO, "prpc.server"):
            run(scenario)
        lines = [record for record in caplog.records if hasattr(record, "outcome")]
        assert [(vars(r)["function"], vars(r)["outcome"]) for r in lines] == [("echo", "ok"), ("boom", "builtins.ValueError")]
        first = vars(lines[0])
        assert first["message_id"] == str(ids[0])
        assert first["queued_ms"] >= 0 and first["running_ms"] >= 0 and first["worker"]
        assert "secret" not in caplog.text

    def test_the_traceback_at_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        async def boom() -> None:
            raise ValueError("boom")

        async def scenario() -> None:
            async with serving(make_app(boom)) as wire:
                await wire.failing_call("boom")

        with caplog.at_level(logging.DEBUG, "prpc.server"):
            run(scenario)
        assert "Traceback" in caplog.text

    def test_nothing_below_the_level(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with serving(make_app(echo)) as wire:
                await wire.call("echo", 1)

        with caplog.at_level(logging.WARNING, "prpc.server"):
            run(scenario)
        assert caplog.records == []


Step = Callable[[IncomingCall, Proceed], Awaitable[Any]]


class TestMiddleware:
    def app(self, *middleware: Step, **settings: Any) -> AppServer:
        def fails() -> None:
            raise KeyError("original")

        app = make_app(echo, middleware=middleware, **settings)
        app.register_func(fails, "thread")
        return app

    def test_the_first_is_the_outermost_and_may_change_everything(self) -> None:
        seen: list[str] = []

        async def outer(call: IncomingCall, proceed: Proceed) -> Any:
            seen.append(f"outer {call.function} {call.context.message_id == current_call().message_id}")
            return ["outer", await proceed(call)]

        async def inner(call: IncomingCall, proceed: Proceed) -> Any:
            seen.append("inner")
            return ["inner", await proceed(IncomingCall(call.function, [call.args[0] + 1], call.kwargs, call.context))]

        async def scenario() -> None:
            async with serving(self.app(outer, inner)) as wire:
                assert await wire.call("echo", 1) == ["outer", ["inner", 2]]
                assert seen == ["outer echo True", "inner"]

        run(scenario)

    def test_an_error_passes_through_and_may_be_replaced(self) -> None:
        async def translate(call: IncomingCall, proceed: Proceed) -> Any:
            try:
                return await proceed(call)
            except KeyError:
                if call.context.headers.get("translate"):
                    raise ValueError("translated") from None
                raise

        async def scenario() -> None:
            async with serving(self.app(translate)) as wire:
                reply = await wire.reply(wire.send("fails"))
                assert reply.failure is not None
                assert reply.failure.type_name == "builtins.KeyError"
                assert "in fails" in reply.failure.traceback
                error = await wire.error(wire.send("fails", facts=wire.facts(headers={"translate": "1"})))
                assert isinstance(error, ValueError) and str(error) == "translated"

        run(scenario)

    def test_it_may_refuse_answer_and_try_again(self) -> None:
        async def clever(call: IncomingCall, proceed: Proceed) -> Any:
            match call.args:
                case ["refuse"]:
                    raise PermissionError("who are you?")
                case ["leave"]:
                    raise SystemExit
                case ["answer"]:
                    return "answered"
                case ["twice"]:
                    return [await proceed(call), await proceed(call)]
            return await proceed(call)

        async def scenario() -> None:
            async with serving(self.app(clever)) as wire:
                assert isinstance(await wire.failing_call("echo", "refuse"), PermissionError)
                await wire.failing_call("echo", "leave")
                assert await wire.call("echo", "answer") == "answered"
                assert await wire.call("echo", "twice") == ["twice", "twice"]

        run(scenario)

    def test_the_time_limit_covers_it(self) -> None:
        async def slow(call: IncomingCall, proceed: Proceed) -> Any:
            await asyncio.Event().wait()

        async def scenario() -> None:
            async with serving(self.app(slow, timeout_worker=0.05)) as wire:
                error = await wire.failing_call("echo", 1)
                assert type(error).__name__ == "WorkerTimeoutError"

        run(scenario)

    def test_the_time_limit_of_the_function_below_it(self) -> None:
        async def forever() -> None:
            await asyncio.Event().wait()

        async def through(call: IncomingCall, proceed: Proceed) -> Any:
            return await proceed(call)

        async def scenario() -> None:
            app = self.app(through)
            app.register_func(forever, timeout=0.05)
            async with serving(app) as wire:
                error = await wire.failing_call("forever")
                assert type(error).__name__ == "WorkerTimeoutError"

        run(scenario)

    def test_a_cancel_after_the_end_changes_nothing(self) -> None:
        """The function keeps its slot for longer than the call lasts: a thread that was abandoned."""

        async def scenario() -> None:
            go = threading.Event()

            def stuck() -> None:
                go.wait(20)

            async def through(call: IncomingCall, proceed: Proceed) -> Any:
                return await proceed(call)

            app = make_app(middleware=[through], max_number_worker=1)
            app.register_func(stuck, "thread", timeout=0.02)
            async with serving(app) as wire:
                first, second = wire.send("stuck"), wire.send("stuck")
                assert type(await wire.error(first)).__name__ == "WorkerTimeoutError"
                wire.broker.broadcast(QUEUE, write_cancel([first]))
                go.set()
                assert await wire.result(second) is None

        run(scenario)

    def test_cancellation_reaches_the_function(self) -> None:
        async def scenario() -> None:
            started, ended = asyncio.Event(), asyncio.Event()

            async def forever() -> None:
                started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            async def through(call: IncomingCall, proceed: Proceed) -> Any:
                return await proceed(call)

            app = make_app(forever, middleware=[through])
            async with serving(app) as wire:
                message_id = wire.send("forever")
                await started.wait()
                wire.broker.broadcast(QUEUE, write_cancel([message_id]))
                error = await wire.error(message_id)
                assert type(error).__name__ == "CallCancelledError"
                await ended.wait()

        run(scenario)


def test_the_time_of_asking_counts_to_the_deadline() -> None:
    """Whether an entry may run is asked over the network; meanwhile its deadline may come."""

    class SlowClaim(_Delivery):
        def claim(
            self, message_id: UUID, address: str | None, *, repeatable: bool = False, again: bool = False
        ) -> Awaitable[bool]:
            async def answer() -> bool:
                clock.advance(5.0)
                return await super(SlowClaim, self).claim(message_id, address, repeatable=repeatable, again=again)

            return answer()

    ran = []

    async def work() -> None:
        ran.append(1)

    clock = ManualClock()

    async def scenario() -> None:
        app = make_app(work)
        with app._moved("memory", app.settings.url_broker, QUEUE, clock), pytest.MonkeyPatch.context() as patch:
            patch.setattr("prpc.brokers.memory._Delivery", SlowClaim)
            async with serving(app) as wire:
                first = wire.send("work", facts=wire.facts(timeout=60.0))
                assert await wire.result(first) is None
                message = PRPCMessage("work", (), {}, uuid4(), datetime.now(UTC))  # of a foreign program: it must be asked for
                fields = wire.facts(timeout=3.0).to_fields()
                wire.broker._space.put(QUEUE, wire.codec.write_call(message), fields)
                error = await wire.error(message.message_id)
                assert isinstance(error, DeadlineExceededError) and "was not started" in str(error)
        assert len(ran) == 1

    run(scenario)


class TestWithoutRoom:
    """A server whose every slot is busy, and another one that is lost."""

    @staticmethod
    def _lose(wire: Wire, *names: str) -> list[UUID]:
        """Calls in the hands of a consumer that is gone."""
        ids = [wire.send(name) for name in names]
        entries, _ = wire.broker._space.take(QUEUE, "gone", len(ids), 0.01)
        assert [entry.attempt for entry in entries] == [1] * len(ids)
        return ids

    def test_a_call_that_was_lost_is_answered_and_one_that_may_run_again_is_left_to_others(self) -> None:
        free = asyncio.Event()
        ran = []

        async def block() -> None:
            await free.wait()

        async def plain() -> None:
            ran.append("plain")

        async def harmless() -> str:
            ran.append("harmless")
            return "ran"

        async def scenario() -> None:
            app = make_app(block, plain, max_number_worker=1, redis_heartbeat=0.05, redis_recover=0.1)
            app.register_func(harmless, idempotent=True)
            async with serving(app) as wire:
                blocked = wire.send("block")
                await _until_running(wire, blocked)
                lost, again = self._lose(wire, "plain", "harmless")
                assert isinstance(await wire.error(lost), WorkerLostError)
                assert not free.is_set()
                assert ran == []
                free.set()
                assert await wire.result(again) == "ran"
                assert ran == ["harmless"]

        run(scenario)


def test_a_call_that_went_to_another_server_while_it_waited_for_its_turn_is_not_started() -> None:
    free = asyncio.Event()
    ran: list[int] = []

    async def alone(number: int) -> int:
        ran.append(number)
        await free.wait()
        return number

    async def scenario() -> None:
        app = make_app()
        app.register_func(alone, max_concurrency=1)
        async with serving(app) as wire:
            first = wire.send("alone", 1)
            await _until_running(wire, first)
            wire.send("alone", 2)
            leases = wire.broker._space._queue(QUEUE).leases.values()
            while not (held := sorted((entry for lease in leases for entry in lease.entries), key=lambda entry: entry.number))[
                1:
            ]:
                await asyncio.sleep(0)
            held[1].attempt += 1  # the lease ran out, and another server got it
            last = wire.send("alone", 3)
            free.set()
            assert await wire.result(first) == 1
            assert await wire.result(last) == 3
        assert ran == [1, 3]

    run(scenario)


async def _until_running(wire: Wire, message_id: UUID) -> None:
    while not any(lease.entries for lease in wire.broker._space._queue(QUEUE).leases.values()):
        await asyncio.sleep(0)
