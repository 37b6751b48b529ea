"""Plain functions in processes of their own: each can be killed without harm to its neighbours.

One worker process and one pipe for each slot. The keeper (process_keeper.py) starts, reaps and kills them.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

from prpc.exceptions import EncodeError, RegistrationError, ServerShutdownError, WorkerLostError
from prpc.failure import describe
from prpc.settings import Settings
from prpc.workers.base import Outcome, PoolState, WorkerKind
from prpc.workers.process_boot import importing_main, logger_levels, make_boot, reference
from prpc.workers.process_control import Control, WorkerPipe, socket_pair
from prpc.workers.process_progress import pass_on
from prpc.workers.process_wire import Frame, Kind
from prpc.workers.slots import SlotExecution, SlotPool

__all__ = ["ProcessPool"]

logger = logging.getLogger(__name__)

#: Seconds before a worker that could not be started is tried again: the first time, and at most.
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0
#: Seconds that an idle worker has for ending by itself.
GRACE_SECONDS = 1.0


class _State(enum.Enum):
    STARTING = enum.auto()  # until it has imported the functions
    IDLE = enum.auto()
    BUSY = enum.auto()
    ENDING = enum.auto()  # it gets no more calls; its exit is awaited


class _Worker:
    """One worker process as the pool sees it."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.state = _State.STARTING
        self.pipe: WorkerPipe | None = None
        self.pid = 0
        self.calls = 0
        #: The job that it runs.
        self.execution: SlotExecution | None = None
        #: The ended job of a worker that this one replaces: its slot is free when this one is ready.
        self.frees: SlotExecution | None = None
        #: Traceback of an import that failed.
        self.broken = ""


