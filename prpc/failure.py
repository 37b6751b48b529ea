"""An exception as plain data: what a worker, the codec and the client hand on instead of the exception itself.

Restoring is from closed tables: no import and no call by a name that came over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Failure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One exception, described. Made by `describe`, turned back by `restore`."""

    #: Class with its module, e.g. `builtins.KeyError` or `prpc.exceptions.WorkerLostError`.
    type_name: str
    #: `str()` of the original.
    message: str
    #: Names of the original's base classes with their modules, nearest first, ending at the first built-in one.
    bases: tuple[str, ...] = ()
    #: Traceback text as the server printed it; empty where there is none.
    traceback: str = ""
    #: `__notes__` of the original.
    notes: tuple[str, ...] = ()
    #: The explicit cause (`raise ... from`) or, failing that, the context that was not suppressed.
    cause: Failure | None = None
    #: Whether `cause` was an explicit `from`.
    explicit_cause: bool = False
    #: Members of an exception group.
    members: tuple[Failure, ...] = ()
    #: Facts of a PRPC error (its `facts`), or the plain arguments (`args`) of a built-in one.
    facts: Mapping[str, Any] = field(default_factory=dict)
