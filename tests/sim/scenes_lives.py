"""Scenes of what happens to whole processes: starts that are refused, probes, forks, programs that leave calls behind."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from prpc.app_client import AsyncClient, Client
from prpc.client import portal
from prpc.deadline import SystemClock
from prpc.exceptions import BrokerUnavailableError, CallError, ConfigurationError
from prpc.server import logs
from prpc.server.service import Service
from tests.sim import acts
from tests.sim.nemesis import Nemesis
from tests.sim.ports import probe
from tests.sim.stage import Stage, ends, sync_ends

__all__ = ["PORT", "forgotten", "forks", "probes", "stops"]

PORT = 8080


# Probes.


def probes(stage: Stage) -> None:
    """Somebody looks whether servers are well, in every wrong way, too, while the broker goes away."""
    stage.directs(_probes(stage))
    stage.directs(_taken(stage))


async def _probes(stage: Stage) -> None:
    world = stage.world
    restart = asyncio.ensure_future(Nemesis(world).broker_pause())
    for _ in range(20):
        await asyncio.sleep(0.6)
        for server in world.servers:
            if server.alive and server.host is not None and server.service is not None:
                answer = await probe(server.host, PORT, b"GET /ready HTTP/1.1\r\n\r\n")
                if answer:
                    status = b"200 OK" if b'"ok": true' in answer else b"503 Service Unavailable"
                    assert status in answer, answer
    await restart
    requests: list[tuple[bytes, bytes]] = [
        (b"GET /live HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET /live HTTP/1.0\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /else HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /live HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /live\r\n\r\n", b"400"),
        (b"GET /live HTTP/9\r\n\r\n", b"400"),
        (b"GET /live", b"400"),
        (b"GET /" + b"x" * 5000 + b"\r\n\r\n", b"431"),
    ]
    host = world.servers[0].host
    assert host is not None
    for request, status in requests:
        answer = await probe(host, PORT, request)
        assert not answer or answer.startswith(b"HTTP/1.1 " + status), (request, answer)
    await probe(host, PORT, b"GET /live HTTP/1.1\r\n\r\n", gone=True)
    slow = [asyncio.ensure_future(probe(host, PORT, b"GET", b" /", pause=1.0, ends=False)) for _ in range(40)]
    await asyncio.wait(slow)
    open_one = asyncio.ensure_future(probe(host, PORT, b"GET", b" /", pause=1.0, ends=False))
    await asyncio.sleep(0.1)
    await Nemesis(world).stop()
    await open_one


async def _taken(stage: Stage) -> None:
    """A server whose port somebody else has."""
    world = stage.world
    world.taken_ports.add(PORT + 1)
    host = world.add_process("late")
    settings = replace(world.settings, instance_name="late", health_port=PORT + 1)
    service = Service(settings, acts.plain_registry(), clock=SystemClock())
    assert service.health.obstacle() == "the server is starting" and service.health.silence is None
    service.health.phase = type(service.health.phase).SERVING
    assert "yet" in str(service.health.obstacle())
    service.end_overdue()
    task = world.loop.spawn(host, service.serve(lambda: None))
    await asyncio.wait([task], timeout=30.0)
    assert isinstance(task.exception(), ConfigurationError), task
    _logs()


def _logs() -> None:
    """What a server writes for people and for machines."""
    prpc, root = logging.getLogger("prpc"), logging.getLogger()
    before, level, roots = list(prpc.handlers), prpc.level, list(root.handlers)
    prpc.handlers, root.handlers = [], []
    try:
        for form in ("json", "text"):
            prpc.setLevel(logging.NOTSET)
            logs.configure(form, "info", io.StringIO())
            logs.configure(form, "debug", io.StringIO())
            handler = prpc.handlers.pop()
            record = logging.makeLogRecord(
                {"name": "prpc", "msg": "a %s", "args": ("b",), "levelname": "INFO", "message_id": "x"}
            )
            text = handler.format(record)
            assert "a b" in text and (form == "text" or json.loads(text)["message_id"] == "x"), text
            try:
                raise ValueError("why")
            except ValueError as exc:
                record.exc_info = (ValueError, exc, exc.__traceback__)
            assert "why" in handler.format(record)
    finally:
        prpc.handlers, root.handlers = before, roots
        prpc.setLevel(level)


# Stops.


def stops(stage: Stage) -> None:
    """Servers that are stopped while functions run that do not end, and one whose program is cancelled."""
    stage.acts(_long, expects={"*": ("WorkerLostError", "ServerShutdownError")})
    stage.directs(_stops(stage))


async def _long(client: AsyncClient) -> None:
    tasks = [client.options(timeout=12.0).call(name, 6.0, end) for name in ("work", "safe") for end in ("value", "stubborn")]
    tasks += [client.options(timeout=30.0).call("capped", 3.0, "value") for _ in range(4)]
    tasks += [client.options(timeout=30.0).call("told_slowly", number) for number in range(6)]
    tasks.append(client.options(timeout=30.0).call("feed", _forever(), "value"))
    await asyncio.sleep(0.8)
    running = [task for task in tasks if not task.is_done_task()]
    await asyncio.gather(*(_done(task) for task in running))


async def _done(task: Any) -> None:
    try:
        await task
    except (CallError, BrokerUnavailableError):
        pass


async def _forever() -> AsyncIterator[int]:
    for number in range(10_000):
        yield number
        await asyncio.sleep(0.5)


async def _stops(stage: Stage) -> None:
    world = stage.world
    await asyncio.sleep(0.5)
    for server in world.servers:
        if server.alive and server.service is not None and server.host is not None and server.task is not None:
            server.service.end_overdue()
            if server is world.servers[0]:
                world.fault("stop", server.host.name)
                server.stopping = True
                world.loop.on(server.host, server.task.cancel)
                await asyncio.wait([server.task], timeout=60)
            else:
                world.fault("stop", server.host.name)
                server.stopping = True
                world.loop.on(server.host, server.service.request_stop, 0.1)
                await asyncio.wait([server.task], timeout=60)
            if not server.alive:
                world.start_server(server)


# Clients that go.


def forgotten(stage: Stage) -> None:
    """Calls that nobody waits for while the broker is away, and programs that end in the middle."""
    stage.acts(lambda client: _forgets(stage, client))
    stage.plays(_forgets_plainly)
    stage.directs(_goes_away(stage))


async def _goes_away(stage: Stage) -> None:
    await asyncio.sleep(0.3)
    number = stage.world.fault("broker_restart", "broker", forgets=False)
    stage.world.network.go_down()
    await asyncio.sleep(12.0)
    stage.world.network.up = True
    stage.world.mended(number)


async def _forgets(stage: Stage, client: AsyncClient) -> None:
    await client.call("work", 0.0, "value")
    await asyncio.sleep(0.5)
    held = [client.options(timeout=8.0).call(name, 0.0, "value") for name in ("work", "work", "safe")]
    await asyncio.sleep(9.0)
    for task in held:
        await _done(task)
    lost = client.options(timeout=15.0).call("work", 0.0, "value")
    stream = client.options(timeout=15.0).stream("stream", 0.0, "value", 3)
    for waiting in (client.servers(), lost, anext(stream)):
        await _done(waiting)
    stage.leave(stream)
    await stream.aclose()
    await asyncio.sleep(8.0)
    await client.call("work", 0.0, "value")


def _forgets_plainly(client: Client) -> None:
    time.sleep(0.6)
    held = client.options(timeout=30.0).call("work", 0.0, "value")
    time.sleep(4.0)
    try:
        held.result()
    except (CallError, BrokerUnavailableError):
        pass
    client.options(timeout=30.0).call("safe", 0.0, "value")


# Forks.


def forks(stage: Stage) -> None:
    """A program that forks, seen from the child; and names that are looked up meanwhile."""
    stage.plays(lambda client: _forks(stage, client))


def _forks(stage: Stage, client: Client) -> None:
    task = client.options(timeout=60.0).call("work", 30.0, "value")
    stream = client.stream("stream", 1.0, "value", 1)
    next(stream)
    client.call("work", 0.0, "value").result()
    looked_up = portal.current_portal().run(_look_up())
    assert looked_up, looked_up
    loop = stage.world.loop
    if task.is_done_task():  # faults have held up everything else for so long
        return
    portal._before_fork()
    stage.leave(stream, silent=True)
    for part in list(loop.current.process.parts):  # a child has no thread but the one that forked
        loop.remove_host(part)
    portal._in_child()
    sync_ends(task.result, RuntimeError)
    assert not task.cancel()
    client.call("work", 0.0, "value").result()
    portal._before_fork()
    portal._after_fork()
    client.call("work", 0.0, "value").result()
    del stream, task


async def _look_up() -> Any:
    loop: Any = asyncio.get_running_loop()
    await ends(loop.getaddrinfo("nobody", 1), OSError)
    given_up = asyncio.ensure_future(loop.getaddrinfo("slow", 1))
    await asyncio.sleep(0.01)
    given_up.cancel()
    await ends(given_up, asyncio.CancelledError)
    return await loop.getaddrinfo("broker", 1)
