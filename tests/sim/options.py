"""From a seed to a world: everything that a run draws in advance, so that it can be printed, changed and shrunk."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

from tests.sim.armed import DEEDS

__all__ = ["FAULTS", "NOISE", "Options", "options_of", "read_options"]

#: What happens to single hosts or to the broker at a moment: the nemesis's deeds.
FAULTS = (
    *("kill", "kill_at_operation", "stop", "pause", "worker_lost", "kill_client", "clock_jump"),
    *("partition", "deaf", "mute", "clog", "swizzle", "cut", "broker_restart", "broker_forgets_second", "broker_forgets_all"),
    *("broker_pause", "double", "garbage"),
)
#: What happens on Kafka, which forgets nothing, in the place of some deeds.
ON_KAFKA = {"broker_forgets_second": "rebalance", "broker_forgets_all": "rebalance"}
#: What happens all the time, at a rate.
NOISE = ("cut_before", "cut_after", "slow", "cut_push", "double_mail")
#: Scripts' ends: what they are is said in workload.py.
ENDS = (*("value",) * 6, "raise", "exit", "unwritable", "hold", "stubborn", "progress")


@dataclass(frozen=True)
class Options:
    """One run. Times in seconds."""

    seed: int = 0
    broker: str = "redis"
    #: "fifo": a drawn host is next; "pct": hosts have priorities that change so many times.
    policy: str = "fifo"
    demotions: int = 0
    servers: int = 2
    clients: int = 2
    slots: int = 3
    calls: int = 10
    #: Calls are sent and faults happen within this time.
    span: float = 10.0
    #: Kinds of calls that occur.
    kinds: tuple[str, ...] = ("work",)
    #: How their scripts end; one that is named often occurs often.
    ends: tuple[str, ...] = ENDS
    #: Which scene is played beside them; "" for none (tests/sim/scenes.py).
    scene: str = ""
    #: Deeds in their order.
    faults: tuple[str, ...] = ()
    #: Numbers (from 0) of those that are left out; the others stay as they are.
    skipped: tuple[int, ...] = ()
    #: Kind -> probability for each request.
    noise: dict[str, float] = field(default_factory=dict)
    #: Mean seconds on the way, and how the clocks of hosts differ.
    latency: float = 0.001
    drift: float = 0.0
    skew: float = 0.0
    #: Calls instead of drawn ones: the fields of caller.Plan. A fault that waits for a process's n-th request: see armed.py.
    planned: tuple[tuple[Any, ...], ...] = ()
    armed: tuple[Any, ...] = ()
    #: Of drawn calls, in seconds.
    timeouts: tuple[float, ...] = (1.0, 8.0, 30.0, 120.0)
    window: int = 8
    max_queue: int = 0
    secret: str = ""
    heartbeat: float = 1.0
    recover: float = 3.0
    grace: float = 3.0
    silence: float = 2.0
    connect_timeout: float = 3.0

    @property
    def _armed_way(self) -> bool:
        return bool(self.armed) and not self.armed[2].startswith("kill")

    @property
    def exact(self) -> bool:
        """Whether the ways are quiet, so that every outcome can be judged to the moment."""
        return not self.noise and not self.skew and not self.drift and not self._armed_way and not set(self.faults) - EXACT

    def text(self) -> str:
        """What differs from the defaults, as it is read by `read_options`."""
        plain = Options()
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)}
        return repr(changed)


#: Deeds that leave the ways to the broker alone.
EXACT = frozenset({"kill", "stop", "worker_lost", "pause", "kill_client"})


def read_options(text: str) -> Options:
    """The options that `Options.text` wrote."""
    from ast import literal_eval

    values: dict[str, Any] = literal_eval(text)
    return replace(Options(), **values)


#: Kinds of calls: what they are is said in workload.py.
KINDS = ("work", "safe", "process", "process_safe", "stream", "safe_stream", "feed", "nested", "capped", "odd")


#: Scenes that runs have, each with its share; those that need many steps are played for their own sake alone.
SCENES = (
    *("maps", "gathers", "bars", "stubs", "asked", "layers", "server_layers", "events", "doubles", "letters", "registers"),
    *("blocking", "plain_many", "plain_streams", "crossing", "forks", "seconds", "gaps", "late", "twice", "bursts", "rows"),
)


#: Of scenes that are about time, or about who runs a call: no other calls are made.
ALONE: dict[str, dict[str, Any]] = {"late": {"calls": 0, "drift": 0.05}, "twice": {"calls": 0, "servers": 2}}


def _with_scene(options: Options) -> Options:
    """One run in twelve has a scene, in every other one of them nothing else happens: by draws of their own, so that all else
    is as it was."""
    draw = Random(f"{options.seed} scene")
    scene = draw.choice(SCENES) if draw.random() < 1 / 12 else ""
    if scene and draw.random() < 0.5:
        return peaceful(options, scene)
    return replace(options, scene=scene)


def peaceful(options: Options, scene: str) -> Options:
    """Nothing happens to this scene; some have the world for themselves."""
    ends = tuple(end for end in options.ends if end != "hold")
    options = replace(options, scene=scene, ends=ends, faults=(), noise={}, drift=0.0, skew=0.0, max_queue=0)
    return replace(options, **ALONE.get(scene, {}))


def options_of(seed: int, broker: str | None = None) -> Options:
    """The options of a seed: one run in three is exact."""
    draw = Random(f"{seed} options")
    broker = broker or draw.choice(("redis", "kafka"))
    if draw.random() < 0.15:
        return _plain_options(seed, broker, draw)
    exact = draw.random() < 0.3
    pct = draw.random() < 0.2
    kinds = tuple(kind for kind in KINDS if draw.random() < 0.5) or ("work", "safe")
    enabled = [fault for fault in (sorted(EXACT) if exact else FAULTS) if draw.random() < 0.4]
    faults = tuple(draw.choice(enabled) for _ in range(draw.choice((0, 1, 1, 2, 3, 5)))) if enabled else ()
    # Who stands still explains so much that nothing else is judged.
    quiet = exact and draw.random() < 0.6
    if quiet:
        faults = tuple(fault for fault in faults if fault != "pause")
    if broker == "kafka":
        faults = tuple(ON_KAFKA.get(fault, fault) for fault in faults)
    noise = {} if exact else {kind: draw.choice((0.005, 0.02, 0.05)) for kind in NOISE if draw.random() < 0.35}
    options = Options(
        seed=seed,
        broker=broker,
        policy="pct" if pct else "fifo",
        demotions=draw.randrange(1, 8) if pct else 0,
        servers=draw.choice((1, 2, 2, 3)),
        clients=draw.choice((1, 2)),
        slots=draw.choice((1, 2, 4)),
        calls=draw.choice((4, 8, 12, 16)),
        span=draw.choice((2.0, 6.0, 12.0)),
        kinds=kinds,
        ends=tuple(end for end in ENDS if not (quiet and end == "hold")),
        faults=faults,
        noise=noise,
        latency=draw.choice((0.0005, 0.002, 0.02)),
        drift=0.0 if exact else draw.choice((0.0, 0.0, 0.01, 0.05)),
        skew=0.0 if exact else draw.choice((0.0, 0.0, 600.0)),
        window=draw.choice((1, 3, 8)),
        max_queue=draw.choice((0, 0, 0, 3)),
        secret=draw.choice(("", "", "", "0123456789abcdef0123456789abcdef")),
        grace=draw.choice((0.5, 3.0)),
    )
    return _with_scene(options)


def _plain_options(seed: int, broker: str, draw: Random) -> Options:
    """Servers that are lost in a world without any other trouble, where all is judged to the moment; or one armed fault."""
    armed: tuple[Any, ...] = ()
    if draw.random() < 0.4:
        armed = draw.choice(("s1-1", "c1")), draw.randrange(1, 40), draw.choice(DEEDS)
    return Options(
        seed=seed,
        broker=broker,
        servers=3,
        clients=2,
        slots=draw.choice((1, 2)),
        calls=draw.choice((4, 8, 12)),
        span=4.0,
        kinds=tuple(draw.sample(("work", "safe", "process", "process_safe", "stream", "safe_stream", "capped"), 3)),
        ends=tuple(end for end in ENDS if end != "hold"),
        timeouts=(0.5, 1.0, 30.0, 120.0),
        faults=() if armed else ("kill",) * draw.choice((1, 2)),
        armed=armed,
    )
