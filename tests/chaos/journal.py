"""Where the programs of a run write their events: one file each, outside the broker that is tested.

One event is one write to a file opened for appending, so what a killed program wrote before is there, whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Journal", "read_journals"]


class Journal:
    """One program's file of events."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(folder / f"{name}.events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: str, **fields: Any) -> None:
        """Note an event now, by the clock that all programs of a machine share."""
        line = json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        os.close(self._file)


def read_journals(folder: Path) -> Iterator[dict[str, Any]]:
    """Every event of every program."""
    for file in sorted(folder.glob("*.events")):
        for line in file.read_text().splitlines():
            yield json.loads(line)