class ProcessPool(SlotPool):
    """One process for each slot, replaced when it is killed, dies, or has served long enough."""

    def __init__(self, slots: int, settings: Settings, functions: Sequence[Callable[..., Any]]) -> None:
        super().__init__(WorkerKind.PROCESS, slots)
        self._settings = settings
        self._functions = tuple(functions)
        self._numbers = {_key(function): number for number, function in enumerate(self._functions)}
        method = settings.process_start_method
        fork = method == "forkserver" or (method == "auto" and sys.platform == "linux")
        self._boot = make_boot(functions, fork=fork, measure=settings.process_max_bytes > 0)
        self._control: Control | None = None
        self._workers: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []
        self._tokens = 0
        self._failures = 0
        self._started = False
        self._all_ready: asyncio.Future[None] | None = None
        self._all_ended: asyncio.Future[None] | None = None
        self._revival: asyncio.Task[None] | None = None

    def state(self) -> PoolState:
        """The pool's figures at this moment; a process is never abandoned."""
        return PoolState(self._slots, len(self._held), 0, self._replaced)

    async def _open(self) -> None:
        if importing_main():
            raise RegistrationError(
                "the server is started while a process worker imports its script: "
                'put app.start() under `if __name__ == "__main__":`'
            )
        self._all_ready = self.loop.create_future()
        try:
            await self._launch()
            for _ in range(self._slots):
                self._start_worker(None)
            await self._all_ready
            if self._stopped:
                raise ServerShutdownError("the worker pool was stopped while it started")
            self._started = True
        except BaseException:
            await self.stop()
            raise

    async def _launch(self) -> None:
        self._control = control = Control(self._boot, self._on_started, self._on_exited)
        if await control.ready():
            logger.warning("the functions' modules start threads when imported: process workers are not forked but start afresh")
        control.gone.add_done_callback(self._on_keeper_gone)

    async def _close(self) -> None:
        if self._revival is not None:
            self._revival.cancel()
        if self._all_ready is not None and not self._all_ready.done():
            self._all_ready.set_result(None)
        if self._control is None:
            return
        for worker in self._workers.values():
            self._retire(worker)
        if self._workers:
            self._all_ended = self.loop.create_future()
            await asyncio.wait((self._all_ended, self._control.gone), timeout=GRACE_SECONDS, return_when="FIRST_COMPLETED")
        await self._control.close()

    def _has_room(self) -> bool:
        return bool(self._idle)

    # The life of a job.

    def _begin(self, execution: SlotExecution) -> None:
        worker = self._idle.pop()
        execution.worker = f"prpc-process-{worker.pid}"
        try:
            body = self._write_call(execution)
        except EncodeError as exc:
            self._idle.append(worker)
            execution.fail(exc)
            self._release(execution)
            return
        worker.state, worker.execution = _State.BUSY, execution
        worker.calls += 1
        assert worker.pipe is not None
        worker.pipe.send(Kind.CALL, body)

    def _write_call(self, execution: SlotExecution) -> bytes:
        job = execution.job
        which = self._numbers.get(_key(job.function))
        facts = {"function": job.name, **job.call_facts}
        try:
            target = reference(job.function) if which is None else which
            return pickle.dumps((target, tuple(job.args), dict(job.kwargs), facts), pickle.HIGHEST_PROTOCOL)
        except RegistrationError as exc:
            raise EncodeError(str(exc), path="function") from exc
        except Exception as exc:
            raise _unsendable(job.name, job.args, job.kwargs, exc) from exc

    def _end(self, execution: SlotExecution) -> None:
        for worker in self._workers.values():
            if worker.execution is execution:
                self._replace(worker, kill=True)
                return

    def _on_frame(self, worker: _Worker, frame: Frame) -> None:
        kind, body = frame
        match kind:
            case Kind.VALUE | Kind.FAILURE | Kind.REFUSED:
                self._on_answer(worker, kind, body)
            case Kind.LOG:
                _show_log(body)
            case Kind.PROGRESS:
                pass_on(worker.execution, body)
            case Kind.READY:
                self._on_ready(worker)
            case Kind.BROKEN:
                worker.broken = pickle.loads(body)

    def _on_answer(self, worker: _Worker, kind: int, body: bytes | bytearray) -> None:
        execution = worker.execution
        assert execution is not None
        outcome, resident = _read_answer(kind, body, execution)
        execution.decide(outcome)
        limits, is_dead = self._settings, worker.token not in self._workers
        if is_dead or 0 < limits.process_max_calls <= worker.calls or 0 < limits.process_max_bytes < resident:
            self._replace(worker, kill=False)
            return
        worker.state, worker.execution = _State.IDLE, None
        self._idle.append(worker)
        self._release(execution)

    # The life of a worker.

    def _start_worker(self, frees: SlotExecution | None) -> None:
        assert self._control is not None
        self._tokens += 1
        worker = _Worker(self._tokens)
        worker.frees = frees
        ours, theirs = socket_pair()
        worker.pipe = WorkerPipe(self.loop, ours, lambda frame: self._on_frame(worker, frame), lambda: self._on_pipe_end(worker))
        self._workers[worker.token] = worker
        self._control.start_worker(worker.token, theirs)
        worker.pipe.send(Kind.BOOT, pickle.dumps(replace(self._boot, levels=logger_levels())))

    def _on_started(self, token: int, pid: int) -> None:
        worker = self._workers.get(token)
        if worker is None:
            return
        if pid > 0:
            worker.pid = pid
        else:
            worker.broken = worker.broken or f"no process could be started: {os.strerror(-pid)}"
            self._on_exited(token, None)

    def _on_ready(self, worker: _Worker) -> None:
        if worker.token not in self._workers:  # it died right after
            return
        self._failures = 0
        worker.state = _State.IDLE
        self._idle.append(worker)
        freed, worker.frees = worker.frees, None
        if freed is not None:
            self._release(freed)
        self._fill()
        ready = self._all_ready
        if ready is not None and not ready.done() and all(w.state is not _State.STARTING for w in self._workers.values()):
            ready.set_result(None)

    def _on_pipe_end(self, worker: _Worker) -> None:
        """It closed its pipe: it has died, or user code closed the descriptor and nothing more can be heard of it."""
        assert self._control is not None
        self._control.kill(worker.token)

    def _on_exited(self, token: int, code: int | None) -> None:
        worker = self._workers.pop(token, None)
        if worker is None:
            return
        assert worker.pipe is not None
        worker.pipe.drain()
        worker.pipe.close()
        if not self._workers and self._all_ended is not None and not self._all_ended.done():
            self._all_ended.set_result(None)
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.state is _State.STARTING:
            self._on_stillborn(worker, code)
        elif worker.state is not _State.ENDING:
            execution = worker.execution
            if execution is not None:
                execution.fail(_lost(execution, code))
            self._replaced += 1
            self._start_replacement(execution)

    def _on_stillborn(self, worker: _Worker, code: int | None) -> None:
        text = worker.broken or f"the process ended ({_how(code)}) while it imported the functions' modules"
        if not self._started:
            if self._all_ready is not None and not self._all_ready.done():
                self._all_ready.set_exception(RegistrationError(f"process workers cannot start: {text}"))
        elif not self._stopped:
            pause = min(LAST_BACKOFF, FIRST_BACKOFF * 2**self._failures)
            self._failures += 1
            logger.error("a process worker could not be replaced, next attempt in %.1f s: %s", pause, text)
            self.loop.call_later(pause, self._start_replacement, worker.frees)

    def _replace(self, worker: _Worker, *, kill: bool) -> None:
        """End a busy worker, whose job is decided, and start another, which frees the job's slot."""
        execution, worker.execution = worker.execution, None
        if not self._stopped:
            self._replaced += 1
        self._retire(worker)
        if kill and self._control is not None:
            self._control.kill(worker.token)
        self._start_replacement(execution)

    def _retire(self, worker: _Worker) -> None:
        """Give it no more calls; it ends when its pipe is closed, and is killed where it does not."""
        worker.state = _State.ENDING
        assert worker.pipe is not None
        worker.pipe.close()
        if not self._stopped:
            self.loop.call_later(GRACE_SECONDS, self._kill, worker.token)

    def _kill(self, token: int) -> None:
        if token in self._workers and self._control is not None:
            self._control.kill(token)

    def _start_replacement(self, frees: SlotExecution | None) -> None:
        if self._stopped or self._revival is not None:
            return
        if sum(worker.state is not _State.ENDING for worker in self._workers.values()) < self._slots:
            self._start_worker(frees)
        elif frees is not None:
            self._release(frees)

    # The keeper.

    def _on_keeper_gone(self, _: asyncio.Future[None]) -> None:
        """Somebody killed the keeper, and with it every worker: start all over."""
        if self._stopped:
            return
        logger.error("the keeper of the process workers ended; all of them are started again")
        self._revival = self.loop.create_task(self._revive())
        for token in list(self._workers):
            self._on_exited(token, None)

    async def _revive(self) -> None:
        assert self._control is not None
        pause = FIRST_BACKOFF
        while True:
            await self._control.close()
            try:
                await self._launch()
                break
            except (RegistrationError, OSError):
                logger.exception("the keeper could not be started, next attempt in %.1f s", pause)
                await asyncio.sleep(pause)
                pause = min(LAST_BACKOFF, pause * 2)
        self._revival = None
        held = list(self._held)
        for frees in (*held, *[None] * (self._slots - len(held))):
            self._start_replacement(frees)


def _key(function: Callable[..., Any]) -> object:
    """What makes two references the same function: a bound method is a new object each time it is looked up."""
    return (id(function.__self__), id(function.__func__)) if isinstance(function, MethodType) else id(function)


def _how(code: int | None) -> str:
    if code is None:
        return "in a way that is not known"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"
    return f"exit code {code}"


def _lost(execution: SlotExecution, code: int | None) -> WorkerLostError:
    name = execution.job.name
    text = f"the worker process ended while it ran {name}: {_how(code)}; whether its side effects happened is not known"
    return WorkerLostError(text, function=name, exit_code=code)


def _unsendable(name: str, args: Sequence[Any], kwargs: Any, cause: Exception) -> EncodeError:
    """Find the argument that cannot be pickled."""
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


def _read_answer(kind: int, body: bytes | bytearray, execution: SlotExecution) -> tuple[Outcome, int]:
    name, worker = execution.job.name, execution.worker
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


def _show_log(body: bytes | bytearray) -> None:
    """Hand a worker's log record to the handlers that the server has."""
    try:
        record = logging.makeLogRecord(pickle.loads(body))
    except Exception:
        logger.exception("a log record of a process worker cannot be read")
        return
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)
