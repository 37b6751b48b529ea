"""Progress bars, drawn by tqdm: one that counts calls, and one for each call that says how far it is."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from prpc.client.task import AwaitableTask
from prpc.progress import Progress

__all__ = ["Bar", "bars_of", "counting_bar", "progress_bar"]

T = TypeVar("T")

#: Calls that have a bar of their own beside the one that counts them, at once.
MOST_BARS = 10


class Bar(Protocol):
    """What counts the calls."""

    def update(self, n: int) -> object:
        """So many more have ended."""
        ...

    def close(self) -> object: ...


class _NoBar:
    def update(self, n: int) -> None: ...

    def close(self) -> None: ...


def bars_of(wanted: bool, tasks: Sequence[AwaitableTask[Any]]) -> Bar:
    """Bars for these calls, or something that shows nothing. Raises ModuleNotFoundError where tqdm is missing."""
    return _Bars(_tqdm("progress=True"), tasks) if wanted else _NoBar()


def counting_bar(wanted: bool, total: int | None) -> Bar:
    """A bar for so many calls (None: nobody knows), or something that shows nothing. ModuleNotFoundError without tqdm."""
    return _tqdm("progress=True")(total=total, unit="call") if wanted else _NoBar()


@overload
def progress_bar(tasks: AwaitableTask[T], **options: Any) -> AbstractContextManager[AwaitableTask[T]]: ...


@overload
def progress_bar(tasks: Iterable[AwaitableTask[T]], **options: Any) -> AbstractContextManager[list[AwaitableTask[T]]]: ...


def progress_bar(tasks: Any, **options: Any) -> AbstractContextManager[Any]:
    """Show a tqdm bar for the call, or one for each of several, as long as the `with` block lasts.

    `with progress_bar(task) as task:` gives the task back, of several a list. What functions say by
    `current_call().progress(done, total, message)` moves the bars. `options` go to tqdm: `file`, `leave`, `unit`, ... For plain
    code and for coroutines. Raises ModuleNotFoundError where tqdm is missing.
    """
    given: list[AwaitableTask[Any]] = [tasks] if isinstance(tasks, AwaitableTask) else list(tasks)
    for task in given:
        if not isinstance(task, AwaitableTask):
            raise TypeError(f"calls are expected (what a stub gives), not {type(task).__name__}")
    return _shown(given, _tqdm("progress_bar()"), options, tasks if isinstance(tasks, AwaitableTask) else given)


@contextmanager
def _shown(tasks: Sequence[AwaitableTask[Any]], tqdm: Any, options: dict[str, Any], given: Any) -> Iterator[Any]:
    bars: list[_TaskBar] = []
    stops = []
    try:
        for task in tasks:
            bar = _TaskBar(tqdm, task, options)
            bars.append(bar)
            stops.append(task.on_progress(bar.show))
        yield given
    finally:
        for stop in stops:
            stop()
        for bar in bars:
            bar.close()


def _tqdm(what: str) -> Any:
    try:
        return importlib.import_module("tqdm").tqdm
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(f"{what} needs tqdm: pip install 'prpc[progress]'", name="tqdm") from exc


class _TaskBar:
    """The bar of one call. Moved in the thread of the call's loop, closed in any."""

    def __init__(self, tqdm: Any, task: AwaitableTask[Any], options: dict[str, Any]) -> None:
        progress = task.progress
        total = None if progress is None else progress.total
        self._bar = tqdm(**{"desc": _printable(task.call.message.func_name), "total": total, **options})
        self._lock = threading.Lock()
        self._closed = False
        if progress is not None:
            self.show(progress)

    def show(self, progress: Progress) -> None:
        with self._lock:
            if not self._closed:
                self._bar.n, self._bar.total = progress.done, progress.total
                self._bar.set_postfix_str(_printable(progress.message or ""), refresh=False)
                self._bar.refresh()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._bar.close()


class _Bars:
    """A bar that counts calls, and below it one for each that says how far it is."""

    def __init__(self, tqdm: Any, tasks: Sequence[AwaitableTask[Any]]) -> None:
        self._tqdm = tqdm
        self._count: Bar = tqdm(total=len(tasks), unit="call")
        self._lock = threading.Lock()
        self._closed = False
        self._shown: dict[AwaitableTask[Any], _TaskBar] = {}
        self._stops = [task.on_progress(partial(self._hear, task)) for task in dict.fromkeys(tasks) if not task.is_done_task()]

    def update(self, n: int) -> None:
        """See Bar."""
        with self._lock:
            for task in [task for task in self._shown if task.is_done_task()]:
                self._shown.pop(task).close()
            self._count.update(n)

    def close(self) -> None:
        """See Bar."""
        for stop in self._stops:
            stop()
        with self._lock:
            self._closed = True
            for bar in self._shown.values():
                bar.close()
            self._count.close()

    def _hear(self, task: AwaitableTask[Any], progress: Progress) -> None:
        with self._lock:
            bar = self._shown.get(task)
            if bar is not None:
                bar.show(progress)
            elif len(self._shown) < MOST_BARS and not self._closed and not task.is_done_task():
                self._shown[task] = _TaskBar(self._tqdm, task, {"leave": False})


def _printable(text: str) -> str:
    """On one line, and without what would speak to the terminal: the text may come from anybody."""
    return "".join(character if character.isprintable() else " " for character in text)
