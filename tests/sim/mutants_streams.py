"""Mutants of streams: numbering, the window, repair, and the end on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prpc.client.readings import Reading, Readings, StreamCall
from prpc.client.stream import Stream
from prpc.protocol.streams import Inbox, Outbox
from prpc.server.streams import Streaming, Streams
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Reader, Writer
from tests.sim.mutants import Patch, mutant, nothing


@mutant("items behind a hole are not read")
def holes_are_skipped(patch: Patch) -> None:
    def arrive(self: Inbox[Any], run: int, first: int, values: Sequence[Any], size: int = 0) -> bool:
        self.run = max(self.run, run)
        new = values[max(0, self.have + 1 - first) :]
        self._items.extend([(value, 1) for value in new])
        self.have = max(self.have, first - 1) + len(new)
        return True

    patch.set(Inbox, "arrive", arrive)


@mutant("items that come twice are read once")
def doubled_items_are_read(patch: Patch) -> None:
    def arrive(self: Inbox[Any], run: int, first: int, values: Sequence[Any], size: int = 0) -> bool:
        if run < self.run or first > self.have + 1:
            return run < self.run
        self.run = run
        self._items.extend([(value, 1) for value in values])
        self.have += len(values)
        return True

    patch.set(Inbox, "arrive", arrive)


@mutant("items that were lost are sent again")
def lost_items_stay_lost(patch: Patch) -> None:
    patch.around(Outbox, "hear", lambda old, self, have, limit, read, *, again=False: old(self, have, limit, read))


@mutant("a reader learns from time to time what was sent")
def writers_do_not_beat(patch: Patch) -> None:
    patch.set(Writer, "beat", nothing)


@mutant("a writer waits for its reader")
def the_window_is_ignored(patch: Patch) -> None:
    patch.set(Outbox, "allows", lambda self, count, pending=0: True)


@mutant("a reader makes room by reading")
def the_window_never_moves(patch: Patch) -> None:
    patch.set(Inbox, "wants_more", property(lambda self: False))
    patch.set(Desk, "beat", nothing)


@mutant("the server learns that a reader has left")
def leaving_is_not_told(patch: Patch) -> None:
    patch.set(Readings, "let_go", nothing)
    patch.set(Stream, "cancel", lambda self: False)


@mutant("a stream whose reader is silent for long is ended")
def silence_is_not_noticed(patch: Patch) -> None:
    def begin(old: Any, self: Streams, *rest: Any) -> Any:
        self._patience = math.inf
        return old(self, *rest)

    patch.around(Streams, "begin", begin)


@mutant("a reader that reads is not taken for a silent one")
def readers_count_as_silent(patch: Patch) -> None:
    patch.set(Streams, "_heard", nothing)


@mutant("a stream ends once all its items were read")
def streams_end_before_their_items(patch: Patch) -> None:
    patch.set(StreamCall, "missing", property(lambda self: 0))


@mutant("the end of a stream says how many items there are")
def ends_do_not_count(patch: Patch) -> None:
    patch.set(StreamCall, "ready", lambda self: bool(len(self.reading.inbox)) or self.done)
    patch.set(Streaming, "finish", lambda self, outcome, given_back=False: outcome)


@mutant("an outcome may overtake every mail of the items")
def an_outcome_ends_the_choice_of_writers(patch: Patch) -> None:
    def choose(old: Any, self: Reader, items: Any) -> Any:
        return (items.writer, items.run) if self.total is not None else old(self, items)

    patch.around(Reader, "_choose", choose)


@mutant("a server that gave its reader up has nothing more for it")
def the_given_up_wait_for_items(patch: Patch) -> None:
    def conclude(self: Reading, reply: Any) -> None:
        total = reply.result if reply.failure is None else reply.failure.facts.get("items")
        self.total = total if type(total) is int else None

    patch.set(Reading, "conclude", conclude)


@mutant("whoever was read before is not read again")
def former_writers_are_read_again(patch: Patch) -> None:
    patch.around(Reader, "_choose", lambda old, self, items: self._former.clear() or old(self, items))


@mutant("after a gap in its mail a reader asks for what is missing")
def streams_do_not_notice_gaps(patch: Patch) -> None:
    patch.set(Desk, "missed", nothing)
