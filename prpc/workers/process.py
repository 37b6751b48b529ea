"""Plain functions in processes of their own: each can be killed without harm to its neighbours.

One worker process for each slot. The keeper (process_keeper.py) starts, reaps and kills them. Jobs that are known to be short may
wait behind another in its worker: docs/decisions/0027-short-jobs-in-a-row.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

from prpc.exceptions import EncodeError, RegistrationError, ServerShutdownError
from prpc.settings import Settings
from prpc.workers.base import Job, PoolState, WorkerKind
from prpc.workers.process_answers import how, lost, read_answer, show_log, unsendable
from prpc.workers.process_boot import importing_main, logger_levels, make_boot, reference
from prpc.workers.process_control import Control
from prpc.workers.process_progress import pass_on
from prpc.workers.process_wire import Frame, Kind
from prpc.workers.process_worker import MOST_BEHIND, State, Worker
from prpc.workers.slots import SlotExecution, SlotPool

__all__ = ["ProcessPool"]

logger = logging.getLogger(__name__)

#: Seconds before a worker that could not be started is tried again: the first time, and at most.
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0
#: Seconds that an idle worker has for ending by itself.
GRACE_SECONDS = 1.0
#: Seconds after which a job that waits behind another comes back: that one takes longer than those before it did.
SECONDS_BEHIND = 0.05
#: Least seconds that a job is given which waited behind others: that its deadline has passed is for its worker to say.
LEAST_SECONDS = 0.02


class ProcessPool(SlotPool):
    """One process for each slot, replaced when it is killed, dies, or has served long enough."""

    watches = False  # the time of a job counts from when its worker comes to it

    def __init__(self, slots: int, settings: Settings, functions: Sequence[Callable[..., Any]]) -> None:
        super().__init__(WorkerKind.PROCESS, slots)
        self.behind = slots * MOST_BEHIND
        self._settings = settings
        self._functions = tuple(functions)
        self._numbers = {_key(function): number for number, function in enumerate(self._functions)}
        method = settings.process_start_method
        fork = method == "forkserver" or (method == "auto" and sys.platform == "linux")
        self._boot = make_boot(functions, fork=fork, measure=settings.process_max_bytes > 0)
        self._control: Control | None = None
        self._workers: dict[int, Worker] = {}
        self._idle: list[Worker] = []
        self._tokens = 0
        self._failures = 0
        self._started = False
        self._all_ready: asyncio.Future[None] | None = None
        self._all_ended: asyncio.Future[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def state(self) -> PoolState:
        """The pool's figures at this moment; a process is never abandoned."""
        behind = sum(max(0, len(worker.jobs) - 1) for worker in self._workers.values())
        return PoolState(self._slots, len(self._held) - behind, 0, self._replaced)

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
        if self._timer is not None:
            self._timer.cancel()
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

    # The life of a job.

    def submit(self, job: Job) -> SlotExecution:
        """See WorkerPool."""
        execution = super().submit(job)
        if job.returnable and execution.began is None and self._timer is None:
            self._look_later()
        return execution

    def _has_room(self, job: Job) -> bool:
        return bool(self._idle) or (job.returnable and self._shortest() is not None)

    def _shortest(self) -> Worker | None:
        """The worker behind whose jobs one more waits least."""
        found, most = None, self._settings.process_max_calls
        for worker in self._workers.values():
            if worker.has_room(most) and (found is None or len(worker.jobs) < len(found.jobs)):
                found = worker
        return found

    def _begin(self, execution: SlotExecution) -> None:
        worker = self._idle.pop() if self._idle else self._shortest()
        assert worker is not None
        try:
            body = self._write_call(execution)
        except EncodeError as exc:
            if worker.state is State.IDLE:
                self._idle.append(worker)
            execution.fail(exc)
            self._release(execution)
            return
        worker.give(execution, body)
        if worker.jobs[0] is execution:
            execution.worker = worker.name
            self._wind(execution, execution.job.timeout)
        else:
            execution.submitted, execution.began = execution.submitted or execution.began, None

    def _come_to(self, worker: Worker) -> None:
        """The worker has answered what came before its next job."""
        execution = worker.jobs[0]
        execution.worker, execution.began = worker.name, time.monotonic()
        job = execution.job
        if job.left is not None and execution.submitted is not None:
            left = max(LEAST_SECONDS, job.left - (execution.began - execution.submitted))
            if job.timeout is None or left < job.timeout:
                job = execution.job = replace(job, timeout=left)
        self._wind(execution, job.timeout)

    def _write_call(self, execution: SlotExecution) -> bytes:
        job = execution.job
        which = self._numbers.get(_key(job.function))
        facts = {"function": job.name, **job.call_facts}
        since = execution.submitted or execution.began
        try:
            target = reference(job.function) if which is None else which
            whole = target, tuple(job.args), dict(job.kwargs), facts, since, job.left
            return pickle.dumps(whole, pickle.HIGHEST_PROTOCOL)
        except RegistrationError as exc:
            raise EncodeError(str(exc), path="function") from exc
        except Exception as exc:
            raise unsendable(job.name, job.args, job.kwargs, exc) from exc

    def _end(self, execution: SlotExecution) -> None:
        worker = next((worker for worker in self._workers.values() if execution in worker.jobs), None)
        if worker is None:
            return
        back = worker.ask()
        self._take_back(other for other in back if other is not execution)
        if execution in back:
            self._release(execution)
        elif execution in worker.jobs:
            self._replace(worker, execution, kill=True)
        self._wait_again(())

    def _wait_again(self, back: Iterable[SlotExecution]) -> None:
        """Jobs that did not begin wait for the next worker."""
        self._take_back(back)
        self._fill()
        self._look_later()

    def _take_back(self, back: Iterable[SlotExecution]) -> None:
        for execution in reversed(list(back)):
            self._held.discard(execution)
            if execution.tick:
                self.unwind(execution)
            execution.submitted = execution.submitted or execution.began
            execution.tick, execution.began, execution.worker = 0, None, ""
            self._waiting.appendleft(execution)

    def _look_later(self) -> None:
        """See after a while whether what may come back has begun; nothing where nothing waits."""
        if self._timer is not None or self._stopped:
            return
        if any(len(worker.jobs) > 1 for worker in self._workers.values()) or any(each.job.returnable for each in self._waiting):
            self._timer = self.loop.call_later(SECONDS_BEHIND, self._look)

    def _look(self) -> None:
        self._timer = None
        self._send_back(time.monotonic() - SECONDS_BEHIND)
        self._look_later()

    def _send_back(self, before: float) -> None:
        for worker in self._workers.values():
            if len(worker.jobs) > 1 and (worker.jobs[1].submitted or 0.0) <= before:
                self._take_back(worker.recall())
        super()._send_back(before)

    def _on_frame(self, worker: Worker, frame: Frame) -> None:
        kind, body = frame
        match kind:
            case Kind.VALUE | Kind.FAILURE | Kind.REFUSED | Kind.EXPIRED:
                self._on_answer(worker, kind, body)
            case Kind.LOG:
                show_log(body)
            case Kind.PROGRESS:
                pass_on(worker.jobs[0] if worker.jobs else None, body)
            case Kind.SKIPPED:
                worker.skipped()
                self._look_for_work(worker)
            case Kind.READY:
                self._on_ready(worker)
            case Kind.BROKEN:
                worker.broken = pickle.loads(body)

    def _on_answer(self, worker: Worker, kind: int, body: bytes | bytearray) -> None:
        execution = worker.jobs.popleft()
        worker.answered += 1
        outcome, resident = read_answer(kind, body, execution)
        limits = self._settings
        if 0 < limits.process_max_calls <= worker.answered or 0 < limits.process_max_bytes < resident:
            self._spend(worker)
        if worker.jobs:
            self._come_to(worker)
        execution.decide(outcome)
        if worker.state is State.SPENT and not worker.jobs:
            self._replace(worker, execution, kill=False)
            return
        if worker.state is State.BUSY and worker.is_settled:
            worker.state = State.IDLE
            self._idle.append(worker)
        self._release(execution)
        self._share()

    def _spend(self, worker: Worker) -> None:
        """It gets no more jobs."""
        if worker.state is State.BUSY:
            worker.state = State.SPENT
            self._wait_again(worker.recall())

    def _look_for_work(self, worker: Worker) -> None:
        if worker.state is State.BUSY and worker.is_settled:
            worker.state = State.IDLE
            self._idle.append(worker)
            self._fill()
            self._share()

    def _share(self) -> None:
        """A worker that has nothing to do takes half of what waits behind another's job."""
        if self._idle and not self._waiting and not self._stopped:
            busiest = max(self._workers.values(), key=lambda worker: len(worker.jobs))
            if len(busiest.jobs) > 1:
                self._wait_again(busiest.recall(len(busiest.jobs) // 2))

    # The life of a worker.

    def _start_worker(self, frees: SlotExecution | None) -> None:
        assert self._control is not None
        self._tokens += 1
        worker = Worker(self._tokens, frees, self.loop)
        boot = replace(self._boot, levels=logger_levels())
        theirs = worker.open(boot, lambda frame: self._on_frame(worker, frame), lambda: self._on_pipe_end(worker))
        self._workers[worker.token] = worker
        self._control.start_worker(worker.token, theirs)

    def _on_started(self, token: int, pid: int) -> None:
        worker = self._workers.get(token)
        if worker is None:
            return
        if pid > 0:
            worker.pid = pid
        else:
            worker.broken = worker.broken or f"no process could be started: {os.strerror(-pid)}"
            self._on_exited(token, None)

    def _on_ready(self, worker: Worker) -> None:
        if worker.token not in self._workers:  # it died right after
            return
        self._failures = 0
        worker.state = State.IDLE
        self._idle.append(worker)
        freed, worker.frees = worker.frees, None
        if freed is not None:
            self._release(freed)
        self._fill()
        ready = self._all_ready
        if ready is not None and not ready.done() and all(w.state is not State.STARTING for w in self._workers.values()):
            ready.set_result(None)

    def _on_pipe_end(self, worker: Worker) -> None:
        """It closed its pipe: it has died, or user code closed the descriptor and nothing more can be heard of it."""
        assert self._control is not None
        self._control.kill(worker.token)

    def _on_exited(self, token: int, code: int | None) -> None:
        worker = self._workers.pop(token, None)
        if worker is None:
            return
        state, worker.state = worker.state, State.ENDING
        if worker in self._idle:
            self._idle.remove(worker)
        back = worker.bury()
        ended = list(worker.jobs)
        worker.jobs.clear()
        if not self._workers and self._all_ended is not None and not self._all_ended.done():
            self._all_ended.set_result(None)
        for execution in ended:
            execution.fail(lost(execution, code))
        if state is State.STARTING:
            self._on_stillborn(worker, code)
        elif state is not State.ENDING:
            self._replaced += 1
            self._start_replacement(ended.pop() if ended else None)
        for execution in ended:
            self._release(execution)
        self._wait_again(back)

    def _on_stillborn(self, worker: Worker, code: int | None) -> None:
        text = worker.broken or f"the process ended ({how(code)}) while it imported the functions' modules"
        if not self._started:
            if self._all_ready is not None and not self._all_ready.done():
                self._all_ready.set_exception(RegistrationError(f"process workers cannot start: {text}"))
        elif not self._stopped:
            self._replace_later(worker.frees, text)

    def _replace_later(self, frees: SlotExecution | None, why: str) -> None:
        pause = min(LAST_BACKOFF, FIRST_BACKOFF * 2**self._failures)
        self._failures += 1
        logger.error("a process worker could not be replaced, next attempt in %.1f s: %s", pause, why)
        self.loop.call_later(pause, self._start_replacement, frees)

    def _replace(self, worker: Worker, ended: SlotExecution, *, kill: bool) -> None:
        """End a worker whose last job is decided, and start another, which frees the job's slot."""
        if ended in worker.jobs:
            worker.jobs.remove(ended)
        if not self._stopped:
            self._replaced += 1
        self._retire(worker)
        if kill and self._control is not None:
            self._control.kill(worker.token)
        self._start_replacement(ended)

    def _retire(self, worker: Worker) -> None:
        """Give it no more jobs; it ends when its pipe is closed, and is killed where it does not."""
        worker.retire()
        if not self._stopped:
            self.loop.call_later(GRACE_SECONDS, self._kill, worker.token)

    def _kill(self, token: int) -> None:
        if token in self._workers and self._control is not None:
            self._control.kill(token)

    def _start_replacement(self, frees: SlotExecution | None) -> None:
        if self._stopped or self._revival is not None:
            return
        if sum(worker.state is not State.ENDING for worker in self._workers.values()) < self._slots:
            try:
                self._start_worker(frees)
            except OSError as exc:
                self._replace_later(frees, f"no pipes could be made for it: {exc}")
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
