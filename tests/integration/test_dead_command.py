"""`python -m prpc dead` over a real Redis: tables for people, JSON for scripts, exit codes for both."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from prpc.__main__ import main
from prpc.app_server import AppServer
from prpc.brokers import create_broker
from prpc.brokers.base import Outgoing, ServerRecord
from prpc.codec import Codec
from prpc.names import QueueNames
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis

MESSAGE_ID = uuid4()
CALL = Codec().write_call(PRPCMessage("charge", (1,), {}, MESSAGE_ID, datetime.now(UTC)))


@pytest.fixture
def names(redis_url: str, queue: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> QueueNames:
    monkeypatch.chdir(str(tmp_path))
    for name, value in {"TYPE_BROKER": "redis", "URL_BROKER": redis_url, "QUEUE_NAME": queue}.items():
        monkeypatch.setenv(f"PRPC_{name}", value)
    return QueueNames(queue)


@pytest.fixture
def admin(redis_url: str, names: QueueNames) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        for key in client.scan_iter(f"prpc_*{names.queue}*"):
            client.delete(key)


@pytest.fixture
def bury(admin: redis.Redis, names: QueueNames) -> Callable[..., str]:
    """Has a server give up one entry; the letter's id."""

    def make(reason: str, fields: dict[str, bytes], *, raw: bool = False, details: str = "") -> str:
        async def work() -> None:
            broker = create_broker(Settings.from_env())
            await broker.connect()
            await broker.declare(names.queue)
            admin.xadd(names.raw_calls if raw else names.calls, dict(fields))
            consumer = broker.consume(names.queue, consumer=uuid4().hex)
            (delivery,) = await consumer.take(1)
            assert await delivery.bury(reason, details=details)
            await broker.close()

        asyncio.run(work())
        return str(admin.xrevrange(names.dead, count=1)[0][0].decode())

    return make


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What `python -m prpc dead` prints."""
    assert main(["dead", *words]) == code
    return capsys.readouterr().out


def test_nothing_there(names: QueueNames, admin: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "list") == f"no dead letters in queue {names.queue!r}\n"
    assert json.loads(printed(capsys, "list", "--json")) == []
    assert printed(capsys, "requeue", "--all") == "0 requeued\n"
    assert main(["dead", "show", "1-1"]) == 1
    assert capsys.readouterr().err == f"prpc: queue {names.queue!r} has no dead letter '1-1'\n"
    assert main(["dead", "drop", "1-1", "nonsense"]) == 1
    assert capsys.readouterr().err.count("has no dead letter") == 2


def test_a_table_and_a_letter(bury: Callable[..., str], names: QueueNames, capsys: pytest.CaptureFixture[str]) -> None:
    first = bury("attempts", {"message": CALL, "reply_to": b"me"}, details="KeyError: 1\n  Traceback\x1b[31m")
    second = bury("form", {"\x1b[2J": b"\xff", "own": b"x" * 3000}, raw=True)
    head, *rows = printed(capsys, "list").splitlines()
    assert head.split() == ["ID", "BURIED", "REASON", "ATTEMPTS", "FUNCTION", "MESSAGE_ID"]
    assert [row.split()[0] for row in rows] == [first, second]
    assert rows[0].split()[2:] == ["attempts", "1", "charge", str(MESSAGE_ID)]
    assert rows[1].split()[2:] == ["form", "1", "-", "-"]
    assert printed(capsys, "list", "--reason", "form").count("\n") == 2

    text = printed(capsys, "show", first)
    assert "\nfunction:   charge\n" in text
    assert "\nKeyError: 1\n  Traceback\\x1b[31m\n" in text
    assert "\n  reply_to: me\n" in text
    text = printed(capsys, "show", second)
    assert "\x1b" not in text
    assert "\\x1b[2J: b'\\xff'" in text
    assert "x... (3000 bytes)" in text


def test_json_holds_every_byte(bury: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    first = bury("attempts", {"message": CALL, "blob": b"\xff\x00"}, details="why")
    (listed,) = json.loads(printed(capsys, "list", "--json"))
    assert (listed["id"], listed["reason"], listed["attempts"]) == (first, "attempts", 1)
    assert (listed["function"], listed["message_id"], listed["stream"]) == ("charge", str(MESSAGE_ID), "calls")
    assert datetime.fromisoformat(listed["sent"]) <= datetime.fromisoformat(listed["buried"])
    shown = json.loads(printed(capsys, "show", first, "--json"))
    assert {**listed, "details": "why", "fields": shown["fields"]} == shown
    message, blob = shown["fields"]
    assert message == {"name": "message", "value": CALL.decode()}
    assert [base64.b64decode(blob[key]) for key in ("name_base64", "value_base64")] == [b"blob", b"\xff\x00"]


def test_requeue_and_drop(
    bury: Callable[..., str], names: QueueNames, admin: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [bury("attempts" if n % 2 else "form", {"message": b"%d" % n}) for n in range(6)]
    assert printed(capsys, "requeue", ids[0], ids[0]) == "1 requeued\n"
    assert json.loads(printed(capsys, "drop", ids[1], ids[0], "--json", code=1)) == {
        "dropped": [ids[1]],
        "missing": [ids[0]],
        "refused": [],
    }
    assert printed(capsys, "drop", "--all", "--reason", "attempts") == "2 dropped\n"
    assert printed(capsys, "requeue", "--all") == "2 requeued\n"
    assert [fields[b"message"] for _, fields in admin.xrange(names.calls)] == [b"0", b"2", b"4"]
    assert admin.xlen(names.dead) == 0


def test_what_cannot_go_back_stays(names: QueueNames, admin: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    admin.xadd(names.dead, {"reason": "by hand"})
    assert main(["dead", "requeue", "--all"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 requeued\n"
    assert "cannot be put back" in captured.err
    assert "-" in printed(capsys, "list").splitlines()[1].split()
    assert admin.xlen(names.dead) == 1


@pytest.mark.parametrize("words", [["requeue"], ["drop"], ["drop", "--all", "1-1"], ["drop", "1-1", "--reason", "x"], []])
def test_a_wrong_command_line(words: list[str], names: QueueNames, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dead", *words])
    assert caught.value.code == 2
    assert "usage: python -m prpc dead" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["dead", "list"], ["queue"]])
def test_a_memory_broker_is_nobody_elses(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
    assert main(words) == 1
    assert "memory broker" in capsys.readouterr().err


def test_the_queue(bury: Callable[..., str], names: QueueNames, admin: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "waiting:       0",
        "taken:         0",
        "dead letters:  0",
        "servers:       0",
    ]
    bury("form", {"message": b"x"})
    admin.xadd(names.calls, {"message": b"x", "prpc_born_ms": "1000"})

    async def announce() -> None:
        broker = create_broker(Settings.from_env())
        await broker.connect()
        info = {"host": "web\x1b", "pid": 7, "capacity": 4, "functions": ["a", "b"]}
        await broker.announce(names.queue, ServerRecord("one", info), 60)
        await broker.close()

    asyncio.run(announce())
    assert main(["queue"]) == 0
    first, waiting, *_, dead, servers, server = capsys.readouterr().out.splitlines()
    assert first == f"queue:         {names.queue}"
    assert waiting.startswith("waiting:       1, the next one for ")
    assert (dead, servers) == ("dead letters:  1", "servers:       1")
    assert server == "  one on web\\x1b, pid 7, 4 slots, 2 functions"
    assert main(["queue", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["waiting"], facts["taken"], facts["dead_letters"]) == (1, 0, 1)
    assert facts["next_waits_seconds"] > 1e9
    assert facts["servers"][0]["functions"] == ["a", "b"]


def test_no_broker(monkeypatch: pytest.MonkeyPatch, names: QueueNames) -> None:
    monkeypatch.setenv("PRPC_URL_BROKER", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-m", "prpc", "dead", "list"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("prpc: ")


def test_a_requeued_call_runs(names: QueueNames, admin: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    """Its id was sent before, and yet it is no double of itself."""
    ran: list[int] = []

    async def give_up() -> None:
        broker = create_broker(Settings.from_env())
        await broker.connect()
        await broker.declare(names.queue)
        await broker.publish(names.queue, Outgoing(MESSAGE_ID, CALL, {}))
        (delivery,) = await broker.consume(names.queue, consumer="one").take(1)
        assert await delivery.bury("attempts")
        await broker.close()

    async def serve() -> None:
        done = asyncio.Event()

        async def charge(x: int) -> None:
            ran.append(x)
            done.set()

        app = AppServer()
        app.register_func(charge, "async")
        server = asyncio.create_task(app.serve())
        async with asyncio.timeout(30):
            await done.wait()
        await app.stop()
        await server

    asyncio.run(give_up())
    assert printed(capsys, "requeue", "--all") == "1 requeued\n"
    asyncio.run(serve())
    assert ran == [1]
