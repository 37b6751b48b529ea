"""The server's side of eager calls: the text of a call -> the text of its reply, at once and in the calling thread."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import Context
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prpc.app_server import AppServer
from prpc.brokers.base import Delivery, Facts
from prpc.call_context import CurrentCall
from prpc.codec import Codec, Limits
from prpc.exceptions import BadArgumentsError, DecodeError
from prpc.failure import describe, failure_of
from prpc.progress import Progress
from prpc.protocol.facts import CallFacts
from prpc.prpcmessage import PRPCMessage
from prpc.server.catalogue import Catalogue
from prpc.server.entries import is_strict, misfit
from prpc.server.outcomes import outcome_of_built_in
from prpc.server.registry import perhaps_stale
from prpc.server.replies import ReplyWriter
from prpc.server.run import Run, job_of
from prpc.server.wrapped_call import WrappedCall
from prpc.testing.clock import ManualClock
from prpc.testing.eager_loop import Drive, Loops, called
from prpc.workers.base import Execution, Job, Outcome, WorkerKind

__all__ = ["ADDRESS", "EagerServer"]

#: The mailbox that eager calls name.
ADDRESS = "eager"


class EagerServer:
    """Answers calls of an app. Entering it enters the app's lifespan."""

    def __init__(self, app: AppServer, clock: ManualClock | None = None) -> None:
        self.settings = app.settings
        self._app = app
        self._clock = clock or app._clock
        self._registry = app._registry
        self._catalogue = Catalogue(app._registry)
        settings = app.settings
        self._codec = Codec(Limits(settings.max_message_bytes, settings.max_message_depth, settings.max_message_items))
        self._replies = ReplyWriter(self._codec, None)
        self._loops = Loops()
        self._stack = ExitStack()
        self._closed = False
        #: Message id -> what its function said last of its progress; whoever made the call takes it out.
        self.progress: dict[str, Progress] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._close)
            lifespan = self._app._lifespan
            if lifespan is not None:
                stack.enter_context(self._loops.held(lambda: lifespan(self._app)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _close(self) -> None:
        self._closed = True
        self._loops.close()

    def facts(self) -> dict[str, object]:
        """What a server announces of itself."""
        schema_of = self._catalogue.schema_of
        return {
            "functions": {function.name: schema_of(function.name) for function in self._registry},
            "schema": self._catalogue.schema,
            "capacity": 1,
            "draining": False,
        }

    def answer(self, body: bytes, facts: Facts) -> bytes:
        """Run the call that stands in `body` and return what its caller finds in its mailbox."""
        if self._closed:
            raise RuntimeError("the block of this eager client has ended")
        try:
            message = self._codec.read_call(body)
        except DecodeError as exc:
            return self._refusal(exc)
        outcome = self._outcome(Run(_handed(body, facts), message, CallFacts.from_fields(facts)))
        return self._reply(message, outcome)

    def _refusal(self, error: DecodeError) -> bytes:
        reply = self._replies.refusal(UUID(error.message_id), error, when=self._clock.now(), address=ADDRESS, raw=False)
        assert reply is not None
        return reply.wake or reply.body

    def _reply(self, message: PRPCMessage, outcome: Outcome) -> bytes:
        when = self._clock.now()
        reply, _ = self._replies.write(message, outcome.value, outcome.failure, when=when, address=ADDRESS, raw=False)
        return reply.wake or reply.body

    def _outcome(self, run: Run) -> Outcome:
        message, facts = run.message, run.facts
        name = message.func_name
        function, built_in = self._registry.get(name), self._catalogue.built_ins.get(name)
        if function is None and built_in is None:
            return Outcome(failure=failure_of(self._registry.not_found(name, by_stub=facts.schema is not None)))
        if function is None or built_in is not None:
            return outcome_of_built_in(name, built_in, message)
        if (wrong := misfit(name, facts, function.streams)) is not None:
            return Outcome(failure=failure_of(wrong))
        try:
            args, kwargs = function.binder.bind(message.func_args, message.func_kwargs, strict=is_strict(facts, raw=False))
        except BadArgumentsError as exc:
            return Outcome(failure=failure_of(perhaps_stale(exc, facts.schema, self._catalogue.schema_of(name))))
        except Exception as exc:  # validators of the arguments are user code
            return Outcome(failure=describe(exc))
        # In a context of its own: a function on a server sees nothing of its caller's either.
        limit = self.settings.timeout_worker
        job, current = Context().run(job_of, run, function, args, kwargs, limit=limit, clock=self._clock, sink=self)
        outcome = self._run(replace(job, timeout=None), function.kind, current)
        return replace(outcome, value=None) if function.broadcast else outcome

    def report(self, message_id: str, progress: Progress) -> None:
        """See ProgressSink."""
        self.progress[message_id] = progress

    def _run(self, job: Job, kind: WorkerKind, current: CurrentCall) -> Outcome:
        middleware = self._app._middleware
        if not middleware and kind is not WorkerKind.ASYNC:
            return called(job)

        def start(drive: Drive) -> Execution:
            return WrappedCall(job, drive, middleware, current) if middleware else drive.submit(job)

        return self._loops.run(lambda runner: Drive(kind).run(runner, start))


@dataclass(frozen=True, slots=True)
class _Handed:
    """What a `Run` looks at in a delivery until its end."""

    body: bytes
    facts: Facts
    age: float = 0.0
    attempt: int = 1
    raw: bool = False


def _handed(body: bytes, facts: Facts) -> Delivery:
    return cast("Delivery", _Handed(body, facts))
