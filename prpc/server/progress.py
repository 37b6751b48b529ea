"""What running calls say of their progress, on its way to their callers: the newest of each call, at most ten times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

from prpc.exceptions import BrokerUnavailableError
from prpc.progress import Progress
from prpc.protocol.call_table import CallTable
from prpc.protocol.mail import write_progress
from prpc.server.run import Run

__all__ = ["PostMail", "Reports"]

#: Sends one mail: reply address, text, the call that it is about. Raises BrokerUnavailableError.
PostMail = Callable[[str, bytes, UUID], Awaitable[None]]
#: Least seconds between two mails about one call.
EVERY = 0.1


class _Report:
    """What one call said."""

    __slots__ = ("awake", "message_id", "newest", "sent", "timer")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.newest: Progress | None = None
        #: The last one that was sent.
        self.sent: Progress | None = None
        #: Whether the loop will look at `newest` by itself.
        self.awake = False
        self.timer: asyncio.TimerHandle | None = None


class Reports:
    """A ProgressSink. Everything but `report` belongs to the thread of the loop that made it."""

    def __init__(self, post: PostMail, table: CallTable[Run]) -> None:
        """`table`: the calls that run; nobody is told of any other."""
        self._post, self._table = post, table
        self._loop = asyncio.get_running_loop()
        #: Calls that said something and have not ended.
        self.open: dict[str, _Report] = {}

    def report(self, message_id: str, progress: Progress) -> None:
        """See ProgressSink."""
        report = self.open.get(message_id)
        if report is None:
            report = self.open.setdefault(message_id, _Report(message_id))
        report.newest = progress
        # The loop lowers the flag before it looks: whichever of us comes second sees the other.
        if not report.awake:
            report.awake = True
            with suppress(RuntimeError):  # the loop is closed: an abandoned thread speaks after the end
                self._loop.call_soon_threadsafe(self._look, report)

    def flush(self, run: Run) -> None:
        """The call ends: send what was not sent yet, so that it arrives before the outcome."""
        report = self.open.pop(str(run.message.message_id), None)
        if report is not None:
            if report.timer is not None:
                report.timer.cancel()
            self._send(report, run)

    def _look(self, report: _Report) -> None:
        if report.timer is None:
            self._due(report)

    def _due(self, report: _Report) -> None:
        report.timer, report.awake = None, False
        if self.open.get(report.message_id) is not report:
            return
        run = self._table.running(UUID(report.message_id))
        if run is None:  # it has ended, and a thread of its own has not noticed
            del self.open[report.message_id]
        elif self._send(report, run):
            report.awake = True
            report.timer = self._loop.call_later(EVERY, self._due, report)

    def _send(self, report: _Report, run: Run) -> bool:
        """Whether there was something new to say."""
        newest = report.newest
        if newest is None or newest is report.sent:
            return False
        report.sent, message_id = newest, run.message.message_id
        body = write_progress(message_id, newest)
        for entry in (run, *run.followers) if run.followers else (run,):
            address = entry.facts.reply_to
            if address is not None and not entry.delivery.raw:
                with suppress(BrokerUnavailableError):  # nobody waits for it, and there will be another
                    self._post(address, body, message_id)
        return True
