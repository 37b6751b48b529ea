"""The scenarios: which faults, in which world, and what callers may see of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import entries, faults, kafka_faults
from tests.chaos.clocks import HOUR
from tests.chaos.journal import read_journals
from tests.chaos.options import Options
from tests.chaos.sweep import sweep
from tests.chaos.world import World
from tests.ledger.ledger import Ledger, Promise, Violation

__all__ = ["KAFKA", "RANDOM", "SCENARIOS", "Report", "Scenario", "run_scenario"]

#: Every write is on the disk before it is answered.
WITH_DATA = ("--appendonly", "yes", "--appendfsync", "always")

LOST = frozenset({"WorkerLostError"})
#: A call that was being sent when the connection broke: whether Redis has it is not known, and it is not sent twice.
UNSENT = frozenset({"BrokerUnavailableError"})
#: A call that Redis forgot, or whose entry was spoilt; only its deadline can tell.
FORGOTTEN = frozenset({"ClientTimeOutError"})
#: A call that stood in the queue while Redis's clock jumped ahead.
EXPIRED = frozenset({"DeadlineExceededError"})


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

    @property
    def headline(self) -> str:
        return f"{self.name}, seed {self.seed}: {self.ledger.summary()}"

    def __str__(self) -> str:
        shown = [str(violation) for violation in self.violations[:20]]
        more = len(self.violations) - len(shown)
        lines = [self.headline, *self.story]
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
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane(world, seconds))

    return harm


async def once_each(world: World, seconds: float) -> None:
    """A rolling restart of all servers."""
    await asyncio.sleep(0.3)
    await faults.roll_over(world)


async def freeze_redis_for_long(world: World, seconds: float) -> None:
    """Once, for so long."""
    await asyncio.sleep(0.5)
    await faults.freeze_redis(world, seconds)


#: With process workers a server has many processes: fewer calls, fewer of them.
PROCESSES = Options(servers=2, slots=3, functions=("process", "process_again", "async"), rate=60.0, window=60)
#: Servers that cannot keep up, so that entries wait in the queue.
BACKLOG = Options(slots=4, window=100)
#: From the kill of a server to its callers' WorkerLostError: what a lease lasts, the second that the guarantee allows, and one
#: more for a busy machine.
TOLD = Options().recover + 1.0 + 1.0

SCENARIOS: dict[str, Scenario] = {
    "servers-killed": Scenario(
        harm=again(faults.kill_server), promise=Promise(plain=LOST, told_within=TOLD), recovery=TOLD, seconds=3.0
    ),
    # So far apart that each loss is told before the next kill: no later one excuses a late word.
    "server-killed": Scenario(
        harm=again(faults.kill_server, pause=(TOLD, TOLD + 0.5)), promise=Promise(plain=LOST, told_within=TOLD), seconds=8.0
    ),
    "servers-paused": Scenario(harm=again(faults.pause_server), promise=Promise(plain=LOST)),
    "workers-killed": Scenario(
        harm=again(faults.kill_worker, pause=(0.02, 0.1)), options=PROCESSES, promise=Promise(plain=LOST, idempotent=LOST)
    ),
    "clients-killed": Scenario(harm=again(faults.kill_client, pause=(0.3, 0.8)), options=Options(recover=4.0)),
    "rolling-restart": Scenario(harm=once_each, options=Options(recover=4.0)),
    "hurried-restart": Scenario(
        harm=once_each,
        options=Options(recover=4.0, grace=0.02, exits=(0, 3)),
        promise=Promise(plain=frozenset({"ServerShutdownError"})),
    ),
    "clocks-jump": Scenario(
        harm=again(faults.jump_clock, pause=(0.05, 0.2)),
        options=Options(clocks=(-HOUR, 0.0, HOUR), secret="the key of all programs of the chaos runs"),
    ),
    "redis-restarted": Scenario(
        harm=again(faults.restart_redis_with_data, pause=(0.3, 1.0)),
        options=Options(redis=WITH_DATA),
        promise=Promise(plain=UNSENT),
    ),
    "redis-emptied": Scenario(
        harm=again(faults.restart_redis_without_data, pause=(0.3, 1.0)),
        options=Options(timeout=5.0),
        promise=Promise(plain=UNSENT | FORGOTTEN),
    ),
    "redis-frozen": Scenario(harm=again(faults.freeze_redis, pause=(0.3, 0.8))),
    "redis-frozen-long": Scenario(
        harm=freeze_redis_for_long, options=Options(timeout=25.0), promise=Promise(plain=UNSENT), seconds=10.0
    ),
    "redis-refuses": Scenario(harm=again(faults.fill_memory, faults.fill_disk), promise=Promise(plain=UNSENT)),
    "redis-clock-jumps": Scenario(
        harm=again(faults.jump_redis_clock, pause=(0.3, 0.6)),
        options=replace(BACKLOG, redis_clock=True),
        promise=Promise(plain=LOST | EXPIRED, idempotent=EXPIRED),
    ),
    "entries-doubled": Scenario(
        harm=together(
            *(again(fault, pause=(0.0, 0.1)) for fault in (entries.copy_entries, entries.copy_entries, entries.move_entries))
        ),
        options=BACKLOG,
        seconds=3.0,
    ),
    "entries-moved-blindly": Scenario(
        harm=again(entries.move_entries_blindly, pause=(0.0, 0.2)),
        options=replace(BACKLOG, timeout=5.0),
        promise=Promise(plain=FORGOTTEN),
    ),
    "connections-cut": Scenario(
        harm=again(faults.cut_at_bytes, faults.cut_behind_a_byte),
        options=Options(proxied=True),
        promise=Promise(plain=UNSENT | LOST),
    ),
    "every-byte-cut": Scenario(
        harm=sweep,
        options=Options(proxied=True, servers=1, clients=0),
        promise=Promise(plain=UNSENT),
        recovery=0.0,
        calm=0.0,
    ),
    "network-slow": Scenario(
        harm=again(faults.freeze_connections, faults.delay_connections),
        options=Options(proxied=True),
    ),
}

#: Sharing a queue out anew is several steps, each of which waits for the slowest server to say its word.
TOLD_BY_KAFKA = TOLD + 2.0

#: A JVM takes a part of the machine; it gets fewer calls, and longer to answer while it is cold.
KAFKA_WORLD = Options(broker="kafka", rate=150.0, timeout=12.0, connect_timeout=5.0)

KAFKA: dict[str, Scenario] = {
    "kafka-servers-killed": Scenario(
        harm=again(faults.kill_server),
        options=KAFKA_WORLD,
        promise=Promise(plain=LOST, told_within=TOLD_BY_KAFKA),
        recovery=TOLD_BY_KAFKA,
        seconds=4.0,
    ),
    "kafka-servers-paused": Scenario(
        harm=again(faults.pause_server),
        options=KAFKA_WORLD,
        promise=Promise(plain=LOST),
        seconds=4.0,
        recovery=3.0,
    ),
    "kafka-rolling-restart": Scenario(harm=once_each, options=replace(KAFKA_WORLD, recover=4.0)),
    "kafka-workers-killed": Scenario(
        harm=again(faults.kill_worker, pause=(0.02, 0.1)),
        options=replace(PROCESSES, broker="kafka", connect_timeout=5.0),
        promise=Promise(plain=LOST, idempotent=LOST),
    ),
    "kafka-clients-killed": Scenario(
        harm=again(faults.kill_client, pause=(0.3, 0.8)), options=replace(KAFKA_WORLD, servers=2, recover=4.0)
    ),
    "kafka-restarted": Scenario(
        harm=again(kafka_faults.restart_kafka, pause=(0.3, 1.0)),
        options=replace(KAFKA_WORLD, servers=2, timeout=20.0),
        promise=Promise(plain=UNSENT),
        recovery=3.0,
    ),
    "kafka-coordinator-killed": Scenario(
        harm=again(kafka_faults.kill_coordinator, pause=(0.5, 1.0)),
        options=replace(KAFKA_WORLD, nodes=3, servers=2, clients=1, rate=100.0, timeout=20.0, connect_timeout=8.0),
        seconds=0.0,
        recovery=3.0,
    ),
    "kafka-records-doubled": Scenario(
        harm=together(
            again(kafka_faults.copy_records, pause=(0.0, 0.1)),
            again(kafka_faults.copy_records, pause=(0.0, 0.1)),
            again(faults.kill_server, pause=(0.5, 1.0)),
        ),
        options=replace(KAFKA_WORLD, slots=4, window=100, rate=100.0, timeout=15.0),
        promise=Promise(plain=LOST),
        seconds=4.0,
        recovery=TOLD_BY_KAFKA,
    ),
}
SCENARIOS |= KAFKA

#: Everything at once.
RANDOM = Scenario(
    harm=together(
        again(*faults.PROGRAM_FAULTS, *faults.WORKER_FAULTS, pause=(0.3, 1.5)),
        again(*faults.BROKER_FAULTS, pause=(0.5, 2.0)),
        again(*faults.NETWORK_FAULTS, pause=(0.5, 2.0)),
        again(faults.jump_clock, pause=(0.2, 1.0)),
        # An entry that was taken out might not be put back while Redis is away.
        again(entries.copy_entries, pause=(0.2, 1.0)),
    ),
    options=Options(
        proxied=True,
        supervised=True,
        redis=WITH_DATA,
        slots=4,
        rate=120.0,
        timeout=15.0,
        functions=("thread", "async", "process", "thread_again", "async_again", "process_again"),
        clocks=(-HOUR, 0.0, HOUR),
    ),
    promise=Promise(plain=UNSENT | LOST, idempotent=LOST),
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
    if not ledger.sure_calls:
        violations.append(Violation("whole world", "nothing was called after the faults"))
    if not ledger.faults:
        violations.append(Violation("whole world", "nothing was wrong with it"))
    return Report(name, seed, ledger, violations, world.story)
