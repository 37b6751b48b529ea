"""One process of a chaos run: how it is told something, waited for and ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["PATIENCE", "Program", "end_family", "workers_of"]

#: Seconds within which a program must start, end, and the queue be empty.
PATIENCE = 30.0


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


def workers_of(program: Program) -> list[psutil.Process]:
    """The worker processes of a server: what its helpers have started, and has started nothing itself."""
    try:
        family = psutil.Process(program.process.pid).children(recursive=True)
        parents = {process.ppid() for process in family}
        return [process for process in family if process.pid not in parents and _is_worker(process)]
    except psutil.Error:
        return []


def _is_worker(process: psutil.Process) -> bool:
    """Whether this is no helper of multiprocessing."""
    return "resource_tracker" not in " ".join(process.cmdline())


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started; what it started alone is left to nobody."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    for child in family:
        with contextlib.suppress(psutil.Error):
            child.kill()
