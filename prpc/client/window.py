"""The calls of one map that are in flight: sent, and not yet handed to its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from prpc.client.call import Home
from prpc.client.one_reader import OneReader
from prpc.client.task import AwaitableTask

__all__ = ["Outcome", "Window"]


class Outcome(Protocol):
    """A call as the window sees it."""

    def is_done_task(self) -> bool: ...

    def get_result(self) -> Any: ...


class _Refused:
    """What stands in the place of a call that could not be made."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def is_done_task(self) -> bool:
        return True

    def get_result(self) -> Any:
        raise self._error


class Window(OneReader):
    """The calls that were sent and not yet handed out. Sent and handed out by one reader, ended and cancelled from anywhere."""

    def __init__(self, limit: int, ordered: bool, hurry: bool) -> None:
        super().__init__()
        self._limit = limit
        #: How many were sent and not handed out.
        self.held = 0
        #: The first failure, where one ends the whole.
        self.failure: Outcome | None = None
        #: No call will be added any more.
        self.ended = False
        self.cancelled = False
        self._ordered = ordered
        self._hurry = hurry
        #: In order: everything held. Else: what has its outcome, as it came.
        self._line: deque[Outcome] = deque()
        #: What has no outcome, with what it was left to notify us with.
        self._open: dict[AwaitableTask[Any], Callable[[], object]] = {}
        self._newest: AwaitableTask[Any] | None = None

    def add(self, task: AwaitableTask[Any]) -> None:
        self.held += 1
        if self._ordered:
            self._line.append(task)
        self._newest = task
        self._open[task] = notify = partial(self._note, task)
        task.call.add_waiter(notify)
        if self.cancelled:  # in another thread, while this one was being sent
            self.cancel()

    def refuse(self, error: Exception) -> None:
        """Count an item as failed that could not be sent."""
        self.held += 1
        outcome = _Refused(error)
        self._line.append(outcome)
        self._fail(outcome)
        self._tell()

    def end(self, error: BaseException | None = None) -> None:
        """No call will be added any more; with an error, because consuming the input raised it."""
        self.ended = True
        if error is not None and self.failure is None:
            self.failure = _Refused(error)
        self._tell()

    @property
    def room(self) -> bool:
        """Whether a call may be added."""
        return self.held < self._limit and self.failure is None and not (self.ended or self.cancelled)

    @property
    def there(self) -> bool:
        """Whether a result can be handed out."""
        try:
            return self._line[0].is_done_task()
        except IndexError:
            return False

    @property
    def over(self) -> bool:
        """Whether everything was handed out."""
        return self.ended and not (self.held or self.failure or self.cancelled)

    def take(self) -> tuple[Outcome, bool] | None:
        """What comes next, and whether it may stand among the results; None where nothing came in time."""
        if self.there:
            self.held -= 1
            return self._line.popleft(), not self._hurry
        return (self.failure, False) if self.failure is not None and self._last else None

    def wait(self, until: float | None) -> None:
        """Block until there is something to take, or the moment `until` came. RuntimeError where that would never end."""
        if not self._ready():
            self._check(lambda home: home.check_sync_wait())
            self._sleep(until)

    async def wait_async(self, until: float | None) -> None:
        """The same in the running loop."""
        if not self._ready():
            self._check(lambda home: home.check_wait(asyncio.get_running_loop()))
            await self._sleep_async(until)

    def cancel(self) -> int:
        """Cancel what has no outcome. Returns how many calls that were."""
        self.cancelled = True
        count = 0
        for task, notify in list(self._open.items()):
            self._open.pop(task, None)
            task.call.remove_waiter(notify)
            count += task.cancel()
        self._tell()
        return count

    def _check(self, check: Callable[[Home], None]) -> None:
        task = self._newest  # all were made by one reader, in one place
        if task is not None and not task.call.done:
            check(task.call.home)

    def _ready(self) -> bool:
        return self.there or self.cancelled or ((self.failure is not None or self.ended) and self._last)

    @property
    def _last(self) -> bool:
        """Whether what ends the whole is next: a failure at once, everything else after all results."""
        return not self.held or (self._hurry and self.failure is not None)

    def _note(self, task: AwaitableTask[Any]) -> None:
        self._open.pop(task, None)
        if not self._ordered:
            self._line.append(task)
        if task.failed:
            self._fail(task)
        self._tell()

    def _fail(self, outcome: Outcome) -> None:
        if self._hurry and self.failure is None:
            self.failure = outcome
