"""For the tests of the example systems: a queue on a real broker, the examples' programs as processes, and the back door."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prpc import Client, NoServerError
from prpc.brokers import create_broker
from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings
from tests.conformance.broker_harness import KafkaHarness, RedisHarness

ROOT = Path(__file__).parent.parent.parent
#: Longest wait of a test for something that must come.
PATIENCE = 40.0
CODEC = Codec()

#: The real brokers.
KINDS = (pytest.param("redis", marks=pytest.mark.real_redis), pytest.param("kafka", marks=pytest.mark.real_kafka))


def until(happened: Callable[[], bool]) -> None:
    """Wait for a state that is not ours to signal."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Place:
    """A queue that no other test has, and the processes that this test started."""

    def __init__(self, kind: str, url: str) -> None:
        self.queue = f"test_{uuid.uuid4().hex}"
        # A Kafka keeps no member that promises a shorter time.
        beat, recover = ("0.3", "1.0") if kind == "redis" else ("0.5", "2.5")
        self.variables = {
            "PRPC_TYPE_BROKER": kind,
            "PRPC_URL_BROKER": url,
            "PRPC_QUEUE_NAME": self.queue,
            "PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": beat,
            "PRPC_REDIS_RECOVER_INTERVAL_SEC": recover,
        }
        self.kind = kind
        self.settings = Settings.from_env(self.variables)
        self.harness = RedisHarness(self.settings) if kind == "redis" else KafkaHarness(self.settings)
        self._running: list[subprocess.Popen[str]] = []

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a program of this place."""
        return {**os.environ, **self.variables, "PYTHONPATH": str(ROOT), **more}

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Run Python with these words from the project's root; `end` ends it."""
        command = [sys.executable, *words]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ or self.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._running.append(process)
        return process

    def serve(self, module: str) -> subprocess.Popen[str]:
        """Start a worker, and wait until it answers."""
        process = self.start("-m", module)
        kind, url, queue = self.settings.type_broker, self.settings.url_broker, self.queue
        with Client(kind, url, queue) as client:

            def answers() -> bool:
                assert process.poll() is None, "the worker ended"
                try:
                    return client.ping(PATIENCE) == "pong"
                except NoServerError:
                    return False

            until(answers)
        return process

    def stop(self, process: subprocess.Popen[str]) -> int:
        """The exit code after SIGTERM."""
        process.terminate()
        self._running.remove(process)
        process.communicate(timeout=PATIENCE)
        return process.returncode

    def kill(self, process: subprocess.Popen[str]) -> None:
        self._running.remove(process)
        process.kill()
        process.communicate()

    def end(self) -> None:
        codes = [self.stop(process) for process in list(self._running)]
        if isinstance(self.harness, KafkaHarness):
            self.harness.close()
        else:
            for key in self.harness.client.scan_iter(f"prpc_*{self.queue}*"):
                self.harness.client.delete(key)
            self.harness.client.close()
        assert set(codes) <= {0}

    # -- the back door -------------------------------------------------------------------------------------------------

    def entries(self) -> list[dict[str, bytes]]:
        """The entries of the calls' stream or topic as they stand there; on Kafka also those that are done."""
        if isinstance(self.harness, RedisHarness):
            found = self.harness.client.xrange(self.harness.names.calls)
            return [{name.decode(): value for name, value in fields.items()} for _, fields in found]
        records = self.harness._do(self.harness._all(self.harness.names.calls))
        return [{"message": record.value, **dict(record.headers)} for record in records]

    def put(self, entry: Mapping[str, bytes]) -> None:
        """Add an entry, or a copy of one."""
        self.harness.put(entry, raw=False)

    def foreign(self, function: str, *args: Any) -> tuple[dict[str, bytes], UUID]:
        """An entry as another program would write it, without a reply address, and its id."""
        message = PRPCMessage(function, args, {}, uuid.uuid4(), datetime.now(UTC))
        return {"message": CODEC.write_call(message)}, message.message_id

    def stored(self, message_id: UUID) -> list[Any]:
        """Every answer that is kept for a call: the one of its key on Redis, all in the log of Kafka."""
        names = self.harness.names
        if isinstance(self.harness, RedisHarness):
            bodies = [self.harness.client.get(names.feedback(message_id))]
        else:
            records = self.harness._do(self.harness._all(names.feedback_topic))
            bodies = [record.value for record in records if record.key == str(message_id).encode()]
        return [CODEC.read_reply(body).result for body in bodies if body is not None]

    def settled(self) -> bool:
        """Whether no call waits or runs."""

        async def ask() -> bool:
            broker = create_broker(self.settings)
            await broker.connect()
            try:
                state = await broker.state(self.queue)
            finally:
                await broker.close()
            return state.waiting + state.taken == 0

        return asyncio.run(ask())


@contextmanager
def place_on(kind: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place on the real broker of this kind."""
    place = Place(kind, request.getfixturevalue("redis_url" if kind == "redis" else "kafka_bootstrap"))
    try:
        yield place
    finally:
        place.end()


def stubs_in(file: Path) -> list[str]:
    """The lines of generated stubs but the second, which names the queue."""
    lines = file.read_text().splitlines()
    assert lines[1].startswith("# Queue ")
    return [lines[0], *lines[2:]]


def generated_stubs(place: Place, folder: Path) -> list[str]:
    """The lines of the stubs that the place's server gives now."""
    file = folder / "server_func.py"
    command = [sys.executable, "-m", "prpc.create_server_func", "--output", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=place.environ(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return stubs_in(file)
