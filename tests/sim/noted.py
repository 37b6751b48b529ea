"""A client's channel that tells the ledger of every call that goes through it, whoever makes it: stubs, maps, threads, pings."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prpc.client.call import Call
from prpc.client.channel import Channel
from prpc.client.middleware import Middleware
from prpc.client.options import CallOptions
from prpc.client.readings import Reading
from prpc.exceptions import SerializationError
from prpc.failure import restore
from prpc.settings import Settings
from tests.sim.caller import name_of
from tests.sim.hosts import HOST
from tests.sim.workload import IDEMPOTENT

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["LATE", "Noted", "NotedChannel", "hooked", "outcome_of"]

#: How a call ends that runs out of time, which it may always do where others run, too.
LATE = ("ClientTimeOutError", "WorkerTimeoutError", "DeadlineExceededError")
#: Seconds that a call is given where its caller says nothing.
PATIENCE = 20.0
BUILT_IN = frozenset({"ping", "get_function_server"})


class NotedChannel(Channel):
    """See the module. The outcomes of streams are noted by who reads them (tests/sim/stage.py)."""

    def __init__(
        self,
        world: World,
        name: str,
        settings: Settings,
        middleware: Sequence[Middleware] = (),
        *,
        expects: Mapping[str, Sequence[str]],
    ) -> None:
        """`expects`: function -> errors that its calls may end with by themselves; `"*"` for all. A function that stands there
        with "anything" is not judged by its outcome."""
        super().__init__(settings, middleware)
        self._world, self._name, self._expects = world, name, expects

    def submit(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        schema: str | None = None,
        reading: Reading | None = None,
    ) -> Call:
        at = self._world.loop.now
        options = replace(options, timeout=options.timeout or PATIENCE, idempotent=options.idempotent or name in IDEMPOTENT)
        call = super().submit(name, args, kwargs, options, schema, reading)
        self._note(call, name, at, stream=reading is not None)
        return call

    def _note(self, call: Call, name: str, at: float, *, stream: bool) -> None:
        # Whoever has seen enough closes its client, whatever still runs.
        expects = ("CallError", *LATE, *self._expects.get(name, ()), *self._expects.get("*", ()))
        if call.options.require_server:
            expects = ("NoServerError", *expects)
        self._world.note(
            "call",
            id=call.message_id,
            client=self._name,
            function=name,
            idempotent=name in IDEMPOTENT,
            timeout=call.timeout,
            stream=stream,
            sends=call.feeds is not None,
            repeats=False,
            expects=list(expects),
            at=at,
        )
        judged = "anything" not in expects and name not in BUILT_IN and not name.startswith("told")
        entry = _Entry(self._world, call, judged)
        if not stream:
            self._world.noted[call.message_id] = entry
            if call.done:  # another thread was quick
                entry.ended(call)


class _Entry:
    """One call whose outcome is to be noted: that nobody hears of it, where nobody holds it any more."""

    def __init__(self, world: World, call: Call, judged: bool) -> None:
        self._world, self._id, self._judged, self._told = world, call.message_id, judged, False
        self.call = weakref.ref(call, self._dropped)

    def _dropped(self, _: object) -> None:
        if not self._told:
            self._told = True
            self._world.note("leave", id=self._id, silent=True)

    def ended(self, call: Call) -> None:
        if self._told:
            return
        self._told = True
        how, token = outcome_of(call)
        self._world.counts[f"outcome {how}"] += 1
        if not self._judged:
            self._world.note("leave", id=self._id, silent=True)
            return
        if call.error is not None and how == "CallCancelledError":  # only this side writes it there
            self._world.note("cancel", id=self._id, won=True)
        self._world.note("outcome", id=self._id, how=how, token=token)


def outcome_of(call: Call) -> tuple[str, str | None]:
    """The name of its error or "value", and the token that came with it."""
    error: BaseException | None = call.error
    if call.reply is not None and call.reply.failure is not None:
        error = restore(call.reply.failure)
    if error is not None:
        return type(error).__name__ if isinstance(error, SerializationError) else name_of(error), None
    value = None if call.reply is None else call.reply.result
    return "value", value["token"] if isinstance(value, dict) and "token" in value else value


_end = Call.end


def _noted_end(call: Call, outcome: Any) -> None:
    _end(call, outcome)
    host = HOST.get(None)
    world: World | None = None if host is None else host.globals.get("world")
    entry = None if world is None else world.noted.get(call.message_id)
    if entry is not None and entry.call() is call:
        entry.ended(call)


@contextmanager
def hooked() -> Iterator[None]:
    """Outcomes are noted in the moment in which they are there."""
    Call.end = _noted_end  # type: ignore[method-assign]
    try:
        yield
    finally:
        Call.end = _end  # type: ignore[method-assign]


Noted = dict[UUID, _Entry]
