"""Signed messages between real processes over Redis: a server, the commands, a client, and strangers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from prpc.app_client import Client
from prpc.codec.signing import REPLY, Signatures
from prpc.exceptions import ClientTimeOutError, DecodeError
from prpc.names import QueueNames

ROOT = Path(__file__).parent.parent.parent
KEY, NEW = "key-of-the-processes-" + "1" * 20, "key-of-tomorrow-" + "2" * 20

SERVER = """
import sys
from prpc import AppServer

app = AppServer()

@app.function("process")
def double(x: int) -> int:
    return 2 * x

@app.function()
def fail(text: str) -> None:
    raise KeyError(text)

if __name__ == "__main__":
    app.start()
"""

CLIENT = """
from server_func import double, fail
from prpc import gather

print(gather(*(double(n) for n in range(100))).result(30)[-1])
try:
    fail("lost").result(30)
except KeyError as exc:
    print(exc)
"""

pytestmark = [pytest.mark.real_redis, pytest.mark.timeout(120)]


class Place:
    """A folder, a queue and the environment of its processes."""

    def __init__(self, folder: Path, url: str, queue: str) -> None:
        self.folder, self.url, self.names, self.queue = folder, url, QueueNames(queue), queue
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PRPC_")},
            **{"PRPC_TYPE_BROKER": "redis", "PRPC_URL_BROKER": url, "PRPC_QUEUE_NAME": queue, "PYTHONPATH": str(ROOT)},
        }

    def run(self, *command: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
        environ = self.environ if key is None else {**self.environ, "PRPC_SECRET_KEY": key}
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60
        )

    @contextmanager
    def serving(self, key: str = KEY) -> Iterator[None]:
        (self.folder / "server.py").write_text(SERVER)
        with (self.folder / "server.log").open("w") as log:
            environ = {**self.environ, "PRPC_SECRET_KEY": key}
            command = [sys.executable, "server.py"]
            server = subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            assert self.run("-m", "prpc", "ping", "--wait", "20", key=key).returncode == 0, self.log()
            yield
        finally:
            server.terminate()
            assert server.wait(30) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "server.log").read_text()


@pytest.fixture
def place(tmp_path: Path, redis_url: str, queue: str) -> Place:
    return Place(tmp_path, redis_url, queue)


def test_stubs_calls_and_errors_work_with_a_key_and_nothing_without(place: Place) -> None:
    with place.serving():
        made = place.run("-m", "prpc.create_server_func")
        assert made.returncode == 0, made.stderr
        (place.folder / "client.py").write_text(CLIENT)
        done = place.run("client.py")
        assert (done.returncode, done.stdout) == (0, "198\n'lost'\n"), done.stderr
        stranger = place.run("-m", "prpc.create_server_func", "--output", "other.py", key=None)
        assert stranger.returncode == 2
        assert "the server refused the call" in stranger.stderr
        assert place.run("-m", "prpc", "ping", key=None).returncode != 0
    assert KEY not in place.log() + made.stdout + made.stderr + stranger.stderr
    connection: Any = redis.Redis.from_url(place.url)
    with connection:
        letters = connection.xrange(place.names.dead)
        assert {fields[b"reason"] for _, fields in letters} == {b"signature"}
        assert len(letters) == 2


def test_keys_are_rotated_under_running_servers(place: Place) -> None:
    def client(key: str) -> Client:
        return Client("redis", place.url, place.queue, secret_key=key)

    with place.serving(f"{KEY},{NEW}"):
        for key in (KEY, f"{KEY},{NEW}", f"{NEW},{KEY}"):
            with client(key) as caller:
                assert caller.call("double", 4).result(20) == 8
    with place.serving(f"{NEW},{KEY}"), client(f"{NEW},{KEY}") as caller:
        assert caller.call("double", 5).result(20) == 10
    with place.serving(NEW):
        with client(NEW) as caller:
            assert caller.call("double", 6).result(20) == 12
        with client(KEY) as caller, pytest.raises(ClientTimeOutError):
            caller.options(timeout=1).call("double", 7).result(20)


def test_raw_calls_are_signed_too(place: Place, queue: str) -> None:
    def raw(message_id: str, x: int) -> bytes:
        return json.dumps({"func_name": "double", "func_args": [x], "func_kwargs": {}, "message_id": message_id}).encode()

    signatures = Signatures(KEY, queue)
    connection: Any = redis.Redis.from_url(place.url)
    with place.serving(), connection:
        good, bad = str(uuid.uuid4()), str(uuid.uuid4())
        seconds, microseconds = connection.time()
        facts = signatures.sign_call(raw(good, 3), {}, seconds + microseconds / 1e6, raw=True)
        connection.xadd(place.names.raw_calls, {"message": raw(bad, 1), **facts})
        connection.xadd(place.names.raw_calls, {"message": raw(bad, 1)})
        connection.xadd(place.names.raw_calls, {"message": raw(good, 3), **facts})
        key = place.names.raw_feedback(uuid.UUID(good))
        while (answer := connection.get(key)) is None:
            pass  # not ours to signal: the server writes it when it is done
        assert json.loads(answer)["result"] == json.loads(signatures.open(REPLY, answer))["result"] == 6
        assert connection.get(place.names.raw_feedback(uuid.UUID(bad))) is None
        assert connection.xlen(place.names.dead) == 2


def test_a_client_without_a_key_is_told_no_more_than_that_it_was_refused(place: Place) -> None:
    with place.serving(), Client("redis", place.url, place.queue) as client:
        with pytest.raises(DecodeError, match=r"^the server refused the call$"):
            client.call("double", 4).result(20)
