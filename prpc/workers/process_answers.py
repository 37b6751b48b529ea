"""What comes of a job in a worker process, and why one does not get there or back."""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Sequence
from typing import Any

from prpc.exceptions import EncodeError, WorkerLostError
from prpc.failure import describe
from prpc.workers.base import Outcome
from prpc.workers.process_wire import Kind
from prpc.workers.slots import SlotExecution

__all__ = ["how", "lost", "read_answer", "show_log", "unsendable"]

logger = logging.getLogger(__name__)


def how(code: int | None) -> str:
    """An exit code in words, negative for a signal; None where it is not known."""
    if code is None:
        return "in a way that is not known"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"
    return f"exit code {code}"


def lost(execution: SlotExecution, code: int | None) -> WorkerLostError:
    """The error of a job whose worker ended with this exit code, negative for a signal; None where it is not known."""
    name = execution.job.name
    text = f"the worker process ended while it ran {name}: {how(code)}; whether its side effects happened is not known"
    return WorkerLostError(text, function=name, exit_code=code)


def unsendable(name: str, args: Sequence[Any], kwargs: Any, cause: Exception) -> EncodeError:
    """The error of a job that cannot be pickled, naming the argument that is to blame."""
    named = [(f"func_args[{i}]", f"argument {i + 1}", value) for i, value in enumerate(args)]
    named += [(f"func_kwargs[{key!r}]", f"argument {key!r}", value) for key, value in kwargs.items()]
    for path, words, value in named:
        try:
            pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as exc:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            text = (
                f"{words} of {name}, a {kind}, cannot cross to a process worker ({exc}); send plain data, or use a thread worker"
            )
            return EncodeError(text, path=path, type_name=kind)
    return EncodeError(f"the arguments of {name} cannot cross to a process worker: {cause}", path="func_args")


def read_answer(kind: int, body: bytes | bytearray, execution: SlotExecution) -> tuple[Outcome, int]:
    """The outcome of a job, and the resident bytes of its worker, 0 where they are not measured."""
    name, worker = execution.job.name, execution.worker
    if kind == Kind.EXPIRED:
        execution.expire(pickle.loads(body))
        return Outcome(), 0
    try:
        if kind == Kind.REFUSED:
            raise EncodeError(
                f"the arguments of {name} cannot be read in its process worker: {pickle.loads(body)}", path="func_args"
            )
        value, running, resident = pickle.loads(body)
    except EncodeError as exc:
        execution.fail(exc)
        return Outcome(), 0
    except BaseException as exc:  # code of the value's own class runs while it is read, and may raise anything
        why = describe(exc)
        reason = f"{why.type_name}: {why.message}"
        text = f"the result of {name} cannot be read outside of its worker process ({reason}); return plain data"
        execution.fail(EncodeError(text, path="result"))
        return Outcome(), 0
    if kind == Kind.FAILURE:
        return Outcome(failure=value, running=running, worker=worker), resident
    return Outcome(value, running=running, worker=worker), resident


def show_log(body: bytes | bytearray) -> None:
    """Hand a worker's log record to the handlers that the server has."""
    try:
        record = logging.makeLogRecord(pickle.loads(body))
    except Exception:
        logger.exception("a log record of a process worker cannot be read")
        return
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)
