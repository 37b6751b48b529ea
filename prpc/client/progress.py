"""The progress bar of many calls: tqdm's, where one is asked for."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

__all__ = ["Bar", "progress_bar"]


class Bar(Protocol):
    """What counts the calls."""

    def update(self, n: int) -> object: ...

    def close(self) -> object: ...


class _NoBar:
    def update(self, n: int) -> None: ...

    def close(self) -> None: ...


def progress_bar(wanted: bool, total: int | None) -> Bar:
    """A bar for so many calls (None: nobody knows), or something that shows nothing. ModuleNotFoundError without tqdm."""
    if not wanted:
        return _NoBar()
    try:
        tqdm = importlib.import_module("tqdm")
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError("progress=True needs tqdm: pip install 'prpc[progress]'", name="tqdm") from exc
    return cast("Bar", tqdm.tqdm(total=total, unit="call"))
