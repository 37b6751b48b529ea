"""A program of the chaos runs with a wall clock of its own: `python -m tests.chaos.shifted_program MODULE CONFIG`."""

from __future__ import annotations

import runpy
import sys

from tests.chaos.clocks import install

if __name__ == "__main__":
    install()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
