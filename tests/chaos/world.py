"""The world of one chaos run: a Redis of its own, a proxy before it, real servers and real clients, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import redis.asyncio
from redis.exceptions import RedisError

from prpc.dev_broker import DevBroker, find_server, start_dev_broker
from prpc.names import QueueNames
from tests.chaos.journal import Journal
from tests.chaos.proxy import Proxy

__all__ = ["Options", "Program", "World"]

ROOT = Path(__file__).parent.parent.parent
QUEUE = "chaos"
GROUP = "prpc_group_consumers"

#: Seconds within which a program must start, end, and the queue be empty.
PATIENCE = 30.0
#: Seconds between two looks at the outcomes that Redis keeps.
LOOK_EVERY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a world is made of; every time in seconds."""

    servers: int = 3
    clients: int = 2
    slots: int = 16
    functions: tuple[str, ...] = ("thread", "async", "thread_again", "async_again")
    #: Calls per second of each client, and the most that it has open.
    rate: float = 300.0
    window: int = 150
    #: Deadline of each call.
    timeout: float = 8.0
    heartbeat: float = 0.3
    recover: float = 1.0
    connect_timeout: float = 2.0
    #: What a stopping server gives its calls.
    grace: float = 5.0
    #: Arguments of redis-server.
    redis: tuple[str, ...] = ()
    proxied: bool = False
    #: Whether a server that Redis refuses at its start is started again, as a supervisor does.
    supervised: bool = False


