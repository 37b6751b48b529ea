"""Scenes of registrations: what servers refuse to serve, before, during and after their start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from prpc.app_client import AsyncClient
from prpc.deadline import SystemClock
from prpc.exceptions import BrokerUnavailableError, RegistrationError
from prpc.server.registry import Registry, needs_loop, public_methods
from prpc.server.service import Service
from tests.sim.hosts import HOST
from tests.sim.stage import Stage, sync_ends
from tests.sim.workload import work
from tests.sim.world import World

__all__ = ["registering", "registers"]


class Servant:
    """An object whose public methods are served."""

    held = staticmethod(work)
    number = 3

    async def greet(self) -> str:
        return "hello"

    @classmethod
    async def of_class(cls) -> str:
        return cls.__name__

    def _hidden(self) -> None: ...


class Heir(Servant):
    greet = 3  # type: ignore[assignment]

    def added(self) -> int:
        return 1


def plain(number: int) -> int:
    return number


def gives(number: int) -> int:
    return number


def generates() -> Iterator[int]:
    yield 1


def nothing() -> None: ...


async def reads(items: AsyncIterator[int]) -> None: ...


def reads_plainly(items: Iterator[int]) -> int:
    return sum(items)


class Odd:
    """Has no signature that Python can read."""

    __signature__ = 3

    async def __call__(self, *args: Any) -> None: ...


REFUSED: list[tuple[Any, str, dict[str, Any]]] = [
    (3, "async", {}),
    (work, "fibre", {}),
    (work, "thread", {}),
    (plain, "async", {}),
    (lambda: 1, "process", {"name": "inner"}),
    (lambda: 1, "thread", {}),
    (partial(partial(lambda: 1)), "thread", {}),
    (work, "async", {"name": "a b"}),
    (work, "async", {"name": 3}),
    (work, "async", {"name": "ping"}),
    (work, "async", {"name": "work"}),
    (work, "async", {"name": "w1", "timeout": 0}),
    (work, "async", {"name": "w1", "timeout": True}),
    (work, "async", {"name": "w1", "max_concurrency": 0}),
    (work, "async", {"name": "w1", "max_concurrency": True}),
    (Servant, "thread", {"name": "servant"}),
    (generates, "process", {"name": "made"}),
    (generates, "thread", {"name": "made", "broadcast": True}),
    (gives, "thread", {"name": "given", "broadcast": True}),
    (partial(gives, 3), "thread", {"name": "given", "broadcast": True}),
]
TAKEN: list[tuple[Any, str, dict[str, Any]]] = [
    (work, "async", {"name": "timed", "timeout": timedelta(seconds=9), "max_concurrency": 3}),
    (partial(work, 0.0), "async", {"name": "dotted.name"}),
    (Odd(), "async", {"name": "odd", "broadcast": True}),
    (nothing, "thread", {"broadcast": True}),
]
#: What only the start refuses.
LATE_REFUSED: list[tuple[Any, str, dict[str, Any]]] = [
    (reads, "async", {"broadcast": True}),
    (reads, "async", {"idempotent": True}),
    (reads_plainly, "process", {}),
    (reads_plainly, "thread", {"idempotent": True}),
]


def registering(world: World) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """A lifespan in which a server registers what it may and what it may not, before and after its start."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        scratch = Registry()
        scratch.add(work, "async", name="work")
        for function, kind, options in REFUSED:
            sync_ends(partial(scratch.add, function, kind, **options), RegistrationError)
        for function, kind, options in TAKEN:
            scratch.add(function, kind, **options)
        odd = scratch.get("odd")
        assert odd is not None and odd.binder.bind([1], {"a": 2}) == ([1], {"a": 2})
        for kind in (Servant, json):
            sync_ends(lambda kind=kind: list(public_methods(kind)), RegistrationError)
        names = {name: needs_loop(method) for name, method in public_methods(Servant())}
        assert names == {"held": True, "greet": True, "of_class": True}, names
        assert [name for name, _ in public_methods(Heir())] == ["held", "of_class", "added"]
        later = asyncio.get_running_loop().create_task(_late(world, HOST.get().process))
        try:
            yield
        finally:
            later.cancel()

    return lifespan


async def _late(world: World, host: Any) -> None:
    try:
        await _later(world, host)
    except Exception as exc:
        world.note("broken", what=f"what is registered late: {exc!r}")


async def _later(world: World, host: Any) -> None:
    await asyncio.sleep(0.4)
    service = next((server.service for server in world.servers if server.host is host), None)
    if service is None or service.health.obstacle() is not None:
        return
    count = world.token()
    registry = service._registry
    registry.add(work, "async", name=f"late_{count}", lacks=service.lacks)
    for function, kind, options in [
        *LATE_REFUSED,
        (plain, "thread", {}),
        (nothing, "thread", {"broadcast": True}),
        (generates, "thread", {}),
    ]:
        sync_ends(partial(registry.add, function, kind, lacks=service.lacks, **options), RegistrationError)


def registers(stage: Stage) -> None:
    """Servers whose functions come while they start, and later."""
    stage.acts(_calls_on, expects={"*": ("FunctionNotFoundError",)})
    stage.directs(_starts_badly(stage))


async def _calls_on(client: AsyncClient) -> None:
    for _ in range(4):
        await client.call("work", 0.0, "value")
        await asyncio.sleep(0.3)
    assert await client.get_function_server(8.0)


async def _starts_badly(stage: Stage) -> None:
    """A server that finds at its start that it cannot serve what it has."""
    world = stage.world
    for function, kind, options in LATE_REFUSED:
        host = world.add_process(world.token())
        registry = Registry()
        registry.add(function, kind, **options)
        settings = replace(world.settings, instance_name=host.name)
        service = Service(settings, registry, clock=SystemClock())
        assert service.lacks(registry.add(work, "async", name="early")) is None
        task = world.loop.spawn(host, service.serve(lambda: None))
        await asyncio.wait([task], timeout=30.0)
        if isinstance(task.exception(), BrokerUnavailableError):
            return
        assert isinstance(task.exception(), RegistrationError), task
