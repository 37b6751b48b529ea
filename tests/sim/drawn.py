"""What stands in the place of tqdm: bars that nobody sees, and that must be closed in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tests.sim.workload import world_here

__all__ = ["without_tqdm", "with_tqdm"]


class Bar:
    """tqdm.tqdm as PRPC uses it."""

    def __init__(self, **options: Any) -> None:
        self.n, self.total = 0.0, options.get("total")
        self._world = world_here()
        self._world.bars += 1
        self._world.counts["bars"] += 1
        self._closed = False

    def update(self, n: int) -> None:
        self._check()
        self.n += n
        if self.total is not None and self.n > self.total:
            self._world.note("broken", what=f"a bar shows {self.n} of {self.total}")

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self._check()

    def refresh(self) -> None:
        self._check()

    def close(self) -> None:
        self._world.bars -= not self._closed
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            self._world.note("broken", what="a bar is moved that was closed")


_module: Any = ModuleType("tqdm")
_module.tqdm = Bar


@contextmanager
def with_tqdm(module: Any = _module) -> Iterator[None]:
    """tqdm is this one."""
    before = sys.modules.get("tqdm")
    sys.modules["tqdm"] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules["tqdm"]
        else:
            sys.modules["tqdm"] = before


def without_tqdm() -> Any:
    """It is not installed; nobody may wait meanwhile."""
    return with_tqdm(None)