@dataclass(slots=True, eq=False)
class Program:
    """One process of the run."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    #: Whether it was ended on purpose.
    expected: bool = False
    #: Whether it took calls.
    ready: bool = False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone is none to send to."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int | None:
        """Its exit code; None where it did not end in time, then what its threads do stands in its log."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.alive:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self.kill(signal.SIGUSR1)
            await asyncio.sleep(0.2)
        return self.process.poll()

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class World:
    """Made in `folder`; use it with `async with`. What happens to it is written to its journal and to `story`."""

    def __init__(self, folder: Path, options: Options, seed: int) -> None:
        self.folder, self.options, self.seed = folder, options, seed
        #: For faults; each program's load has a generator of its own.
        self.random = random.Random(f"{seed} faults")
        self.journal = Journal(folder, "world")
        self.story: list[str] = []
        self.servers: list[Program] = []
        self.clients: list[Program] = []
        self._counts: dict[str, int] = {}
        self._began = time.monotonic()
        self._data = folder / "redis"
        self._stack = contextlib.AsyncExitStack()
        self._watcher: asyncio.Task[None] | None = None
        self._watching = True

    # its life

    async def __aenter__(self) -> World:
        self._data.mkdir()
        try:
            self.start_redis()
            self._stack.callback(self._end_programs)
            if self.options.proxied:
                self.proxy = await self._stack.enter_async_context(Proxy(self.broker.port))
            self.admin = redis.asyncio.Redis.from_url(self.broker.url)
            self._stack.push_async_callback(self.admin.aclose)
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
        self.broker.process.send_signal(signal.SIGCONT)
        self.broker.close()

    def tell(self, text: str) -> None:
        """Note in the story what is done now."""
        self.story.append(f"{time.monotonic() - self._began:8.3f} {text}")

    def fault(self, name: str) -> None:
        """Note that a fault begins."""
        self.tell(name)
        self.journal.write("fault", name=name)

    # Redis

    def start_redis(self, port: int = 0) -> None:
        """Start Redis on its folder; a further time on the port that it had."""
        self.broker: DevBroker = start_dev_broker(
            port, server=find_server(), options=("--dir", str(self._data), *self.options.redis)
        )

    async def restart_redis(self, *, away: float, number: signal.Signals = signal.SIGKILL) -> None:
        """End Redis and start it again `away` seconds later."""
        port = self.broker.port
        self.broker.process.send_signal(number)
        await asyncio.to_thread(self.broker.process.wait)
        self.broker.close()
        await asyncio.sleep(away)
        self.start_redis(port)

    # programs

    def _start(self, kind: str, config: dict[str, Any]) -> Program:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        name = f"{kind}-{number}"
        log = self.folder / f"{name}.log"
        # Measuring them (coverage) would make them slow enough to lose their short leases.
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PRPC_", "COV"))}
        environ |= {"CHAOS_FOLDER": str(self.folder), "CHAOS_SERVER": name, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
        if kind == "server":
            config["server"]["instance_name"] = name
        else:
            config |= {"name": name, "folder": str(self.folder), "seed": f"{self.seed} {name}"}
        with log.open("wb") as output:
            command = [sys.executable, "-m", f"tests.chaos.{kind}_program", json.dumps(config)]
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output, process_group=0)
        return Program(name, process, log)

    def _url(self) -> str:
        port = self.proxy.port if self.options.proxied else self.broker.port
        return f"redis://127.0.0.1:{port}/0"

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
            "type_broker": "redis",
            "broker_url": self._url(),
            "max_number_worker": options.slots,
            "name_queue": QUEUE,
            "redis_heartbeat": options.heartbeat,
            "redis_recover": options.recover,
            "connect_timeout": options.connect_timeout,
            "shutdown_grace": options.grace,
            "log_level": "warning",
        }
        config = {"server": server, "processes": any(name.startswith("process") for name in options.functions)}
        program = self._start("server", config)
        self.servers.append(program)
        return program

    async def _ready(self, program: Program) -> bool:
        """Wait until it announces itself; False where it did not, unless it was ended on purpose."""
        key, end = QueueNames(QUEUE).server(program.name), time.monotonic() + PATIENCE
        while time.monotonic() < end and program.alive:
            with contextlib.suppress(RedisError, OSError):
                if await self.admin.exists(key):
                    program.ready = True
                    return True
            await asyncio.sleep(0.02)
        ended, program.expected = program.expected, True
        return ended

    def start_client(self) -> Program:
        """A further client, which calls from its start on."""
        options = self.options
        client = {
            "type_broker": "redis",
            "broker_url": self._url(),
            "name_queue": QUEUE,
            "redis_heartbeat": options.heartbeat,
            "redis_recover": options.recover,
            "connect_timeout": options.connect_timeout,
        }
        config = {
            "client": client,
            "rate": options.rate,
            "window": options.window,
            "timeout": options.timeout,
            "functions": options.functions,
        }
        program = self._start("client", config)
        self.clients.append(program)
        return program

    def end(self, program: Program, number: signal.Signals) -> None:
        """End a program on purpose."""
        program.expected = True
        program.kill(number)

    def worker_processes(self) -> list[psutil.Process]:
        """Worker processes of all servers: what the servers' helpers have started, and has started nothing itself."""
        found = []
        for program in self.servers:
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(program.process.pid).children(recursive=True)
                parents = {process.ppid() for process in family}
                found += [process for process in family if process.pid not in parents and is_worker(process)]
        return found

    # looking on

    async def _watch(self) -> None:
        """Note the outcomes that Redis keeps, and the servers that end by themselves."""
        seen: set[tuple[str, str]] = set()
        while self._watching:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._look(seen)
            for program in self.servers:
                if program.ready and not program.expected and not program.alive:
                    program.expected = True
                    code = program.process.returncode
                    self.journal.write("broken", what=f"{program.name} ended by itself with {code}:\n{program.tail()}")

    async def _look(self, seen: set[tuple[str, str]]) -> None:
        prefix = QueueNames(QUEUE).feedback(UUID(int=0)).removesuffix(str(UUID(int=0)))
        keys = [key async for key in self.admin.scan_iter(match=prefix + "*", count=1000)]
        for key, body in zip(keys, await self.admin.mget(keys) if keys else (), strict=True):
            note = (
                key.decode().removeprefix(prefix),
                "" if body is None else hashlib.sha256(body.encode() if isinstance(body, str) else body or b"").hexdigest(),
            )
            if body is not None and note not in seen:
                seen.add(note)
                self.journal.write("stored", id=note[0], content=note[1])

    # the end

    async def finish(self, calm: float) -> None:
        """The world is whole: go on for `calm` seconds, have every client end, and see that nothing is left behind."""
        self.tell("calm")
        self.journal.write("calm")
        await asyncio.sleep(calm)
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
                code = await server.ended()
                if code != 0:
                    self.journal.write("broken", what=f"{server.name} stopped with {code}:\n{server.tail()}")

    async def _nothing_left(self) -> None:
        """Every entry was ended, by its outcome or by its deadline."""
        stream, end = QueueNames(QUEUE).calls, time.monotonic() + PATIENCE
        while True:
            length, pending = await self.admin.xlen(stream), (await self.admin.xpending(stream, GROUP))["pending"]
            if not length and not pending:
                return
            if time.monotonic() > end:
                self.journal.write("broken", what=f"{length} entries are left in the queue, {pending} of them pending")
                return
            await asyncio.sleep(0.05)


def is_worker(process: psutil.Process) -> bool:
    """Whether this is no helper of multiprocessing."""
    return "resource_tracker" not in " ".join(process.cmdline())


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started; what it started alone is left to nobody."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
