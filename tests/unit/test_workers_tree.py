"""Finding and ending the descendants of a process."""

import os
import subprocess
import sys

from prpc.workers import process_tree
from prpc.workers.process_tree import children_of, kill_tree, scan_children

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def start_family():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    return parent, int(parent.stdout.readline())


def test_children_are_found_both_ways_and_killed():
    parent, child = start_family()
    with parent:
        assert children_of(parent.pid) == scan_children(parent.pid) == [child]
        assert parent.pid in children_of(os.getpid()) and parent.pid in scan_children(os.getpid())
        kill_tree(parent.pid)
        assert parent.wait(30) == -9
    assert children_of(parent.pid) == [] == scan_children(parent.pid)
    kill_tree(parent.pid)


def test_a_kernel_without_lists_of_children(monkeypatch):
    parent, child = start_family()
    with parent:
        real = open

        def without_lists(path, *more):
            if str(path).endswith("/children"):
                raise FileNotFoundError(path)
            return real(path, *more)

        monkeypatch.setattr(process_tree, "open", without_lists, raising=False)
        assert children_of(parent.pid) == [child]
        kill_tree(parent.pid)


def test_a_system_without_prctl(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    process_tree.adopt_orphans()
    process_tree.die_with_parent(os.getppid())


def test_a_worker_whose_parent_is_gone_already_ends_at_once():
    code = "from prpc.workers.process_tree import die_with_parent; die_with_parent(-1); print('still here')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (result.returncode, result.stdout) == (1, "")
