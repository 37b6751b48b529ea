"""The face: default client, stubs, many calls, progress."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from client_kit import ScriptedServer, memory_settings

from prpc import app_client
from prpc.app_client import AsyncClient, AwaitableTask, Client, as_completed, gather, remote_function, use_client
from prpc.client.channel import default_channel
from prpc.exceptions import ClientTimeOutError, ConfigurationError, NoServerError


@pytest.fixture(autouse=True)
def fresh_default() -> Iterator[None]:
    use_client(None)
    yield
    use_client(None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer(memory_settings()) as running:
        monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
        monkeypatch.setenv("PRPC_URL_BROKER", running.settings.url_broker)
        monkeypatch.setenv("PRPC_QUEUE_NAME", "q")
        yield running
        default_channel().close_from_plain_code()


@remote_function("add", schema="0123456789abcdef", idempotent=True)
def add(a: int, /, b: int = 1, *, note: str = "none") -> int:
    """Adds."""
    raise NotImplementedError


def test_without_a_client_the_environment_decides(server: ScriptedServer) -> None:
    assert AwaitableTask("add", (1,), {"b": 2}).sync_wait_result_task() == 3
    assert AwaitableTask("nothing").result() is None
    assert add(1).result() == 11
    assert app_client.ping() == "pong"
    assert app_client.get_function_server(5)[0]["func_name"] == "ping"


def test_a_stub_is_pickled_by_name_as_a_function_is(server: ScriptedServer) -> None:
    assert pickle.loads(pickle.dumps(add)) is add and copy.copy(add) is add
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(add.options(timeout=3))


def test_what_is_no_call_is_refused_where_calls_are_gathered(server: ScriptedServer) -> None:
    task = add(1)
    for wrong in (lambda: gather([task]), lambda: gather(1), lambda: as_completed([task, None])):  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"calls are expected .* gather\(\*tasks\)"):
            wrong()
    assert task.result() == 11


def test_the_default_client_is_made_once(server: ScriptedServer) -> None:
    assert add(1).result() == 11
    assert default_channel() is default_channel()


def test_a_bad_environment_is_said_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRPC_TYPE_BROKER", "pigeon")
    with pytest.raises(ConfigurationError, match="PRPC_TYPE_BROKER='pigeon'"):
        add(1)


def test_another_default_can_be_set(server: ScriptedServer) -> None:
    with Client("memory", memory_settings().url_broker, "q") as other:
        use_client(other)
        with pytest.raises(NoServerError):
            app_client.ping()
        use_client(None)
        assert app_client.ping() == "pong"


def test_a_stub_looks_like_its_function() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert str(inspect.signature(add)) == "(a: 'int', /, b: 'int' = 1, *, note: 'str' = 'none') -> 'int'"
    assert callable(add.__wrapped__)
    assert add.idempotent
    assert add.schema == "0123456789abcdef"
    assert "add" in repr(add)


def test_options_of_a_stub_add_up_and_leave_the_stub_alone(server: ScriptedServer) -> None:
    with Client("memory", server.settings.url_broker, "q") as client:
        tuned = add.options(client=client).options(timeout=60).options(headers={"a": "b"}, require_server=True)
        assert inspect.signature(tuned) == inspect.signature(add)
        task = tuned(1)
        assert task.result() == 11
        facts = server.facts[task.message.message_id]
        assert facts.headers == {"a": "b"}
        assert facts.timeout is not None
        assert facts.schema == "0123456789abcdef"
        plain = add(1)
        plain.result()
        assert server.facts[plain.message.message_id].headers == {}
        assert server.facts[plain.message.message_id].timeout is None


def test_clients_leave_by_their_context(server: ScriptedServer) -> None:
    with Client("memory", server.settings.url_broker, "q") as client:
        assert client.call("add", 1).result() == 11
        pump = client.channel.pump()
    assert pump.closed
    client.close()


def test_the_name_of_a_call_may_also_be_an_argument(server: ScriptedServer) -> None:
    with Client("memory", server.settings.url_broker, "q") as client:
        assert client.call("echo", name="x", self=1).result() == [[], {"name": "x", "self": 1}]


def test_results_without_annotation_stay_as_they_came(server: ScriptedServer) -> None:
    @remote_function("echo")
    def bare(*args):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    assert bare(1).result() == [[1], {}]


class Bar:
    """Stands in for tqdm.tqdm."""

    made: list[Bar]

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.seen, self.closed = total, 0, False
        Bar.made.append(self)

    def update(self, n: int) -> None:
        self.seen += n

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    module: Any = ModuleType("tqdm")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", module)
    Bar.made = []
    return Bar.made


def test_a_progress_bar_counts_the_calls(server: ScriptedServer, bars: list[Bar]) -> None:
    assert gather(*(add(number) for number in range(20)), progress=True).result() == [number + 10 for number in range(20)]
    assert len(list(as_completed([add(number) for number in range(5)], progress=True))) == 5
    assert add.map(range(3), progress=True).result() == [10, 11, 12]
    assert add.map((n for n in range(4)), range(9), progress=True).result() == list(range(0, 8, 2))
    expected = [(20, 20, True), (5, 5, True), (3, 3, True), (None, 4, True)]
    assert [(bar.total, bar.seen, bar.closed) for bar in bars] == expected


def test_the_progress_bar_of_a_map_is_closed_by_leaving_the_loop(server: ScriptedServer, bars: list[Bar]) -> None:
    async def scenario() -> None:
        async with AsyncClient("memory", server.settings.url_broker, "q") as client:
            async for _ in client.map("add", range(50), progress=True):
                break

    asyncio.run(scenario())
    for _ in add.map(range(50), progress=True):
        break
    assert [(bar.total, bar.seen, bar.closed) for bar in bars] == [(50, 1, True), (50, 1, True)]


def test_the_progress_bar_is_closed_when_time_runs_out(server: ScriptedServer, bars: list[Bar]) -> None:
    with pytest.raises(ClientTimeOutError, match="1 of 2"):
        gather(add(1), AwaitableTask("silent"), progress=True).result(0.05)
    assert [(bar.seen, bar.closed) for bar in bars] == [(1, True)]


def test_progress_without_its_library_says_what_to_install(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'prpc\[progress\]'"):
        gather(add(1), progress=True).result()


def test_the_real_progress_bar_fits(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    gather(*(add(number) for number in range(20)), progress=True).result()
    assert "20/20" in capsys.readouterr().err


def test_the_async_client_needs_no_loop_to_be_made() -> None:
    assert AsyncClient("memory", "memory://x", "q").queue == "q"
