"""Ending a process with all its descendants, and the kernel's help for it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

__all__ = ["adopt_orphans", "children_of", "die_with_parent", "kill_tree"]

# From linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux), so that none of them gets out of sight."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent` ends (Linux); at once where it has ended already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children; empty where it is gone or the system does not tell."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def kill_tree(root: int) -> None:
    """Kill a session leader and all its descendants, those in sessions of their own too (Linux).

    Each is stopped before its children are listed, so that it cannot fork past us.
    """
    seen: list[int] = []
    fresh = [root]
    while fresh:
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        seen += fresh
        # A fork that was under way when its process was stopped shows up in the next round.
        fresh = [child for pid in seen for child in children_of(pid) if child not in seen]
    with contextlib.suppress(OSError):
        os.killpg(root, signal.SIGKILL)
    for pid in seen:
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
