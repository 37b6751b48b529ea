"""The pump: takes deliveries, starts their calls, settles their outcomes.

A delivery goes: codec -> call table -> registry -> binding -> (middleware) -> worker pool -> codec -> settle. Nothing is
awaited on that way: each step either ends the call or hands it on to a callback. Every delivery ends in exactly one of
settle, release and bury, and no delivery, however broken, ends the pump.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prpc.brokers.base import Consumer, Delivery
from prpc.call_context import CurrentCall
from prpc.codec import Codec
from prpc.deadline import Clock
from prpc.exceptions import (
    BadArgumentsError,
    BrokerUnavailableError,
    CallCancelledError,
    CallError,
    DecodeError,
    WorkerLostError,
)
from prpc.failure import describe, failure_of
from prpc.protocol.call_table import CallTable
from prpc.protocol.facts import CallFacts
from prpc.server.ahead import Ahead
from prpc.server.burial import Burial
from prpc.server.endings import Endings
from prpc.server.entries import ask_for, id_of, is_strict, misfit
from prpc.server.line import Line
from prpc.server.logs import logger
from prpc.server.middleware import Middleware
from prpc.server.outcomes import is_worker_lost, outcome_of_built_in, server_shutdown
from prpc.server.progress import PostMail, Reports
from prpc.server.publishing import Publisher
from prpc.server.registry import RegisteredFunction, Registry, perhaps_stale
from prpc.server.replies import ReplyWriter
from prpc.server.run import Run, job_of
from prpc.server.seal import Seal
from prpc.server.settlements import Settlements
from prpc.server.streams import Streams
from prpc.server.wrapped_call import WrappedCall
from prpc.workers.base import Execution, Outcome, Runner, WorkerKind, WorkerPool
from prpc.workers.promise import Coming

__all__ = ["Dispatcher"]

_NO_FACTS = CallFacts(headers={})
#: Seconds between two attempts to read after a broker error that the adapter did not ride out.
_READ_AGAIN_AFTER = 1.0
#: What a stopping server waits for runs that were ended, and then for the broker to take the outcomes.
_SECONDS_TO_END = 5.0
#: Entries of one running call that wait for its outcome because they name another caller.
_MAX_FOLLOWERS = 100
#: Reason of the dead letters of calls whose servers or workers were lost too often.
_TOO_MANY_ATTEMPTS = "attempts"


class Dispatcher:
    """Runs the calls of one consumer. Bound to one event loop; `run` is awaited once.

    `pools` holds a started pool for each kind of worker that the registry names; `built_ins` are answered in place and
    take no slot; `mail` takes what running calls say of their progress.
    """

    def __init__(
        self,
        *,
        consumer: Consumer,
        codec: Codec,
        registry: Registry,
        pools: Mapping[WorkerKind, WorkerPool],
        slots: int,
        timeout: float | None,
        clock: Clock,
        built_ins: Mapping[str, Callable[[], Any]],
        schema_of: Callable[[str], str | None],
        middleware: Sequence[Middleware] = (),
        publisher: Publisher,
        max_deliveries: int = 5,
        seal: Seal | None = None,
        streams: Streams | None = None,
        mail: PostMail | None = None,
    ) -> None:
        self._consumer, self._streams = consumer, streams
        self._codec = codec
        self._seal = seal
        replies = ReplyWriter(codec, seal)
        self._burial = Burial(replies, clock)
        self._registry = registry
        self._pools, self._timeout, self._clock = pools, timeout, clock
        self._built_ins = built_ins
        self._schema_of = schema_of
        self._middleware, self._publisher = tuple(middleware), publisher
        self._table: CallTable[Run] = CallTable(max_attempts=max_deliveries)
        self._reports = None if mail is None else Reports(mail, self._table)
        self._settlements = Settlements()
        self._endings = Endings(replies, self._settlements, self._reports, clock)
        self._line: Line[Run] = Line(self._start_from_line, self._give_back)
        self._free = slots
        self._ahead: Ahead[Run] = Ahead(slots, self._start_ahead, self._give_back)
        #: How many calls may wait inside of the workers of a kind; with fewer than 0 free, so many do. None where the pool has
        #: workers for events beside ours, as those are to be kept free.
        self._behind = {kind: pool.behind for kind, pool in pools.items() if pool.behind and pool.state().slots == slots}
        self._stopping = False
        self._room: asyncio.Future[None] | None = None
        self._quiet: asyncio.Future[None] | None = None

    @property
    def running(self) -> list[tuple[CurrentCall, Execution]]:
        """The calls that run now and what runs them, oldest first."""
        return [(run.current, run.execution) for run in self._table if run.current and run.execution]

    async def run(self) -> None:
        """Take and start calls until `drain`."""
        self._consumer.on_lost(self._look_again)
        loop = asyncio.get_running_loop()
        while not self._stopping:
            most = max(0, self._free) + max(0, self._ahead.room + min(0, self._free))
            if not most or self._line.is_full:
                self._room = loop.create_future()
                if lost := self._consumer.take_lost():
                    self._accept_lost(lost)
                else:
                    await self._room
                continue
            try:
                deliveries = await self._consumer.take(most)
            except BrokerUnavailableError as exc:
                logger.warning("reading calls failed, trying again: %s", exc)
                await asyncio.sleep(_READ_AGAIN_AFTER)
                continue
            for delivery in deliveries:
                self._accept(delivery)

    def cancel(self, message_ids: Iterable[UUID]) -> None:
        """Stop these calls, or drop them when they come."""
        for run in self._table.cancel(message_ids, self._clock.monotonic()):
            message_id = str(run.message.message_id)
            self._stop_run(run, CallCancelledError(f"{run.message.func_name}() was cancelled", message_id=message_id))

    async def drain(self, grace: float) -> int:
        """Stop taking calls, wait `grace` seconds for those that run, end the rest; returns how many had no clean end.

        An idempotent call that is ended goes back to the queue, any other is answered with ServerShutdownError.
        """
        self._stopping = True
        self._line.clear()
        self._ahead.clear()
        for pool in self._pools.values():
            pool.recall()
        await self._consumer.stop()
        self._look_again()
        await self._until_quiet(grace)
        ended = len(self._table)
        for run in self._table:
            run.give_back = run.function is not None and run.function.idempotent
            self._stop_run(run, server_shutdown(run.message.func_name))
        await self._until_quiet(_SECONDS_TO_END)
        for run in self._table:
            self._table.end(run.message.message_id)
            self._end(run, Outcome(failure=failure_of(server_shutdown(run.message.func_name))))
        self._endings.flush()
        return ended + await self._settlements.finish(_SECONDS_TO_END)

    async def _until_quiet(self, seconds: float | None) -> None:
        if not self._table:
            return
        self._quiet = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._quiet], timeout=seconds)

    def _stop_run(self, run: Run, reason: CallError) -> None:
        if run.current is not None and run.execution is not None:
            run.current.mark_cancelled()
            run.execution.cancel(reason)

    # A delivery comes in.

    def _accept(self, delivery: Delivery) -> None:
        if self._stopping:
            self._settlements.watch(delivery.release())
            return
        if (run := self._read(delivery)) is None:
            return
        if self._free > 0 or not self._needs_worker(run) or (not len(self._ahead) and self._may_follow(run)):
            self._take_up(run)
        else:
            self._ahead.wait(run)

    def _needs_worker(self, run: Run) -> bool:
        """Whether it may have to wait for one: not where it is answered in place, or its caller told that its server was lost."""
        function = self._registry.get(run.message.func_name)
        return function is not None and not function.streams and (run.attempt == 1 or function.idempotent)

    def _may_follow(self, run: Run) -> bool:
        """Whether it may wait inside of a worker for the call before it, as calls are short."""
        if not self._behind or not self._ahead.are_short:
            return False
        function = self._registry.get(run.message.func_name)
        return function is not None and self._may_come_back(run, function) and self._free > -self._behind[function.kind]

    def _may_come_back(self, run: Run, function: RegisteredFunction) -> bool:
        """Whether a worker may return it unbegun: no middleware has begun it, and no attempt made here would be forgotten."""
        if self._middleware or function.kind not in self._behind:
            return False
        return not function.broadcast and run.attempt == run.delivery.attempt

    def _accept_lost(self, deliveries: Iterable[Delivery]) -> None:
        """There is no room: callers whose server was lost are told of it, and what may run again is for others."""
        for delivery in deliveries:
            run = self._read(delivery)
            function = None if run is None else self._registry.get(run.message.func_name)
            if function is not None and function.idempotent and not function.streams:
                self._settlements.watch(delivery.release())
            elif run is not None:
                self._take_up(run)

    def _take_up(self, run: Run) -> None:
        delivery = run.delivery
        if delivery.admitted:
            self._begin(run)
        else:  # it holds a slot while the broker says whether another entry of its id came first
            self._free -= 1
            then = functools.partial(self._claimed, run, self._clock.monotonic())
            function = self._registry.get(run.message.func_name)
            self._settlements.hold(ask_for(delivery, run.message.message_id, run.facts, function, then))

    def _claimed(self, run: Run, asked: float, may_run: bool) -> None:
        self._free += 1
        run.queued += self._clock.monotonic() - asked
        if may_run and self._stopping:
            self._settlements.watch(run.delivery.release())
        elif may_run:
            self._begin(run)
        self._fill()

    def _begin(self, run: Run) -> None:
        if run.delivery.lost:  # while it waited others got it, and its caller may have been told so
            return self._give_back(run)
        try:
            self._start(run)
        except BaseException as exc:  # validators of the arguments are user code, and may raise anything
            self._give_up(run.delivery, run, exc)

    def _start_from_line(self, run: Run, waited: float) -> None:
        run.queued += waited
        self._begin(run)

    def _start_ahead(self, run: Run, waited: float) -> None:
        run.queued += waited
        self._take_up(run)

    def _give_back(self, run: Run) -> None:
        self._settlements.watch(run.delivery.release())
        self._give_back_followers(run)
        self._look_again()

    def _give_back_followers(self, run: Run) -> None:
        """What waits for the outcome of a run that is not going on, as it lost its worker and may not begin again here."""
        followers, run.followers = run.followers, None
        for entry in followers or ():
            self._settlements.watch(entry.delivery.release())

    def _read(self, delivery: Delivery) -> Run | None:
        """The call of a delivery; None where it could not be read and was buried."""
        body, message_id = delivery.body, None
        try:
            if body is None:
                raise DecodeError("the entry has no field 'message'", reason="form")
            if self._seal is not None:
                self._seal.check(delivery, body)
            message = self._codec.read_raw_call(body) if delivery.raw else self._codec.read_call(body)
            message_id = message.message_id
            return Run(delivery, message, CallFacts.from_fields(delivery.facts) if delivery.facts else _NO_FACTS)
        except DecodeError as exc:
            self._settlements.watch(self._burial.refused(delivery, exc, message_id or id_of(exc.message_id)))
        except BaseException as exc:
            self._give_up(delivery, None, exc)
        return None

    def _give_up(self, delivery: Delivery, run: Run | None, error: BaseException) -> None:
        """A fault of the server's own: the caller is told, the entry is kept."""
        if run is not None and run.streaming is not None:
            run.streaming.finish(Outcome(failure=describe(error)))
        caller = None if run is None else (run.message.message_id, run.facts.reply_to)
        self._settlements.watch(self._burial.given_up(delivery, caller, error))
        if run is not None:
            self._give_back_followers(run)

    def _start(self, run: Run) -> None:
        message, facts = run.message, run.facts
        name = message.func_name
        built_in = self._built_ins.get(name)
        function = run.function = self._registry.get(name)
        if self._joined(run):
            return
        if function is None and built_in is None:
            return self._end(run, Outcome(failure=failure_of(self._registry.not_found(name, by_stub=facts.schema is not None))))
        error = self._table.refusal(
            message.message_id,
            name,
            timeout=facts.timeout,
            queued=run.queued,
            attempt=run.attempt,
            idempotent=function is None or function.idempotent,
            now=self._clock.monotonic(),
        )
        if error is not None:
            lost = isinstance(error, WorkerLostError) and function is not None and function.idempotent
            return self._end(run, Outcome(failure=failure_of(error)), _TOO_MANY_ATTEMPTS if lost else None)
        if (wrong := misfit(name, facts, function is not None and function.streams)) is not None:
            return self._end(run, Outcome(failure=failure_of(perhaps_stale(wrong, facts.schema, self._schema_of(name)))))
        if function is None or built_in is not None:
            return self._end(run, outcome_of_built_in(name, built_in, message))
        if not self._line.has_room(name, function.max_concurrency):
            return self._line.wait(name, run)
        try:
            if function.streams or facts.feeds:
                run.streaming = self._streams_of(name).begin(message, facts, function.binder)
            args, kwargs = function.binder.bind(message.func_args, message.func_kwargs, strict=is_strict(facts, run.delivery.raw))
        except BadArgumentsError as exc:
            return self._end(run, Outcome(failure=failure_of(perhaps_stale(exc, facts.schema, self._schema_of(name)))))
        return self._submit(run, function, args, kwargs)

    def _joined(self, run: Run) -> bool:
        """Whether a call of this id runs: the further entry waits for its outcome or, from the same caller, is dropped.

        Not where the lease under which the call runs is lost, or may be, as a later attempt says: then it is the call itself that
        came back here. Its outcome is handed over under the new lease, too.
        """
        first = self._table.running(run.message.message_id)
        if first is None:
            return False
        if first.followers is None:
            first.followers = []
        held = not first.delivery.lost and run.delivery.attempt <= first.delivery.attempt
        doubled = held and run.facts.reply_to == first.facts.reply_to
        if doubled or len(first.followers) >= _MAX_FOLLOWERS:
            self._settlements.watch(run.delivery.settle(None))
        else:
            first.followers.append(run)
        return True

    def _streams_of(self, name: str) -> Streams:
        if self._streams is None:
            raise BadArgumentsError(f"{name}() was sent a stream, which it does not take", function=name)
        return self._streams

    # A call runs.

    def _submit(self, run: Run, function: RegisteredFunction, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        returnable = self._free <= 0 and self._may_come_back(run, function)
        limit, clock, sink = self._timeout, self._clock, self._reports
        job, run.current = job_of(run, function, args, kwargs, limit=limit, clock=clock, sink=sink, returnable=returnable)
        pool: Runner
        if function.streams and run.streaming is not None:
            job, pool = self._streams_of(function.name).write(run.streaming, job, run.attempt, run.facts, function.kind)
        else:
            self._free -= 1
            pool = self._publisher.of(run) if function.broadcast else self._pools[function.kind]
        run.execution = execution = (
            WrappedCall(job, pool, self._middleware, run.current) if self._middleware else pool.submit(job)
        )
        if run.streaming is not None:
            run.streaming.execution = execution
        if function.idempotent:
            run.submitted = self._clock.monotonic()
        self._table.begin(run.message.message_id, run)
        if function.max_concurrency is not None:
            self._line.begin(function.name)
        execution.outcome.add_done_callback(functools.partial(self._ended, run, execution))

    def _ended(self, run: Run, execution: Execution, outcome: Coming[Outcome]) -> None:
        again, dead = False, None
        if outcome.result().returned:
            self._come_back(run)
        elif run.function is None or not run.function.streams:
            self._ahead.note(outcome.result().running)
        if self._table.running(run.message.message_id) is run:
            self._table.end(run.message.message_id)
            if self._may_run_twice(run, outcome.result()):
                again = self._table.may_repeat(run.attempt)
                dead = _TOO_MANY_ATTEMPTS
                if again and self._stopping:
                    again, run.give_back = False, True
            try:
                if not again:
                    self._end(run, outcome.result(), dead)
            except BaseException as exc:
                self._give_up(run.delivery, run, exc)
        if execution.released.done():
            self._release_slot(run)
        else:
            execution.released.add_done_callback(functools.partial(self._release_slot, run))
        if again:
            run.attempt += 1
            run.queued += self._clock.monotonic() - run.submitted
            self._begin(run)
        if self._quiet is not None and not self._quiet.done() and not self._table:
            self._quiet.set_result(None)

    def _come_back(self, run: Run) -> None:
        """It waited behind a call that takes longer than others did, and did not begin."""
        self._ahead.doubt()
        if self._table.running(run.message.message_id) is run:
            self._table.end(run.message.message_id)
            self._give_back(run)

    def _may_run_twice(self, run: Run, outcome: Outcome) -> bool:
        """Whether the worker was lost, and running the call again does no harm."""
        harmless = run.function is not None and run.function.idempotent
        return harmless and outcome.failure is not None and is_worker_lost(outcome.failure)

    def _release_slot(self, run: Run, _: object = None) -> None:
        self._free += not (run.function is not None and run.function.streams)
        if run.function is not None and run.function.max_concurrency is not None:
            self._line.end(run.function.name)
        self._fill()

    def _fill(self) -> None:
        """There may be a worker for calls that wait for one, here or at the broker."""
        while len(self._ahead) and (self._free > 0 or self._may_follow(self._ahead.first)):
            self._ahead.start_next()
        self._look_again()

    def _look_again(self) -> None:
        """There may be room for further calls."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # A call ends.

    def _end(self, run: Run, outcome: Outcome, dead: str | None = None) -> None:
        """`dead`: why the entry is kept as a dead letter; None where it is not."""
        self._endings.end(run, outcome, dead, more=(self._free < 0 or len(self._ahead) > 0) and self._ahead.are_short)
