"""One run of the simulation: from options to a verdict."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

import prpc.brokers
import prpc.server.service
from prpc.server.registry import Registry
from prpc.workers import create_pool
from prpc.workers.base import WorkerKind
from tests.sim.armed import Armed
from tests.sim.caller import Plan, drawn_plans, run_plan
from tests.sim.drawn import with_tqdm
from tests.sim.fence import fenced, installed
from tests.sim.hosts import HOST
from tests.sim.loop import SimLoop
from tests.sim.nemesis import Nemesis
from tests.sim.noted import hooked
from tests.sim.options import Options
from tests.sim.scenes import SCENES
from tests.sim.stage import Stage, logged
from tests.sim.workers import SimProcessPool
from tests.sim.workload import make_registry
from tests.sim.world import World

__all__ = ["Verdict", "prepared", "run_once"]

#: Seconds that a healed world gets before it is judged by what still happens.
QUIET = 4.0
#: Seconds for which a scene may keep the servers busy.
SCENE_LOAD = 100.0
#: Seconds for which one nested call may run: its inner call's limit, and a little.
LONGEST_NESTED = 31.0


@dataclass(slots=True)
class Verdict:
    """What came of one run."""

    options: Options
    violations: list[str]
    trace: int
    steps: int
    seconds: float
    counts: Counter[str]
    events: list[dict[str, Any]] = field(repr=False, default_factory=list)
    dump: str = ""


@contextmanager
def prepared() -> Iterator[None]:
    """The seams are the simulation's for as many runs as one likes."""
    old = prpc.brokers.adapter_of, prpc.server.service.create_pool, prpc.server.service.Catalogue
    logging.disable(logging.CRITICAL)
    ignored = warnings.catch_warnings()
    ignored.__enter__()
    warnings.simplefilter("ignore", RuntimeWarning)  # what was killed is never awaited
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    prpc.brokers.adapter_of = lambda _: HOST.get().globals["world"].broker
    prpc.server.service.create_pool = _pool  # type: ignore[assignment]
    # All servers have the same functions: describing them anew would take a quarter of each run.
    prpc.server.service.Catalogue = cache(old[2])  # type: ignore[misc,assignment]
    gc_was = gc.isenabled()
    gc.disable()
    # What was killed comes to its `finally` when it is collected, and finds no loop then; it must not make one that keeps it.
    asyncio.set_event_loop(None)
    try:
        with installed(), hooked(), with_tqdm():
            yield
    finally:
        prpc.brokers.adapter_of, prpc.server.service.create_pool, prpc.server.service.Catalogue = old  # type: ignore[misc]
        gc.unfreeze()
        _collect()
        if gc_was:
            gc.enable()
        logging.disable(logging.NOTSET)
        sys.unraisablehook = hook
        ignored.__exit__(None, None, None)


def _collect() -> None:
    """Here, where nobody minds, and not in the middle of somebody else's code: what is let go of lets go of more."""
    for _ in range(10):
        if not gc.collect():
            return


def _pool(kind: WorkerKind, slots: int, settings: Any, *, functions: Any = ()) -> Any:
    return SimProcessPool(slots) if kind is WorkerKind.PROCESS else create_pool(kind, slots, settings, functions=functions)


@cache
def _registry() -> Registry:
    return make_registry()


def run_once(options: Options, *, watched: bool = False) -> Verdict:
    """Within `prepared`. `watched`: what every host waits for is told where promises were broken."""
    order = Random(f"{options.seed} order")
    demotions = None
    if options.policy == "pct":
        demotions = frozenset(order.randrange(20_000) for _ in range(options.demotions))
    loop = SimLoop(order, demotions)
    if watched or options.seed % 8 == 0:  # then tasks that are left over are seen, too
        loop.watch()
    problem = None
    with fenced(loop, Random(f"{options.seed} ids")), logged(bool(options.scene) and SCENES[options.scene].logged):
        world = _world(loop, options)
        try:
            loop.run(_live(world))
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}"
        verdict = _judge(world, problem)
        if watched and verdict.violations:
            verdict.dump = loop.dump()
    _bury(loop)
    return verdict


