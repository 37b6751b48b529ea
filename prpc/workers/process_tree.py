"""Ending a process with all its descendants, and the kernel's help for it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

__all__ = ["adopt_orphans", "children_of", "die_with_parent", "kill_tree", "scan_children"]

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
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    try:
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except OSError:  # a thread that ended meanwhile, or a kernel without these lists
        return scan_children(pid)
    return found


def scan_children(pid: int) -> list[int]:
    """The same from the table of all processes: slower, and known to every Linux."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                # The name in parentheses may hold anything; state and parent follow it.
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
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
