"""Calls that are sent again: one scenario for both faces, with a server that does what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from client_kit import AsyncFace, Face, ScriptedServer, SyncFace, memory_settings

from prpc.app_client import RemoteFunction, remote_function
from prpc.exceptions import ClientTimeOutError


@remote_function("hold", idempotent=True)
def hold() -> Any:
    raise NotImplementedError


@remote_function("silent", idempotent=True)
def silent() -> Any:
    raise NotImplementedError


@remote_function("hold")
def charge() -> Any:
    raise NotImplementedError


@pytest.fixture(params=[SyncFace, AsyncFace], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    made: Face = request.param()
    return made


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(memory_settings()) as running:
        yield running


def often(function: RemoteFunction[Any, Any], client: Any, **more: Any) -> RemoteFunction[Any, Any]:
    """The function with attempts that follow each other fast."""
    return function.options(client=client, attempt_timeout=0.01, backoff=0, **more)


def test_the_second_attempt_is_answered(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(hold, client)()
        await face.answer(server, task, "second", attempt=2)
        assert await face.result(task) == "second"
        await face.close(client)

    face.run(scenario())


def test_a_late_answer_of_the_first_attempt_counts(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(hold, client, retries=2)()
        await face.until(server, lambda: len(server.calls) == 3)
        await face.answer(server, task, "first", attempt=1)
        assert await face.result(task) == "first"
        assert {call.message_id for call in server.calls} == {task.message.message_id}
        await face.close(client)

    face.run(scenario())


def test_the_first_of_two_answers_counts(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(hold, client, retries=1)()
        await face.until(server, lambda: len(server.calls) == 2)
        await face.answer(server, task, "one", attempt=1)
        assert await face.result(task) == "one"
        await face.answer(server, task, "two", attempt=2)
        assert await face.result(client.call("add", 1)) == 11
        assert await face.result(task) == "one"
        await face.close(client)

    face.run(scenario())


def test_a_failure_that_a_server_answers_with_is_the_outcome(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        boom = client.options(idempotent=True, retries=5)
        with pytest.raises(KeyError):
            await face.result(boom.call("boom", "x"))
        assert await face.result(client.call("add", 1)) == 11
        assert server.names() == ["boom", "add"]
        await face.close(client)

    face.run(scenario())


def test_the_deadline_ends_a_call_that_nobody_answers_and_says_how_often_it_was_sent(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(silent, client, timeout=1.5, retries=2)()
        with pytest.raises(
            ClientTimeOutError, match=r"no outcome of silent\(\) within its timeout of 1\.5 s, in 3 attempts"
        ) as caught:
            await face.result(task)
        assert (caught.value.attempts, caught.value.timeout) == (3, 1.5)
        assert server.names() == ["silent"] * 3
        await face.close(client)

    face.run(scenario())


def test_attempts_alone_do_not_end_a_call(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(hold, client, retries=1)()
        await face.until(server, lambda: len(server.calls) == 2)
        with pytest.raises(ClientTimeOutError, match="it may still come"):
            await face.result(task, 0.05)
        await face.answer(server, task, "late", attempt=2)
        assert await face.result(task) == "late"
        await face.close(client)

    face.run(scenario())


def test_each_attempt_carries_its_number_and_what_is_left_of_the_whole_time(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = often(hold, client, timeout=timedelta(seconds=60), retries=1)()
        await face.until(server, lambda: len(server.calls) == 2)
        facts = server.facts[task.message.message_id]
        assert facts.attempt == 2
        assert facts.timeout is not None and 30 < facts.timeout < 60
        await face.answer(server, task, None, attempt=2)
        await face.result(task)
        await face.close(client)

    face.run(scenario())


def test_the_clients_settings_are_the_default(face: Face, server: ScriptedServer) -> None:
    async def scenario() -> None:
        client = face.client(server.settings, call_attempt_timeout=0.01, call_backoff=0, call_retries=1)
        task = hold.options(client=client)()
        await face.answer(server, task, 1, attempt=2)
        assert await face.result(task) == 1
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("given", [{"retries": 1}, {"idempotent": True}])
def test_without_a_stub_the_caller_says_that_it_may_be_repeated(
    face: Face, server: ScriptedServer, given: dict[str, Any]
) -> None:
    async def scenario() -> None:
        client = face.client(server.settings)
        task = client.options(attempt_timeout=0.01, backoff=0, **given).call("hold")
        await face.answer(server, task, 1, attempt=2)
        assert await face.result(task) == 1
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("without", ["not idempotent", "no retries"])
def test_what_is_not_repeated_is_sent_once(face: Face, server: ScriptedServer, without: str) -> None:
    async def scenario() -> None:
        client = face.client(server.settings, call_attempt_timeout=0.001, call_backoff=0)
        function = charge if without == "not idempotent" else hold.options(retries=0)
        task = function.options(client=client)()
        for _ in range(3):
            with pytest.raises(ClientTimeOutError):
                await face.result(task, 0.02)
        assert await face.result(client.call("add", 1)) == 11
        assert server.names() == ["hold", "add"]
        await face.answer(server, task, 1)
        assert await face.result(task) == 1
        await face.close(client)

    face.run(scenario())


def test_calls_with_middleware_are_repeated_behind_it(face: Face, server: ScriptedServer) -> None:
    seen = []

    async def note(call: Any, proceed: Any) -> Any:
        seen.append(call.function)
        return await proceed(call)

    async def scenario() -> None:
        client = face.client(server.settings, middleware=[note])
        task = often(hold, client)()
        await face.answer(server, task, 1, attempt=2)
        assert await face.result(task) == 1
        assert seen == ["hold"]
        await face.close(client)

    face.run(scenario())


@pytest.mark.parametrize("given", [{"retries": 3}, {"attempt_timeout": 2.0}, {"backoff": 0.5}])
def test_repeats_of_what_is_not_idempotent_are_refused_at_once(face: Face, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hold\(\) are not repeated: the server did not register it with idempotent=True"):
        charge.options(**given)
    assert charge.options(retries=0).name == "hold"
    client = face.client(memory_settings())
    with pytest.raises(ValueError, match="only calls of idempotent functions are repeated"):
        client.options(**{"retries": 1, **given}, idempotent=False)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"retries": True}, TypeError),
        ({"attempt_timeout": 0}, ValueError),
        ({"attempt_timeout": float("inf")}, ValueError),
        ({"backoff": -1}, ValueError),
        ({"backoff": float("inf")}, ValueError),
    ],
)
def test_options_that_mean_nothing_are_refused(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"{next(iter(given))}=.* cannot be used"):
        hold.options(**given)