def _world(loop: SimLoop, options: Options) -> World:
    if not options.scene:
        return World(loop, options, _registry())
    scene = SCENES[options.scene]
    world = World(loop, options, scene.registry())
    world.settings = replace(world.settings, **scene.settings)
    world.middleware = scene.middleware
    world.lifespan = None if scene.lifespan is None else scene.lifespan(world)
    return world


def _bury(loop: SimLoop) -> None:
    """Let go of everything at once: nothing of it runs any more."""
    loop._graveyard.clear()
    loop._timers.clear()
    for host in loop.hosts:
        host.alive = False
        host.queue.clear()
    loop.set_exception_handler(lambda *_: None)


async def _live(world: World) -> None:
    options = world.options
    for server in world.servers:
        world.start_server(server)
    for _ in range(options.clients):
        world.start_client()
    draw, nemesis = world.random["workload"], Nemesis(world)
    if options.armed:
        world.armed = Armed(world, *options.armed)
        world.timing.watchers.append(world.armed)
    await asyncio.sleep(0.5)
    plans = [Plan(*fields) for fields in options.planned] or drawn_plans(draw, options)
    world.load = sum(plan.seconds for plan in plans)
    # Each may hold the only slot until the call that it makes, which waits for that slot, has run out of time.
    world.patience += LONGEST_NESTED * sum(plan.kind == "nested" for plan in plans)
    callers = [_caller(world, number, plan) for number, plan in enumerate(plans)]
    if options.scene:
        world.load += SCENE_LOAD
        stage = Stage(world)
        SCENES[options.scene].script(stage)
        callers += stage.actors
    await nemesis.run()
    await nemesis.heal()
    await asyncio.sleep(QUIET)
    await _ended(world, callers)  # who is refused, or held up, as others are there has nothing to complain of
    await _empty(world)
    while not world.quiet:
        await asyncio.sleep(0.25)
    world.note("calm")
    for number, kind in enumerate(("work", "safe")):
        plan = Plan(at=0.0, kind=kind, seconds=0.01, end="value", timeout=30.0, leave=None, count=1, sure=True)
        callers.append(_caller(world, number, plan))
    await _ended(world, callers)
    await _end(world)


async def _ended(world: World, callers: list[Any]) -> None:
    living = [task for client, task in callers if client.host.alive]
    if living:
        await asyncio.wait(living)
    for task in living:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            world.note("broken", what=f"a caller failed: {error!r}")


def _caller(world: World, number: int, plan: Plan) -> Any:
    living = [client for client in world.clients if client.host.alive]
    client = living[number % len(living)]

    async def call() -> None:
        await asyncio.sleep(plan.at)
        await run_plan(world, client.name, client.client, plan)

    return client, world.loop.spawn(client.host, call(), f"{client.name} {plan.kind}")


async def _end(world: World) -> None:
    """Clients leave, the queue empties, servers stop; then nothing may be left."""
    for client in world.clients:
        if client.host.alive:
            await world.loop.spawn(client.host, client.client.close())
    await _empty(world)
    for server in world.servers:
        if server.alive and server.service is not None:
            assert server.host is not None and server.task is not None
            world.stop(server)
            await asyncio.wait([server.task], timeout=60)
            if not server.task.done():
                world.note("broken", what=f"{server.name} did not stop")
            elif server.task.exception() is not None:
                world.note("broken", what=f"{server.name} ended with {server.task.exception()!r}")
    await asyncio.sleep(7.0)  # what was cancelled ends, also what does not heed that for a while
    world.left()


async def _empty(world: World) -> None:
    until = world.loop.now + world.patience
    while world.loop.now < until:
        if world.idle:
            return
        await asyncio.sleep(0.25)
    world.note("left", what=f"the queue does not empty: {world.what_is_left()}")


def _judge(world: World, problem: str | None) -> Verdict:
    from tests.sim.judge import judge

    violations = judge(world)
    if problem is not None:
        violations.insert(0, problem)
    for error in world.loop.errors:
        violations.append(f"unhandled in {error.get('host')}: {error.get('message')}: {error.get('exception')!r}")
    counts = world.counts
    counts.update(world.timing.fired)
    if world.armed is not None:
        counts["requests"] = world.armed.count
    return Verdict(world.options, violations, world.loop.trace, world.loop.steps, world.loop.now, counts, world.events)
