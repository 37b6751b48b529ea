"""A worker process: reads calls from its pipe, runs them one after another, writes what came of them."""

from __future__ import annotations

import contextvars
import io
import logging
import os
import pickle
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from prpc.call_context import CurrentCall, bind_current_call
from prpc.deadline import Deadline, SystemClock
from prpc.exceptions import EncodeError
from prpc.failure import Failure, describe, failure_of, type_name_of, without_first_frame
from prpc.workers.process_boot import MAIN, Boot
from prpc.workers.process_progress import PipeReports
from prpc.workers.process_tree import adopt_orphans, children_of, die_with_parent, kill_tree
from prpc.workers.process_wire import Channel, Kind, take_turn

__all__ = ["main", "run_worker"]

#: Attributes of a log record that cannot cross as they are; the text carries them.
UNSENT = ("args", "exc_info")


def main() -> None:
    """Entry point of a worker that is started afresh; arguments: descriptors of its pipes, process id of the keeper."""
    enter_session(int(sys.argv[3]))
    run_worker(int(sys.argv[1]), int(sys.argv[2]))


def enter_session(keeper: int) -> None:
    """Become a worker: a session of its own, orphans adopted, Ctrl-C left to the server."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    adopt_orphans()
    die_with_parent(keeper)


def run_worker(descriptor: int, turns: int) -> None:
    """Serve the calls that come over this pipe until its other end is closed. `turns`: where the turn for each is taken."""
    with socket.socket(fileno=descriptor) as sock:
        sock.setblocking(True)
        channel = Channel(sock)
        os.register_at_fork(after_in_child=channel.close)
        frame = channel.receive()
        if frame is not None:
            _serve(channel, turns, pickle.loads(frame[1]))
    for pid in children_of(os.getpid()):
        kill_tree(pid)


def _serve(channel: Channel, turns: int, boot: Boot) -> None:
    sys.argv = list(boot.argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what is printed shows at once, also when we are killed
            stream.reconfigure(line_buffering=True)
    try:
        functions = boot.load()
    except BaseException:
        channel.send(Kind.BROKEN, pickle.dumps(traceback.format_exc()))
        return
    _send_logs(channel, boot.levels)
    reports = PipeReports(channel)
    os.register_at_fork(after_in_child=reports.close)
    channel.send(Kind.READY, b"")
    while (frame := channel.receive()) is not None:
        try:
            may_begin = take_turn(turns)
        except OSError:  # user code closed what it did not open: the server has back what was not begun
            return
        answer = _answer(functions, frame[1], reports, measure=boot.measure) if may_begin else (Kind.SKIPPED, b"")
        reports.end()
        channel.send(*answer)  # before the next turn is taken: of all that is not answered one at most has begun
        del frame, answer


def _answer(
    functions: list[Callable[..., Any]], body: bytes | bytearray, reports: PipeReports, *, measure: bool
) -> tuple[Kind, bytes]:
    try:
        which, args, kwargs, facts, since, left = pickle.loads(body)
        function = functions[which] if isinstance(which, int) else pickle.loads(which)
    except BaseException as exc:
        return Kind.REFUSED, pickle.dumps(f"{type(exc).__name__}: {exc}")
    began = time.monotonic()
    if left is not None and began - since >= left:
        return Kind.EXPIRED, pickle.dumps(began - since)
    context = contextvars.copy_context()
    _bind(context, facts, reports, None if left is None else left - (began - since))
    try:
        value = context.run(function, *args, **kwargs)
    except BaseException as exc:
        running = time.monotonic() - began
        failure = _as_main(describe(without_first_frame(exc)))
    else:
        running = time.monotonic() - began
        del args, kwargs
        try:
            return Kind.VALUE, pickle.dumps((value, running, _resident() if measure else 0), pickle.HIGHEST_PROTOCOL)
        except BaseException as exc:
            failure = failure_of(_unsendable(facts, value, exc))
    return Kind.FAILURE, pickle.dumps((failure, running, _resident() if measure else 0))


def _bind(context: contextvars.Context, facts: Mapping[str, Any], reports: PipeReports, left: float | None) -> None:
    if "message_id" in facts:
        reports.begin(facts["message_id"])
        clock = SystemClock()
        limits = [limit for limit in (facts.get("timeout"), left) if limit is not None]
        call = CurrentCall(
            message_id=facts["message_id"],
            function=facts.get("function", ""),
            headers=facts.get("headers", {}),
            deadline=Deadline.after(clock, min(limits, default=None)),
            attempt=facts.get("attempt", 1),
            clock=clock,
            _sink=reports,
        )
        context.run(bind_current_call, call)


def _unsendable(facts: Mapping[str, Any], value: Any, exc: BaseException) -> EncodeError:
    name, kind = facts.get("function", "the function"), type_name_of(type(value))
    text = f"{name} returned a {kind} that cannot leave its worker process ({describe(exc).message}); return plain data"
    return EncodeError(text, path="result", type_name=kind)


def _as_main(failure: Failure) -> Failure:
    """The script's classes under the name that they have in the server."""

    def rename(name: str) -> str:
        return "__main__" + name.removeprefix(MAIN) if name.startswith(MAIN + ".") else name

    return replace(
        failure,
        type_name=rename(failure.type_name),
        bases=tuple(map(rename, failure.bases)),
        traceback=failure.traceback.replace(MAIN + ".", ""),
        cause=failure.cause and _as_main(failure.cause),
        members=tuple(map(_as_main, failure.members)),
    )


def _resident() -> int:
    """Resident bytes of this process; where the system does not tell, the most there ever were."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class _PipeHandler(logging.Handler):
    """Sends log records to the server, whose handlers show them."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.send(Kind.LOG, self._pack(record))
        except Exception:
            self.handleError(record)

    def _pack(self, record: logging.LogRecord) -> bytes:
        values = {name: value for name, value in record.__dict__.items() if name not in UNSENT}
        values["msg"] = record.getMessage()
        if record.exc_info and not record.exc_text:
            values["exc_text"] = self._formatter.formatException(record.exc_info)
        try:
            return pickle.dumps(values)
        except Exception:
            return pickle.dumps({name: value if _is_plain(value) else repr(value) for name, value in values.items()})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _send_logs(channel: Channel, levels: Mapping[str, int]) -> None:
    """Let the server's logging show this process's records: its levels, one handler, everything propagates to it."""
    handler = _PipeHandler(channel)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    logging.root.handlers[:] = [handler]
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    os.register_at_fork(after_in_child=lambda: logging.root.removeHandler(handler))
