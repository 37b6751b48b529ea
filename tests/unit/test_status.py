"""`python -m prpc health`, `servers` and `running`, over announcements of every kind."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prpc.__main__ import main
from prpc.brokers.base import ServerRecord
from prpc.brokers.memory import MemoryBroker
from prpc.settings import Settings

Announce = Callable[..., None]

INFO: dict[str, object] = {
    "functions": {"summ": "01", "nap": "02"},
    "schema": "00ff",
    "capacity": 4,
    "running": 0,
    "draining": False,
    "abandoned": 1,
    "replaced": 2,
    "host": "pod",
    "pid": 7,
    "calls": [],
}
CALL = {"id": "1-2", "function": "nap", "worker": "prpc-thread-1", "running": 60.0, "left": 30.0, "attempt": 1}


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Iterator[Announce]:
    """Announces a server on the queue that the commands' environment names."""
    url = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
    monkeypatch.setenv("PRPC_URL_BROKER", url)
    broker = MemoryBroker(Settings.from_env())

    def say(instance: str = "one", **changes: object) -> None:
        asyncio.run(broker.announce("task_prpc", ServerRecord(instance, {**INFO, **changes}), 60))

    yield say
    asyncio.run(broker.close())


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_health_of_any_server(announce: Announce, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = told(capsys, "health")
    assert (code, "no server announces itself on the queue 'task_prpc' at memory://" in error) == (1, True)
    announce("one", draining=True)
    assert told(capsys, "health") == (1, "", "prpc: not ready: server one is draining\n")
    announce("two")
    assert told(capsys, "health") == (0, "ready: 1 of 2 servers\n", "")


def test_health_of_one_server(announce: Announce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    announce("one")
    announce("two", draining=True)
    assert told(capsys, "health", "--instance", "one") == (0, "ready\n", "")
    monkeypatch.setenv("PRPC_INSTANCE_NAME", "two")
    assert told(capsys, "health")[0] == 1
    monkeypatch.setenv("PRPC_INSTANCE_NAME", "three")
    code, _, error = told(capsys, "health")
    assert (code, "no server three announces itself" in error) == (1, True)


def test_an_old_announcement_is_no_health(
    announce: Announce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ServerRecord("one", INFO, 7.25)

    async def servers(*_: object) -> list[ServerRecord]:
        return [old]

    monkeypatch.setattr(MemoryBroker, "servers", servers)
    assert told(capsys, "health") == (1, "", "prpc: not ready: server one was last seen 7.2 s ago\n")
    monkeypatch.setenv("PRPC_HEALTH_WINDOW_SEC", "8")
    assert told(capsys, "health")[0] == 0


@pytest.mark.parametrize("age", [float("inf"), 1e300, float("nan")])
def test_an_age_that_no_calendar_holds_is_bounded(
    announce: Announce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    strange = ServerRecord("one", {**INFO, "calls": [{**CALL, "running": -1e308, "left": 1e308}]}, age)

    async def servers(*_: object) -> list[ServerRecord]:
        return [strange]

    monkeypatch.setattr(MemoryBroker, "servers", servers)
    assert [told(capsys, *words)[0] for words in (("servers",), ("running",), ("servers", "--json"))] == [0, 0, 0]


def test_servers(announce: Announce, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "servers") == (0, "no server announces itself\n", "")
    assert told(capsys, "servers", "--json") == (0, "[]\n", "")
    announce("one", running=3)
    announce("two", draining=True)
    code, text, error = told(capsys, "servers")
    heads, first, second = (line.split() for line in text.splitlines())
    assert (code, error) == (0, "")
    assert heads[:5] == ["instance", "host", "pid", "state", "running"]
    assert first[:-1] == ["one", "pod", "7", "serving", "3", "4", "2", "00ff", "1", "2"]
    assert second[3] == "draining"
    rows = json.loads(told(capsys, "servers", "--json")[1])
    assert [row["instance"] for row in rows] == ["one", "two"]
    assert rows[0]["functions"] == ["summ", "nap"] and rows[0]["draining"] is False and "T" in rows[0]["last_seen"]


def test_servers_that_differ_are_told(announce: Announce, capsys: pytest.CaptureFixture[str]) -> None:
    announce("one")
    announce("two", schema="1122")
    assert "do not have the same functions" in told(capsys, "servers")[2]


def test_running(announce: Announce, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "running") == (0, "no call runs\n", "")
    announce("one", calls=[CALL], running=1)
    announce("two", calls=[{**CALL, "id": "3-4", "running": 90.0, "left": None, "worker": ""}], running=3)
    code, text, error = told(capsys, "running")
    heads, first, second = (line.split() for line in text.splitlines())
    assert (code, heads) == (0, ["id", "function", "worker", "since", "attempt", "deadline", "instance"])
    assert (first[:3], first[4:]) == (["3-4", "nap", "-"], ["1", "-", "two"])
    assert (second[:3], second[-1]) == (["1-2", "nap", "prpc-thread-1"], "one")
    assert error == "prpc: 2 more calls run; a server tells of its oldest ones only\n"
    rows = json.loads(told(capsys, "running", "--json")[1])
    assert [row["id"] for row in rows] == ["3-4", "1-2"]
    assert rows[0]["deadline"] is None and rows[1]["since"] < rows[1]["deadline"]


@pytest.mark.parametrize("command", ["health", "servers", "running"])
@pytest.mark.parametrize(
    "changes",
    [
        dict.fromkeys(INFO),
        {"functions": 5, "calls": {"x": 1}, "running": "many", "schema": ["a"]},
        {"calls": [5, {}, {"id": {}, "running": 1e300, "left": "soon"}], "pid": "\x1b[2J"},
    ],
)
def test_strange_announcements_are_shown_as_they_are(
    announce: Announce, capsys: pytest.CaptureFixture[str], command: str, changes: dict[str, Any]
) -> None:
    announce("o\x1b]0;ne", **changes)
    for arguments in ([], ["--json"]) if command != "health" else ([],):
        code, text, error = told(capsys, command, *arguments)
        assert code == 0
        assert "\x1b" not in text + error


def test_a_broker_that_does_not_answer_is_an_error(
    announce: Announce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryBroker, "connect", connect)
    code, text, error = told(capsys, "health", "--timeout", "0.01")
    assert (code, text) == (1, "")
    assert error.startswith("prpc: memory://") and "did not answer within 0.01 s" in error
