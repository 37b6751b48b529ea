"""Many calls at once: `gather` and `as_completed`, each for plain code and for coroutines, with a progress bar on request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar, cast, overload

from prpc.client.bars import Bar, bars_of
from prpc.client.one_reader import OneReader, moment_after
from prpc.client.options import seconds_of
from prpc.client.task import AwaitableTask
from prpc.exceptions import ClientTimeOutError

__all__ = ["AsCompleted", "Gathered", "as_completed", "gather"]

T = TypeVar("T")


class _Completions(OneReader, Generic[T]):
    """The order in which tasks end, told to one reader, who is woken once for as many as it asked for."""

    def __init__(self, tasks: Iterable[AwaitableTask[T]], *, hurry: bool) -> None:
        super().__init__()
        self._ended: deque[AwaitableTask[T]] = deque()
        #: Whether a failure wakes the reader before its time.
        self._hurry = hurry
        self._failed = False
        self._wanted = 1
        #: Tasks that were not told yet, with what each was left to notify us with.
        self._open: dict[AwaitableTask[T], Callable[[], object]] = {}
        for task in tasks:
            if task not in self._open:
                self._open[task] = notify = partial(self._note, task)
                task.call.add_waiter(notify)

    def __len__(self) -> int:
        """How many tasks were not told yet."""
        return len(self._open)

    def ended(self) -> Iterator[AwaitableTask[T]]:
        """Tell the tasks that ended and were not told yet."""
        while self._ended:
            task = self._ended.popleft()
            del self._open[task]
            yield task

    def wait(self, wanted: int, until: float | None) -> bool:
        """Block until `wanted` tasks can be told, or one that failed; False where the moment `until` came first."""
        self._wanted = wanted
        if self._ready():
            return True
        for task in self._open:
            if not task.call.done:
                task.call.home.check_sync_wait()
        return self._sleep(until)

    async def wait_async(self, wanted: int, until: float | None) -> bool:
        """The same in the running loop; cancelling it cancels the calls that nobody else waits for."""
        self._wanted = wanted
        if self._ready():
            return True
        loop = asyncio.get_running_loop()
        for task in self._open:
            if not task.call.done:
                task.call.home.check_wait(loop)
        try:
            return await self._sleep_async(until)
        except asyncio.CancelledError:
            for task, notify in self._open.items():
                task.call.give_up(notify)
            raise

    def leave(self) -> None:
        """Wait for nothing more."""
        for task, notify in self._open.items():
            task.call.remove_waiter(notify)
        self._open.clear()

    def _ready(self) -> bool:
        return len(self._ended) >= self._wanted or (self._failed and bool(self._ended))

    def _note(self, task: AwaitableTask[T]) -> None:
        self._ended.append(task)
        if self._hurry and task.failed:
            self._failed = True
        self._tell()


class _Many(Generic[T]):
    def __init__(self, tasks: Iterable[AwaitableTask[T]], timeout: timedelta | float | None, progress: bool) -> None:
        #: The tasks, in the order in which they were given.
        self.tasks: Sequence[AwaitableTask[T]] = list(tasks)
        for task in self.tasks:
            if not isinstance(task, AwaitableTask):
                raise TypeError(
                    f"calls are expected (what a stub gives), not {type(task).__name__}; a list goes as gather(*tasks)"
                )
        self._timeout = seconds_of(timeout)
        self._progress = progress

    def cancel(self) -> int:
        """Cancel every call that has no outcome. Returns how many that were."""
        return sum(task.cancel() for task in self.tasks)

    def _not_yet(self, completions: _Completions[T], timeout: float | None) -> ClientTimeOutError:
        waited = timeout or 0.0
        text = f"{len(completions)} of {len(self.tasks)} calls had no outcome within {waited:g} s; they may still come"
        return ClientTimeOutError(text, timeout=waited)


class Gathered(_Many[T]):
    """Results of many calls in the order of the calls: `await gather(...)`, or `gather(...).result()` in plain code."""

    def __init__(self, tasks: Iterable[AwaitableTask[Any]], return_exceptions: bool, progress: bool) -> None:
        super().__init__(tasks, None, progress)
        self._return_exceptions = return_exceptions

    def result(self, timeout: timedelta | float | None = None) -> list[T]:
        """Block until every call has its outcome. Raises the first failure as soon as it is there, ClientTimeOutError when
        `timeout` seconds passed; the other calls go on."""
        seconds = seconds_of(timeout)
        until = moment_after(seconds)
        bar, completions = bars_of(self._progress, self.tasks), self._completions()
        try:
            while completions:
                if not completions.wait(self._wanted(completions), until):
                    raise self._not_yet(completions, seconds)
                self._look(completions, bar)
            return self._results()
        finally:
            completions.leave()
            bar.close()

    async def async_result(self, timeout: timedelta | float | None = None) -> list[T]:  # noqa: ASYNC109 - the public face
        """The same for coroutines. Cancelling it cancels the calls that nobody else waits for."""
        seconds = seconds_of(timeout)
        until = moment_after(seconds)
        bar, completions = bars_of(self._progress, self.tasks), self._completions()
        try:
            while completions:
                if not await completions.wait_async(self._wanted(completions), until):
                    raise self._not_yet(completions, seconds)
                self._look(completions, bar)
            return self._results()
        finally:
            completions.leave()
            bar.close()

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self.async_result().__await__()

    def _completions(self) -> _Completions[T]:
        return _Completions(self.tasks, hurry=not self._return_exceptions)

    def _wanted(self, completions: _Completions[T]) -> int:
        return 1 if self._progress else len(completions)

    def _look(self, completions: _Completions[T], bar: Bar) -> None:
        for task in completions.ended():
            bar.update(1)
            if task.failed and not self._return_exceptions:
                task.get_result()

    def _results(self) -> list[T]:
        if not self._return_exceptions:
            return [task.get_result() for task in self.tasks]
        return [cast("T", _result_or_exception(task)) for task in self.tasks]


def _result_or_exception(task: AwaitableTask[Any]) -> Any:
    try:
        return task.get_result()
    except Exception as exc:
        return exc


class AsCompleted(_Many[T]):
    """The tasks of many calls, each when it has its outcome: `for task in ...`, or `async for task in ...`.

    The tasks that come are done: `task.get_result()`, or `await task`, gives the result or raises the failure at once.
    Raises ClientTimeOutError when the timeout passed; the calls go on.
    """

    def __iter__(self) -> Iterator[AwaitableTask[T]]:
        until = moment_after(self._timeout)
        bar, completions = bars_of(self._progress, self.tasks), _Completions(self.tasks, hurry=False)
        try:
            while completions:
                if not completions.wait(1, until):
                    raise self._not_yet(completions, self._timeout)
                for task in completions.ended():
                    bar.update(1)
                    yield task
        finally:
            completions.leave()
            bar.close()

    async def __aiter__(self) -> AsyncIterator[AwaitableTask[T]]:
        until = moment_after(self._timeout)
        bar, completions = bars_of(self._progress, self.tasks), _Completions(self.tasks, hurry=False)
        try:
            while completions:
                if not await completions.wait_async(1, until):
                    raise self._not_yet(completions, self._timeout)
                for task in completions.ended():
                    bar.update(1)
                    yield task
        finally:
            completions.leave()
            bar.close()


@overload
def gather(*tasks: AwaitableTask[T], return_exceptions: Literal[False] = False, progress: bool = False) -> Gathered[T]: ...


@overload
def gather(*tasks: AwaitableTask[T], return_exceptions: bool, progress: bool = False) -> Gathered[T | BaseException]: ...


def gather(*tasks: AwaitableTask[Any], return_exceptions: bool = False, progress: bool = False) -> Gathered[Any]:
    """The results of all these calls, in their order.

    The first failure is raised, the others go on; with `return_exceptions` failures stand among the results instead.
    `progress` shows a bar while somebody waits, and one for each call that says how far it is, ten at most (needs
    `pip install 'prpc[progress]'`).
    """
    return Gathered(tasks, return_exceptions, progress)


def as_completed(
    tasks: Iterable[AwaitableTask[T]], *, timeout: timedelta | float | None = None, progress: bool = False
) -> AsCompleted[T]:
    """These tasks in the order in which they end. `timeout` in seconds bounds the whole loop."""
    return AsCompleted(tasks, timeout, progress)
