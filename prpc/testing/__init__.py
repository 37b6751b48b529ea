"""For tests of programs that use PRPC: a server in memory, calls that run at once, stubs without a file, a clock moved by hand.

The fixtures for pytest stand in `prpc.pytest_plugin`.
"""

from __future__ import annotations

from prpc.testing.clock import ManualClock
from prpc.testing.eager import Eager, EagerClient, eager
from prpc.testing.server import Running, ServerFactory, running
from prpc.testing.stubs import installed_stubs, stubs_of

__all__ = [
    "Eager",
    "EagerClient",
    "ManualClock",
    "Running",
    "ServerFactory",
    "eager",
    "installed_stubs",
    "running",
    "stubs_of",
]
