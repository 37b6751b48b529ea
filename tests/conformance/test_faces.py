"""What a caller may rely on, in plain code and in coroutines: one scenario for both faces."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from client_kit import PATIENCE, AsyncFace, Face, FlakyBroker, ScriptedServer, SyncFace, memory_settings, reply_to, unavailable

from prpc.app_client import AwaitableTask, OutgoingCall, Proceed, as_completed, gather, remote_function
from prpc.exceptions import (
    BrokerUnavailableError,
    CallCancelledError,
    CallError,
    ClientTimeOutError,
    DecodeError,
    EncodeError,
    NoServerError,
    RemoteError,
)


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    made: Face = request.param()
    return made


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(memory_settings()) as running:
        yield running


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyBroker:
    broker = FlakyBroker()
    monkeypatch.setattr("prpc.client.connection.create_broker", lambda settings: broker)
    return broker


def test_a_call_returns_its_result(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        assert await face.result(client.call("add", 1, b=2)) == 3
        assert await face.result(client.call("nothing")) is None
        assert await face.result(client.call("echo", 1, "x", k=[1])) == [[1, "x"], {"k": [1]}]
        await face.close(client)

    face.run(scenario())


def test_a_remote_exception_is_raised_under_its_own_type(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        with pytest.raises(KeyError) as caught:
            await face.result(client.call("boom", "why"))
        assert isinstance(caught.value, RemoteError)
        assert "why" in str(caught.value)
        await face.close(client)

    face.run(scenario())


def test_waiting_again_gives_the_same_outcome_and_no_growing_traceback(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        good, bad = client.call("add", 1), client.call("boom", "why")
        assert [await face.result(good) for _ in range(3)] == [11, 11, 11]
        assert good.get_result() == 11
        lengths, errors = [], []
        for _ in range(4):
            with pytest.raises(KeyError) as caught:
                await face.result(bad)
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
            errors.append(caught.value)
        assert len(set(lengths[1:])) == 1
        assert len(set(map(id, errors))) == 4
        with pytest.raises(KeyError):
            bad.get_result()
        await face.close(client)

    face.run(scenario())


def test_waiting_again_after_a_timeout_works(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.call("hold")
        for timeout in (0, 0.01, timedelta(milliseconds=10)):
            with pytest.raises(ClientTimeOutError, match=r"hold\(\).*waiting again works") as caught:
                await face.result(task, timeout)
            assert caught.value.message_id == str(task.message.message_id)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.timeout == 0.01
        with pytest.raises(ClientTimeOutError):
            task.get_result()
        assert not task.is_done_task()
        await face.answer(server, task, "late")
        assert await face.result(task) == "late"
        assert task.is_done_task()
        await face.close(client)

    face.run(scenario())


def test_the_calls_own_timeout_is_its_outcome(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.options(timeout=0.05).call("silent")
        for _ in range(2):
            with pytest.raises(ClientTimeOutError, match=r"silent\(\) within its timeout of 0.05 s") as caught:
                await face.result(task)
            assert caught.value.timeout == 0.05
        assert not task.cancel()
        await face.until(server, lambda: task.message.message_id in server.facts)
        sent = server.facts[task.message.message_id].timeout
        assert sent is not None
        assert 0 <= sent <= 0.05
        assert await face.result(client.options(timeout=timedelta(minutes=1)).call("add", 1)) == 11
        await face.close(client)

    face.run(scenario())


def test_the_setting_gives_calls_their_timeout(face: Face) -> None:
    with ScriptedServer(memory_settings(call_timeout=0.05)) as server:

        async def scenario() -> None:
            client = face.client(server.settings)
            with pytest.raises(ClientTimeOutError):
                await face.result(client.call("silent"))
            await face.close(client)

        face.run(scenario())


def test_a_cancelled_call_ends_for_its_waiters_and_for_the_servers(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.call("hold")
        await face.until(server, lambda: bool(server.calls))
        assert task.cancel()
        assert not task.cancel()
        with pytest.raises(CallCancelledError, match=r"hold\(\)") as caught:
            await face.result(task)
        assert caught.value.message_id == str(task.message.message_id)
        await face.until(server, lambda: server.cancelled == [task.message.message_id])
        await face.answer(server, task, "too late")
        assert await face.result(client.call("add", 1)) == 11
        with pytest.raises(CallCancelledError):
            task.get_result()
        await face.close(client)

    face.run(scenario())


def test_a_done_call_cannot_be_cancelled(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.call("add", 1)
        await face.result(task)
        assert not task.cancel()
        await face.close(client)

    face.run(scenario())


def test_message_and_times_tell_what_happened(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        before = datetime.now(UTC)
        task = client.call("hold", 1, key="x")
        assert task.message.func_name == "hold"
        assert tuple(task.message.func_args) == (1,)
        assert task.message.func_kwargs == {"key": "x"}
        assert not task.message.is_done
        assert task.time_execution is None
        assert "hold" in repr(task)
        assert "pending" in repr(task)
        await face.answer(server, task, [1])
        await face.result(task)
        assert task.message.is_done
        assert task.message.result == [1]
        assert task.message.date_create_message >= before
        assert task.time_execution is not None
        assert timedelta() <= task.time_execution <= timedelta(seconds=PATIENCE)
        assert "done" in repr(task)
        failed = client.call("boom", "why")
        with pytest.raises(KeyError):
            await face.result(failed)
        assert "why" in str(failed.message.exception_info)
        assert "failed" in repr(failed)
        cancelled = client.call("hold")
        cancelled.cancel()
        assert cancelled.message.is_done
        assert "cancelled" in str(cancelled.message.exception_info)
        assert cancelled.time_execution is not None
        await face.close(client)

    face.run(scenario())


def test_headers_travel_beside_the_call(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.options(headers={"trace": "ä1"}).options(timeout=60).call("add", 1)
        plain = client.call("add", 1)
        await face.gathered(gather(task, plain))
        assert server.facts[task.message.message_id].headers == {"trace": "ä1"}
        assert server.facts[plain.message.message_id].headers == {}
        await face.close(client)

    face.run(scenario())


def test_an_argument_that_cannot_be_written_is_refused_at_the_call(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        with pytest.raises(EncodeError):
            client.call("add", object())
        await face.close(client)

    face.run(scenario())


def test_ping_and_descriptions(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        assert await face.ping(client) == "pong"
        assert [f["func_name"] for f in await face.functions(client)] == ["ping"]
        assert [record.instance for record in await face.servers(client)] == ["scripted"]
        await face.close(client)

    face.run(scenario())


def test_servers_connects_first(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        assert [record.instance for record in await face.servers(client)] == ["scripted"]
        await face.close(client)

    face.run(scenario())


def test_nobody_on_the_queue_is_said_at_once(face: Face) -> None:
    async def scenario() -> None:
        client = face.client(memory_settings())
        for _ in range(2):
            with pytest.raises(NoServerError, match=r"queue 'q' at memory://.*PRPC_QUEUE_NAME") as caught:
                await face.ping(client)
            assert caught.value.queue == "q"
        with pytest.raises(NoServerError):
            await face.result(client.options(require_server=True).call("add", 1))
        await face.close(client)

    face.run(scenario())


def test_a_broker_that_does_not_answer_ends_the_calls_and_the_next_call_tries_again(face: Face, flaky: FlakyBroker) -> None:
    flaky.connect_error = unavailable()

    async def scenario() -> None:
        client = face.client(memory_settings())
        first, second = client.call("add", 1), client.call("add", 2)
        for task in (first, second):
            with pytest.raises(BrokerUnavailableError, match="away"):
                await face.result(task)
        with pytest.raises(BrokerUnavailableError, match="away"):
            await face.ping(client)
        with pytest.raises(BrokerUnavailableError, match="away"):
            await face.servers(client)
        flaky.connect_error = None
        last = client.call("add", 3)
        with pytest.raises(ClientTimeOutError):
            await face.result(last, 0.02)
        assert [call.message_id for call in flaky.published] == [last.message.message_id]
        await face.close(client)

    face.run(scenario())


def test_gather_keeps_the_order_of_the_calls(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        first, second, third = client.call("hold"), client.call("hold"), client.call("add", 1)
        await face.answer(server, second, "second")
        await face.answer(server, first, "first")
        assert await face.gathered(gather(first, second, third, first)) == ["first", "second", 11, "first"]
        assert await face.gathered(gather()) == []
        await face.close(client)

    face.run(scenario())


def test_gather_raises_the_first_failure_and_leaves_the_others_alone(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        waiting = client.call("hold")
        with pytest.raises(KeyError):
            await face.gathered(gather(client.call("add", 1), waiting, client.call("boom", "why")))
        assert not waiting.is_done_task()
        await face.answer(server, waiting, 5)
        assert await face.result(waiting) == 5
        await face.close(client)

    face.run(scenario())


def test_gather_can_return_the_failures(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        many = gather(client.call("boom", "why"), client.call("add", 1), return_exceptions=True)
        failure, result = await face.gathered(many)
        assert isinstance(failure, KeyError)
        assert result == 11
        await face.close(client)

    face.run(scenario())


def test_gather_counts_what_is_missing_when_time_runs_out(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        many = gather(client.call("hold"), client.call("hold"))
        with pytest.raises(ClientTimeOutError, match="2 of 2 calls"):
            await face.gathered(many, 0.02)
        assert many.cancel() == 2
        assert many.cancel() == 0
        with pytest.raises(CallCancelledError):
            await face.gathered(many)
        await face.close(client)

    face.run(scenario())


def test_as_completed_gives_the_tasks_as_they_end(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        slow, quick, bad = client.call("hold"), client.call("add", 1), client.call("boom", "why")
        await face.until(server, lambda: len(server.calls) == 3)
        await face.result(quick)
        seen: list[AwaitableTask[Any]] = []
        with pytest.raises(ClientTimeOutError, match="1 of 3"):
            seen += await face.each(as_completed([slow, quick, bad], timeout=0.05))
        await face.answer(server, slow, "slow")
        seen = await face.each(as_completed([slow, quick, bad]))
        assert set(seen) == {slow, quick, bad}
        assert all(task.is_done_task() for task in seen)
        await face.close(client)

    face.run(scenario())


@dataclasses.dataclass
class Point:
    x: int
    when: datetime


@remote_function("echo_point", schema="abc")
def typed(x: int, y: int = 2) -> Point:
    """A point."""
    raise NotImplementedError


@remote_function("add")
def wrong(a: int, b: int = 1) -> Point:
    raise NotImplementedError


@remote_function("add", idempotent=True)
def add(a: int, b: int = 1) -> int:
    raise NotImplementedError


def test_results_arrive_as_the_annotated_type(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        held = remote_function("hold")(typed.__wrapped__).options(client=client)(1, y=3)
        await face.answer(server, held, {"x": 1, "when": "2024-01-02T03:04:05+00:00"})
        point = Point(1, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC))
        assert await face.result(held) == point
        assert held.get_result() is await face.result(held)
        await face.close(client)

    face.run(scenario())


def test_a_result_that_does_not_fit_says_that_the_stub_may_be_stale(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = wrong.options(client=client)(1)
        for _ in range(2):
            with pytest.raises(DecodeError, match=r"result of add\(\).*server_func.py may be older"):
                await face.result(task)
        await face.close(client)

    face.run(scenario())


def test_a_stub_sends_only_what_its_caller_gave(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = add.options(client=client, headers={"a": "b"})(1)
        assert await face.result(task) == 11  # the server's default, not the stub's
        assert tuple(server.calls[0].func_args) == (1,)
        assert server.facts[task.message.message_id].headers == {"a": "b"}
        assert server.facts[task.message.message_id].schema is None
        schema = typed.options(client=client)(1)
        await face.until(server, lambda: schema.message.message_id in server.facts)
        assert server.facts[schema.message.message_id].schema == "abc"
        await face.close(client)

    face.run(scenario())


def test_map_makes_one_call_for_each_item(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        stub = add.options(client=client)
        assert await face.gathered(stub.map(range(5), [10] * 5)) == [10, 11, 12, 13, 14]
        results = await face.gathered(stub.map([1, "x"], return_exceptions=True))
        assert results[0] == 11
        assert isinstance(results[1], Exception)
        await face.close(client)

    face.run(scenario())


def test_closing_ends_what_has_no_outcome_and_later_calls_connect_anew(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.call("hold")
        await face.close(client)
        with pytest.raises(CallError, match="closed before"):
            await face.result(task)
        await face.close(client)
        assert await face.result(client.call("add", 1)) == 11
        await face.close(client)

    face.run(scenario())


def test_closing_sends_what_was_not_waited_for(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        for number in range(50):
            client.call("add", number)
        await face.close(client)
        await face.until(server, lambda: len(server.calls) == 50)

    face.run(scenario())


def test_asking_the_broker_finds_a_reply_whose_wake_up_was_lost(face: Face, flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = face.client(memory_settings())
        task = client.call("add", 1)
        with pytest.raises(ClientTimeOutError):
            await face.result(task, 0.02)
        assert not task.is_done_task(update_status=True)
        flaky.kept[task.message.message_id] = reply_to(flaky.published[0], 7)
        task.is_done_task(update_status=True)
        assert await face.result(task) == 7
        assert task.is_done_task(update_status=True)
        await face.close(client)

    face.run(scenario())


def test_middleware_sees_call_and_outcome(face: Face, server: ScriptedServer) -> None:
    seen: list[str] = []

    async def outer(call: OutgoingCall, proceed: Proceed) -> Any:
        seen.append(f"outer {call.function}")
        result = await proceed(dataclasses.replace(call, headers={**call.headers, "by": "outer"}))
        seen.append(f"outer got {result}")
        return result + 1

    async def inner(call: OutgoingCall, proceed: Proceed) -> Any:
        seen.append(f"inner {dict(call.headers)}")
        return await proceed(dataclasses.replace(call, args=(100,)))

    async def scenario() -> None:
        client = face.client(server.settings, middleware=[outer, inner])
        task = client.call("add", 1)
        assert await face.result(task) == 111
        assert seen == ["outer add", "inner {'by': 'outer'}", "outer got 110"]
        assert server.facts[task.message.message_id].headers == {"by": "outer"}
        with pytest.raises(KeyError):
            await face.result(client.call("boom"))
        await face.close(client)

    face.run(scenario())


def test_a_call_with_middleware_can_be_cancelled_and_times_out(face: Face, server: ScriptedServer) -> None:
    async def pass_on(call: OutgoingCall, proceed: Proceed) -> Any:
        return await proceed(call)

    async def scenario() -> None:
        client = face.client(server.settings, middleware=[pass_on])
        task = client.call("hold")
        await face.until(server, lambda: bool(server.calls))
        assert task.cancel()
        assert not task.cancel()
        with pytest.raises(CallCancelledError):
            await face.result(task)
        await face.until(server, lambda: server.cancelled == [task.message.message_id])
        with pytest.raises(ClientTimeOutError):
            await face.result(client.options(timeout=0.05).call("silent"))
        open_call = client.call("hold")
        await face.until(server, lambda: server.names().count("hold") == 2)
        await face.close(client)
        with pytest.raises(CallError, match="closed before"):
            await face.result(open_call)

    face.run(scenario())


def test_middleware_proceeds_once(face: Face, server: ScriptedServer) -> None:
    async def twice(call: OutgoingCall, proceed: Proceed) -> Any:
        await proceed(call)
        return await proceed(call)

    async def scenario() -> None:
        client = face.client(server.settings, middleware=[twice])
        with pytest.raises(RuntimeError, match="twice"):
            await face.result(client.call("add", 1))
        await face.close(client)

    face.run(scenario())
