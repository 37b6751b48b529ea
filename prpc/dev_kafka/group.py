"""One consumer group: members, generations and rebalances of the classic protocol, and its offsets.

The states and answers are those of Kafka's ClassicGroup and GroupMetadataManager. Timers are the only thing that it asks of its
loop; everything runs on that loop's thread.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from prpc.dev_kafka.codes import Code

__all__ = ["Asking", "Group", "Joined", "State", "Synced"]


class State(StrEnum):
    """Names as DescribeGroups gives them."""

    EMPTY = "Empty"
    #: Waiting until every member has joined again, or the rebalance timeout is over.
    PREPARING = "PreparingRebalance"
    #: Waiting for the leader's assignment.
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True)
class Asking:
    """A JoinGroup: times in seconds, protocols as (name, metadata) in the member's order of preference."""

    member_id: str
    client_id: str
    host: str
    session: float
    rebalance: float
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to a JoinGroup; only the leader gets the members, as (id, metadata)."""

    code: Code
    member_id: str
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    members: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """The answer to a SyncGroup."""

    code: Code
    assignment: bytes = b""


@dataclass(slots=True, eq=False)
class Member:
    """One member with its open requests."""

    asking: Asking
    id: str
    assignment: bytes = b""
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[Synced] | None = None
    #: Loop time at which its session ends; a member whose request is open does not expire.
    expires: float = 0.0
    timer: asyncio.TimerHandle | None = None

    def metadata(self, protocol: str) -> bytes:
        return dict(self.asking.protocols).get(protocol, b"")

    def answer_join(self, answer: Joined) -> None:
        waiting, self.joining = self.joining, None
        # The connection that waited may be gone; the member is still in the group then, as in Kafka.
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def answer_sync(self, answer: Synced) -> None:
        waiting, self.syncing = self.syncing, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


@dataclass(slots=True, eq=False)
class Group:
    """A group by its name. The first rebalance of an empty group waits `first_delay` seconds for more members."""

    name: str
    loop: asyncio.AbstractEventLoop
    first_delay: float = 0.0
    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    #: Topic and partition -> offset and metadata.
    offsets: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    #: Ids that were given out and whose owners have not joined yet.
    _pending: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _unsynced: set[str] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None
    _first: bool = False

    # -- requests ------------------------------------------------------------------------------------------------------

    def join(self, asking: Asking) -> Joined | asyncio.Future[Joined]:
        """A member asks to be in the next generation; the answer comes when that generation is there."""
        if not self._fits(asking):
            return Joined(Code.INCONSISTENT_GROUP_PROTOCOL, asking.member_id)
        if not asking.member_id:
            given = f"{asking.client_id}-{uuid.uuid4()}"
            self._pending[given] = self.loop.call_later(asking.session, self._drop_pending, given)
            return Joined(Code.MEMBER_ID_REQUIRED, given)
        if asking.member_id in self._pending:
            self._pending.pop(asking.member_id).cancel()
            return self._enter(Member(asking, asking.member_id))
        member = self.members.get(asking.member_id)
        if member is None:
            return Joined(Code.UNKNOWN_MEMBER_ID, asking.member_id)
        unchanged = member.asking.protocols == asking.protocols
        follower = member.id != self.leader
        # Its answer got lost on the way (while the assignment is awaited), or it has nothing new to say.
        if unchanged and (self.state is State.COMPLETING or (self.state is State.STABLE and follower)):
            self._seen(member)
            return self._answer(member)
        member.asking = asking
        return self._enter(member)

    def sync(self, member_id: str, generation: int, assignments: Iterable[tuple[str, bytes]]) -> Synced | asyncio.Future[Synced]:
        """The leader brings the assignments, everybody gets their own."""
        code = self._check(member_id, generation)
        if code is Code.NONE and self.state is State.PREPARING:
            code = Code.REBALANCE_IN_PROGRESS
        if code is not Code.NONE:
            return Synced(code)
        member = self.members[member_id]
        self._unsynced.discard(member_id)
        if self.state is State.STABLE:
            self._seen(member)
            return Synced(Code.NONE, member.assignment)
        waiting: asyncio.Future[Synced] = self.loop.create_future()
        member.answer_sync(Synced(Code.REBALANCE_IN_PROGRESS))
        member.syncing = waiting
        if member_id == self.leader:
            given = dict(assignments)
            self.state = State.STABLE
            for one in self.members.values():
                one.assignment = given.get(one.id, b"")
                one.answer_sync(Synced(Code.NONE, one.assignment))
                self._seen(one)
        return waiting

    def heartbeat(self, member_id: str, generation: int) -> Code:
        code = self._check(member_id, generation)
        if code is not Code.NONE:
            return code
        self._seen(self.members[member_id])
        return Code.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else Code.NONE

    def leave(self, member_id: str) -> Code:
        if member_id in self._pending:
            self._pending.pop(member_id).cancel()
            self._maybe_complete()
        elif member_id in self.members:
            self._remove(self.members[member_id])
        else:
            return Code.UNKNOWN_MEMBER_ID
        return Code.NONE

    def may_commit(self, member_id: str, generation: int) -> Code:
        """Whether offsets of this member and generation count; without members everybody's do."""
        if generation < 0 and self.state is State.EMPTY:
            return Code.NONE
        if generation < 0 and not member_id:
            return Code.UNKNOWN_MEMBER_ID
        code = self._check(member_id, generation)
        if code is not Code.NONE:
            return code
        if self.state is State.COMPLETING:
            return Code.REBALANCE_IN_PROGRESS
        self._seen(self.members[member_id])
        return Code.NONE

    def close(self) -> None:
        """Stop the timers."""
        for timer in (self._timer, *self._pending.values(), *(member.timer for member in self.members.values())):
            if timer is not None:
                timer.cancel()

    # -- rebalance -----------------------------------------------------------------------------------------------------

    def _fits(self, asking: Asking) -> bool:
        if not asking.protocol_type or not asking.protocols:
            return False
        if not self.members:
            return True
        known_to_all = self._common(self.members.values())
        return asking.protocol_type == self.protocol_type and not known_to_all.isdisjoint(name for name, _ in asking.protocols)

    @staticmethod
    def _common(members: Iterable[Member]) -> set[str]:
        sets = [{name for name, _ in member.asking.protocols} for member in members]
        return set.intersection(*sets) if sets else set()

    def _enter(self, member: Member) -> asyncio.Future[Joined]:
        waiting: asyncio.Future[Joined] = self.loop.create_future()
        member.answer_join(Joined(Code.UNKNOWN_MEMBER_ID, member.id))
        member.joining = waiting
        self.members[member.id] = member
        self.leader = self.leader or member.id
        self.protocol_type = member.asking.protocol_type
        if self.state is State.PREPARING:
            self._maybe_complete()
        else:
            self._prepare()
        return waiting

    def _prepare(self) -> None:
        for member in self.members.values():
            member.assignment = b""
            member.answer_sync(Synced(Code.REBALANCE_IN_PROGRESS))
        self._unsynced.clear()
        self._first = self.state is State.EMPTY
        self.state = State.PREPARING
        self._start_timer(self.first_delay if self._first else self._patience(), self._complete)
        self._maybe_complete()

    def _maybe_complete(self) -> None:
        if self.state is not State.PREPARING or self._first or self._pending:
            return
        if all(member.joining is not None for member in self.members.values()):
            self._complete()

    def _complete(self) -> None:
        """The next generation: of those who joined in time."""
        self._stop_timer()
        for member in [one for one in self.members.values() if one.joining is None]:
            self._forget(member)
        self.generation += 1
        if not self.members:
            self.state, self.protocol, self.leader = State.EMPTY, "", ""
            return
        self.protocol = self._elect()
        self.state = State.COMPLETING
        self._unsynced = set(self.members)
        for member in self.members.values():
            member.answer_join(self._answer(member))
            self._seen(member)
        self._start_timer(self._patience(), self._drop_unsynced)

    def _elect(self) -> str:
        """The protocol that most members like best among those that all have."""
        common = self._common(self.members.values())
        votes = [next(name for name, _ in member.asking.protocols if name in common) for member in self.members.values()]
        return max(votes, key=votes.count)

    def _answer(self, member: Member) -> Joined:
        everyone = tuple((one.id, one.metadata(self.protocol)) for one in self.members.values())
        known = everyone if member.id == self.leader else ()
        return Joined(Code.NONE, member.id, self.generation, self.protocol, self.leader, known)

    def _patience(self) -> float:
        return max((member.asking.rebalance for member in self.members.values()), default=0.0)

    # -- sessions ------------------------------------------------------------------------------------------------------

    def _check(self, member_id: str, generation: int) -> Code:
        if member_id not in self.members:
            return Code.UNKNOWN_MEMBER_ID
        return Code.NONE if generation == self.generation else Code.ILLEGAL_GENERATION

    def _seen(self, member: Member) -> None:
        member.expires = self.loop.time() + member.asking.session
        if member.timer is not None and member.timer.when() > member.expires:
            member.timer.cancel()
            member.timer = None
        if member.timer is None:
            member.timer = self.loop.call_at(member.expires, self._expire, member)

    def _expire(self, member: Member) -> None:
        member.timer = None
        if member.joining is not None or member.syncing is not None:
            self._seen(member)
        elif self.loop.time() < member.expires:
            member.timer = self.loop.call_at(member.expires, self._expire, member)
        else:
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self._forget(member)
        if self.state is State.PREPARING:
            self._maybe_complete()
        else:
            self._prepare()

    def _forget(self, member: Member) -> None:
        del self.members[member.id]
        self._unsynced.discard(member.id)
        member.answer_join(Joined(Code.UNKNOWN_MEMBER_ID, member.id))
        member.answer_sync(Synced(Code.UNKNOWN_MEMBER_ID))
        if member.timer is not None:
            member.timer.cancel()
        if self.leader == member.id:
            self.leader = next(iter(self.members), "")

    def _drop_pending(self, member_id: str) -> None:
        del self._pending[member_id]
        self._maybe_complete()

    def _drop_unsynced(self) -> None:
        """Members that took no assignment in time are out."""
        late = [self.members[member_id] for member_id in self._unsynced]
        for member in late:
            self._forget(member)
        if late:
            self._prepare()

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
