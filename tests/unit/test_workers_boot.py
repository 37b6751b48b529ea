"""How a child is told what to import, and in which mode it runs."""

import logging
import pickle
import subprocess
import sys

import pytest

from prpc.workers.process_boot import interpreter_flags, logger_levels, make_boot


def test_a_boot_survives_pickling_and_loads_its_functions():
    boot = pickle.loads(pickle.dumps(make_boot([len, logging.getLogger], fork=False, measure=True)))
    assert boot.load() == [len, logging.getLogger] and boot.modules == ("builtins", "logging")
    assert boot.main_name is None and boot.main_path is None and boot.measure and not boot.fork


def test_levels_of_the_loggers_go_along():
    logging.getLogger("some.package").setLevel(logging.ERROR)
    try:
        levels = logger_levels()
    finally:
        logging.getLogger("some.package").setLevel(logging.NOTSET)
    assert levels["some.package"] == logging.ERROR and levels[""] == logging.root.level


@pytest.mark.parametrize(
    "options",
    [[], ["-O"], ["-OO", "-B"], ["-I"], ["-E", "-s"], ["-W", "ignore::DeprecationWarning"], ["-X", "dev"], ["-X", "utf8"]],
)
def test_children_run_in_the_interpreters_mode(options):
    mode = "(tuple(sys.flags)[:12], sys.flags.dev_mode, sys.flags.utf8_mode, sys.warnoptions)"
    code = f"""
import subprocess, sys
sys.path.insert(0, {str(sys.path[0])!r}); sys.path[:0] = {sys.path!r}
from prpc.workers.process_boot import interpreter_flags
print({mode})
sys.stdout.flush()
subprocess.run([sys.executable, *interpreter_flags(), "-c", "import sys; print({mode})"], check=True)
"""
    result = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    ours, childs = result.stdout.splitlines()
    assert ours == childs


def test_flags_of_this_process():
    assert all(option.startswith("-") for option in interpreter_flags())
