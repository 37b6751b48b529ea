"""The world of one chaos run: a broker of its own, a proxy before it, real servers and real clients, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.clocks import CLOCK_FILE, set_clock
from tests.chaos.journal import Journal
from tests.chaos.kafka_side import KafkaSide
from tests.chaos.options import QUEUE, Options
from tests.chaos.program import PATIENCE, Program, end_family
from tests.chaos.proxy import Proxy
from tests.chaos.redis_side import RedisSide
from tests.chaos.side import Side

__all__ = ["World"]

ROOT = Path(__file__).parent.parent.parent
#: Seconds between two looks at the outcomes that the broker keeps.
LOOK_EVERY = 0.25


class World:
    """Made in `folder`; use it with `async with`. What happens to it is written to its journal and to `story`."""

    def __init__(self, folder: Path, options: Options, seed: int) -> None:
        self.folder, self.options, self.seed = folder, options, seed
        self.side: Side = KafkaSide(folder, options) if options.broker == "kafka" else RedisSide(folder, options)
        #: For faults; each program's load has a generator of its own.
        self.random = random.Random(f"{seed} faults")
        self.journal = Journal(folder, "world")
        self.story: list[str] = []
        self.servers: list[Program] = []
        self.clients: list[Program] = []
        self._counts: dict[str, int] = {}
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._stack = contextlib.AsyncExitStack()
        self._watcher: asyncio.Task[None] | None = None
        self._watching = True

    # its life

    async def __aenter__(self) -> World:
        try:
            self.side.start()
            self._stack.callback(self._end_programs)
            if self.options.proxied:
                self.proxy = await self._stack.enter_async_context(Proxy(self.side.port))
            self._stack.push_async_callback(self.side.aclose)
            await self.side.open()
            await asyncio.gather(*(self.start_server() for _ in range(self.options.servers)))
            for _ in range(self.options.clients):
                self.start_client()
        except BaseException:
            await self._stack.aclose()
            raise
        self._watcher = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._served(client) for client in self.clients))
        return self

    async def _served(self, client: Program) -> None:
        """Wait until a client has its first outcome."""
        file, end = self.folder / f"{client.name}.events", time.monotonic() + PATIENCE
        while not (file.exists() and '"outcome"' in file.read_text()):
            if not client.alive or time.monotonic() > end:
                raise RuntimeError(f"{client.name} got no outcome:\n{client.tail()}")
            await asyncio.sleep(0.02)
        client.ready = True

    async def __aexit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watching = False  # redis-py may take a cancellation for a timeout of its own, and the look would go on
            await self._watcher
        await self._stack.aclose()
        self.journal.close()

    def _end_programs(self) -> None:
        for program in (*self.servers, *self.clients):
            program.kill(signal.SIGCONT)
            end_family(program.process)
        self.side.close()

    @property
    def redis(self) -> RedisSide:
        """For faults of Redis."""
        assert isinstance(self.side, RedisSide)
        return self.side

    @property
    def kafka(self) -> KafkaSide:
        """For faults of Kafka."""
        assert isinstance(self.side, KafkaSide)
        return self.side

    def tell(self, text: str) -> None:
        """Note in the story what is done now."""
        self.story.append(f"{time.monotonic() - self._began:8.3f} {text}")

    @contextlib.contextmanager
    def fault(self, name: str, *hits: str, mended: str = "", calls: Iterable[str] = (), **effects: bool) -> Iterator[None]:
        """A fault is there while the block runs. What it hits, and `effects` (kills, forgets): see tests/ledger/causes.py."""
        number = next(self._numbers)
        self.tell(name)
        self.journal.write("fault", number=number, name=name, hits=hits, calls=list(calls), **effects)
        try:
            yield
        finally:
            if mended:
                self.tell(mended)
            self.journal.write("mended", number=number)

    # programs

    def _start(self, kind: str, config: dict[str, Any], *, talks: bool = False) -> Program:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        name = f"{kind}-{number}"
        log = self.folder / f"{name}.log"
        # Measuring them (coverage) would make them slow enough to lose their short leases.
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PRPC_", "COV"))}
        environ |= {"CHAOS_FOLDER": str(self.folder), "CHAOS_SERVER": name, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
        if kind == "server":
            config["server"]["instance_name"] = name
            config["server"]["event_loop"] = ("asyncio", "uvloop")[number % 2]
        else:
            config |= {"name": name, "folder": str(self.folder), "seed": f"{self.seed} {name}"}
        module = [f"tests.chaos.{kind}_program"]
        if self.options.clocks:
            environ[CLOCK_FILE] = str(self.clock_of(name))
            set_clock(self.clock_of(name), self.random.choice(self.options.clocks))
            module.insert(0, "tests.chaos.shifted_program")
        with log.open("wb") as output:
            command = [sys.executable, "-m", *module, json.dumps(config)]
            ways = (subprocess.PIPE, subprocess.PIPE) if talks else (None, output)
            process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=ways[0], stdout=ways[1], stderr=output, process_group=0
            )
        return Program(name, process, log)

    def clock_of(self, name: str) -> Path:
        """The file from which a program learns what its wall clock shows."""
        return self.folder / f"{name}.clock"

    def _url(self) -> str:
        return self.side.url(self.proxy.port if self.options.proxied else self.side.port)

    async def start_server(self) -> None:
        """A further server; returns when it takes calls."""
        end = time.monotonic() + PATIENCE
        while not await self._ready(program := self._launch_server()):
            if not self.options.supervised or time.monotonic() > end:
                self.journal.write("broken", what=f"{program.name} did not start:\n{program.tail()}")
                return
            self.tell(f"{program.name} did not start and is started again")

    def _launch_server(self) -> Program:
        options = self.options
        server = {
            "type_broker": self.side.type_broker,
            "broker_url": self._url(),
            "max_number_worker": options.slots,
            "name_queue": QUEUE,
            "redis_heartbeat": options.heartbeat,
            "redis_recover": options.recover,
            "connect_timeout": options.connect_timeout,
            "shutdown_grace": options.grace,
            "log_level": os.environ.get("CHAOS_LOG", "warning"),
            "secret_key": options.secret,
            **self.side.settings,
        }
        config = {"server": server, "processes": any(name.startswith("process") for name in options.functions)}
        program = self._start("server", config)
        self.servers.append(program)
        return program

    async def _ready(self, program: Program) -> bool:
        """Wait until it announces itself; False where it did not, unless it was ended on purpose."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and program.alive:
            with contextlib.suppress(*self.side.errors):
                if await self.side.announced(program.name):
                    program.ready = True
                    return True
            await asyncio.sleep(0.02)
        ended, program.expected = program.expected, True
        return ended

    def start_client(self) -> Program:
        """A further client, which calls from its start on."""
        options = self.options
        config = {"rate": options.rate, "window": options.window, "functions": options.functions}
        return self._start_caller("client", config)

    def start_talker(self) -> Program:
        """A client that calls when it is told to on its input (tests/chaos/talk_program.py)."""
        return self._start_caller("talk", {}, talks=True)

    def _start_caller(self, kind: str, config: dict[str, Any], *, talks: bool = False) -> Program:
        options = self.options
        client = {
            "type_broker": self.side.type_broker,
            "broker_url": self._url(),
            "name_queue": QUEUE,
            "redis_heartbeat": options.heartbeat,
            "redis_recover": options.recover,
            "connect_timeout": options.connect_timeout,
            "secret_key": options.secret,
            "call_backoff_max": options.longest_pause,
            **self.side.settings,
        }
        repeats = {name: getattr(options, name) for name in ("attempt_timeout", "backoff", "retries")}
        config |= {"client": client, "timeout": options.timeout, "repeats": repeats}
        program = self._start(kind, config, talks=talks)
        self.clients.append(program)
        return program

    def end(self, program: Program, number: signal.Signals) -> None:
        """End a program on purpose."""
        program.expected = True
        program.kill(number)

    # looking on

    async def _watch(self) -> None:
        """Note the outcomes that the broker keeps, and the servers that end by themselves."""
        seen: set[tuple[str, str]] = set()
        while self._watching:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(*self.side.errors, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._look(seen)
            if what := self.side.broken():
                self.journal.write("broken", what=what)
            for program in self.servers:
                if program.ready and not program.expected and not program.alive:
                    program.expected = True
                    code = program.process.returncode
                    self.journal.write("broken", what=f"{program.name} ended by itself with {code}:\n{program.tail()}")

    async def _look(self, seen: set[tuple[str, str]]) -> None:
        for note in await self.side.outcomes():
            if note not in seen:
                seen.add(note)
                self.journal.write("stored", id=note[0], content=note[1])

    # the end

    async def finish(self, calm: float) -> None:
        """The world is whole: go on for `calm` seconds, have every client end, and see that nothing is left behind."""
        self.tell("calm")
        self.journal.write("calm")
        await asyncio.sleep(calm)
        # One that was started last may not have come far enough to be told that it ends.
        await asyncio.gather(*(self._served(client) for client in self.clients if not client.expected))
        self.tell("clients end")
        for client in self.clients:
            if not client.expected:
                self.end(client, signal.SIGTERM)
        for client in self.clients:
            code = await client.ended()
            if code not in (0, -signal.SIGKILL):
                self.journal.write("broken", what=f"{client.name} ended with {code}:\n{client.tail()}")
        await self._nothing_left()
        for server in self.servers:
            if not server.expected:
                self.end(server, signal.SIGTERM)
                await self.stopped(server)
        for message_id, reason in await self.side.dead_letters():
            self.journal.write("dead", id=message_id, reason=reason)

    async def stopped(self, server: Program) -> None:
        """Wait until a server that was told to stop has ended as it should."""
        code = await server.ended()
        if code not in self.options.exits:
            self.journal.write("broken", what=f"{server.name} stopped with {code}:\n{server.tail()}")

    async def _nothing_left(self) -> None:
        """Every entry was ended, by its outcome or by its deadline."""
        end = time.monotonic() + PATIENCE
        while left := await self.side.left():
            if time.monotonic() > end:
                self.journal.write("broken", what=left)
                return
            await asyncio.sleep(0.05)
