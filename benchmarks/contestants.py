"""Who is measured: how its server is started, whose module calls it, and how many calls it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rig import Counts

__all__ = ["HOME", "PEERS", "Contestant"]


@dataclass(frozen=True)
class Contestant:
    """`server`: command, whose program is one of its environment's. `module`: its client. `venv`: "" for this environment."""

    server: tuple[str, ...]
    module: str
    counts: Counts = field(default_factory=Counts)
    variant: str = ""
    venv: str = ""
    #: Loop of its processes that use asyncio.
    loop: str = "asyncio"
    #: What serves it at once; the others say themselves that they are there, or their clients wait.
    seconds_to_start: float = 0.0

    def program(self, name: str, root: Path, here: Path) -> str:
        """Path of a program of its environment; `here`: this one's folder of programs."""
        return str((root / f".venv-{self.venv}/bin" if self.venv else here) / name)


_CONTEST = "benchmarks.contest"
_PRPC = ("python", "-m", "prpc", "run")

#: PRPC, and what it is held against in every run: floors, and gRPC for asyncio.
HOME = {
    "e1": Contestant(("python", "-m", "benchmarks.floors", "e1"), _CONTEST, seconds_to_start=1.0),
    "e2": Contestant(("python", "-m", "benchmarks.floors", "e2"), _CONTEST, seconds_to_start=1.0),
    "e3": Contestant(("python", "-m", "benchmarks.floors", "e3"), _CONTEST, loop="uvloop", seconds_to_start=1.0),
    "grpc": Contestant(("python", "-m", "benchmarks.floors", "grpc"), _CONTEST, Counts(calls=10_000)),
    "async": Contestant((*_PRPC, "benchmarks.server:app"), _CONTEST),
    "async on uvloop": Contestant((*_PRPC, "benchmarks.server:app"), _CONTEST, loop="uvloop"),
    "thread": Contestant((*_PRPC, "benchmarks.server:app"), _CONTEST),
    "process": Contestant((*_PRPC, "benchmarks.processes:app"), _CONTEST, Counts(calls=10_000)),
    "plain": Contestant((*_PRPC, "benchmarks.server:app"), _CONTEST, Counts(calls=10_000)),
}

_WARM = 3.0
_CELERY = ("celery", "-A", "benchmarks.peers.celery_peer", "worker", "-l", "WARNING", "--without-gossip", "--without-mingle")


def _peer(name: str, server: tuple[str, ...], sequential: int, calls: int, variant: str = "", venv: str = "peers") -> Contestant:
    return Contestant(
        server, f"benchmarks.peers.{name}_peer", Counts(sequential, calls, (256,)), variant, venv, seconds_to_start=_WARM
    )


#: The others, at the settings that their documentation names for speed, and at their defaults where these differ much. How many
#: calls each gets is what it can do in some seconds.
PEERS = {
    "grpc sync": _peer("grpc", ("python", "-m", "benchmarks.peers.grpc_peer", "serve"), 2000, 10_000),
    "celery solo": _peer("celery", (*_CELERY, "-P", "solo"), 1000, 4000),
    "celery threads": _peer("celery", (*_CELERY, "-P", "threads", "-c", "10"), 1000, 4000),
    "dramatiq": _peer("dramatiq", ("dramatiq", "benchmarks.peers.dramatiq_peer", "-p", "1", "-t", "8"), 500, 4000),
    "taskiq": _peer("taskiq", ("taskiq", "worker", "benchmarks.peers.taskiq_peer:broker", "--workers", "1"), 25, 6000),
    "taskiq tuned": _peer(
        "taskiq", ("taskiq", "worker", "benchmarks.peers.taskiq_peer:broker", "--workers", "1"), 500, 6000, "tuned"
    ),
    "faststream": _peer("faststream", ("faststream", "run", "benchmarks.peers.faststream_peer:app"), 1000, 4000),
    "huey": _peer("huey", ("huey_consumer", "benchmarks.peers.huey_peer.huey", "-q"), 50, 2000),
    "huey notify": _peer("huey", ("huey_consumer", "benchmarks.peers.huey_peer.huey", "-q"), 1000, 4000, "notify"),
    "rq simple": _peer("rq", ("rq", "worker", "-w", "rq.worker.SimpleWorker", "bench"), 500, 2000),
    "rq": _peer("rq", ("rq", "worker", "bench"), 50, 200),
    "streaq": _peer("streaq", ("streaq", "run", "benchmarks.peers.streaq_peer:worker"), 50, 4000),
    "arq": _peer("arq", ("arq", "benchmarks.peers.arq_peer.WorkerSettings"), 12, 400, venv="arq"),
    "arq tuned": _peer("arq", ("arq", "benchmarks.peers.arq_peer.WorkerSettings"), 300, 4000, "tuned", "arq"),
    "saq": _peer("saq", ("saq", "benchmarks.peers.saq_peer.settings", "--quiet"), 6, 1000, venv="saq"),
    "saq tuned": _peer("saq", ("saq", "benchmarks.peers.saq_peer.settings", "--quiet"), 300, 4000, "tuned", "saq"),
}
