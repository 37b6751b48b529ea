"""The scenarios: which faults, in which world, and what callers may see of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import faults
from tests.chaos.journal import read_journals
from tests.chaos.ledger import Ledger, Promise, Violation
from tests.chaos.world import Options, World

__all__ = ["RANDOM", "SCENARIOS", "Report", "Scenario", "run_scenario"]

#: Every write is on the disk before it is answered.
WITH_DATA = ("--appendonly", "yes", "--appendfsync", "always")

LOST = frozenset({"WorkerLostError"})
#: A call that was being sent when the connection broke: whether Redis has it is not known, and it is not sent twice.
UNSENT = frozenset({"BrokerUnavailableError"})
FORGOTTEN = frozenset({"ClientTimeOutError"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run."""

    #: Does the harm for about `seconds`.
    harm: Callable[[World, float], Awaitable[None]]
    options: Options = field(default_factory=Options)
    promise: Promise = field(default_factory=Promise)
    seconds: float = 2.0
    #: Seconds that the world is given to recover before calls must succeed, and seconds in which they must.
    recovery: float = 1.5
    calm: float = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    name: str
    seed: int
    ledger: Ledger
    violations: list[Violation]
    story: list[str]

    def __str__(self) -> str:
        shown = [str(violation) for violation in self.violations[:20]]
        more = len(self.violations) - len(shown)
        lines = [f"{self.name}, seed {self.seed}: {self.ledger.summary()}", *self.story]
        if shown:
            lines += [f"{len(self.violations)} violations:", *shown, *([f"... and {more} more"] if more else [])]
            lines.append(f"again: python -m tests.chaos {self.name} --seed {self.seed}")
        return "\n".join(lines)


def again(*kinds: faults.Fault, pause: tuple[float, float] = (0.1, 0.5)) -> Callable[[World, float], Awaitable[None]]:
    """One fault after the other, drawn from `kinds`, with pauses between them."""

    async def harm(world: World, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            await asyncio.sleep(world.random.uniform(*pause))
            await world.random.choice(kinds)(world)
            if time.monotonic() > end:
                return

    return harm


def together(*lanes: Callable[[World, float], Awaitable[None]]) -> Callable[[World, float], Awaitable[None]]:
    """Several sequences of faults at the same time."""

    async def harm(world: World, seconds: float) -> None:
        await asyncio.gather(*(lane(world, seconds) for lane in lanes))

    return harm


async def once_each(world: World, seconds: float) -> None:
    """A rolling restart of all servers."""
    await asyncio.sleep(0.3)
    await faults.roll_over(world)


#: With process workers a server has many processes: fewer calls, fewer of them.
PROCESSES = Options(servers=2, slots=3, functions=("process", "process_again", "async"), rate=60.0, window=60)

SCENARIOS: dict[str, Scenario] = {
    "servers-killed": Scenario(harm=again(faults.kill_server), promise=Promise(plain=LOST)),
    "servers-paused": Scenario(harm=again(faults.pause_server), promise=Promise(plain=LOST)),
    "workers-killed": Scenario(
        harm=again(faults.kill_worker, pause=(0.02, 0.1)), options=PROCESSES, promise=Promise(plain=LOST, idempotent=LOST)
    ),
    "clients-killed": Scenario(harm=again(faults.kill_client, pause=(0.3, 0.8)), options=Options(recover=4.0)),
    "rolling-restart": Scenario(harm=once_each, options=Options(recover=4.0)),
    "hurried-restart": Scenario(
        harm=once_each, options=Options(recover=4.0, grace=0.02), promise=Promise(plain=frozenset({"ServerShutdownError"}))
    ),
    "redis-restarted": Scenario(
        harm=again(faults.restart_redis_with_data, pause=(0.3, 1.0)),
        options=Options(redis=WITH_DATA),
        promise=Promise(plain=UNSENT, idempotent=UNSENT),
    ),
    "redis-emptied": Scenario(
        harm=again(faults.restart_redis_without_data, pause=(0.3, 1.0)),
        options=Options(timeout=5.0),
        promise=Promise(plain=UNSENT | FORGOTTEN, idempotent=UNSENT | FORGOTTEN),
    ),
    "redis-frozen": Scenario(harm=again(faults.freeze_redis, pause=(0.3, 0.8))),
    "redis-refuses": Scenario(
        harm=again(faults.fill_memory, faults.fill_disk),
        promise=Promise(plain=UNSENT, idempotent=UNSENT),
    ),
    "connections-cut": Scenario(
        harm=again(faults.cut_at_bytes, faults.cut_behind_a_byte),
        options=Options(proxied=True),
        promise=Promise(plain=UNSENT | LOST, idempotent=UNSENT),
    ),
    "network-slow": Scenario(
        harm=again(faults.freeze_connections, faults.delay_connections),
        options=Options(proxied=True),
    ),
}

#: Everything at once; WorkerLostError of an idempotent call is that of a killed worker process.
RANDOM = Scenario(
    harm=together(
        again(*faults.PROGRAM_FAULTS, *faults.WORKER_FAULTS, pause=(0.3, 1.5)),
        again(*faults.BROKER_FAULTS, pause=(0.5, 2.0)),
        again(*faults.NETWORK_FAULTS, pause=(0.5, 2.0)),
    ),
    options=Options(
        proxied=True,
        supervised=True,
        redis=WITH_DATA,
        slots=4,
        rate=120.0,
        timeout=15.0,
        functions=("thread", "async", "process", "thread_again", "async_again", "process_again"),
    ),
    promise=Promise(plain=UNSENT | LOST | FORGOTTEN, idempotent=UNSENT | LOST | FORGOTTEN),
    seconds=6.0,
    recovery=5.0,
)
SCENARIOS["everything"] = RANDOM


async def run_scenario(name: str, seed: int, folder: Path, *, seconds: float | None = None) -> Report:
    """One run in `folder`, which must be empty; the same seed draws the same faults and the same load."""
    scenario = SCENARIOS[name]
    if seconds is not None:
        scenario = replace(scenario, seconds=seconds)
    world = World(folder, scenario.options, seed)
    async with world:
        await scenario.harm(world, scenario.seconds)
        world.tell("the world is whole")
        await asyncio.sleep(scenario.recovery)
        await world.finish(scenario.calm)
    ledger = Ledger(read_journals(folder))
    violations = ledger.violations(scenario.promise)
    if not ledger.calm_calls:
        violations.append(Violation("whole world", "nothing was called after the faults"))
    return Report(name, seed, ledger, violations, world.story)
