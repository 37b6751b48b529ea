"""Who reads which partitions, and who is still there: the rule that one member of the group applies for all. No I/O.

All topics of a queue are shared out by the partition's number, so that calls of one id meet in one server whichever topic they
stand in. A member keeps what it had, as far as the shares allow. Kafka's assignment carries a word for every member: which of
them were there without a break since the last time. A call that runs in a server which lost its partition goes on while the
server is among them, and counts as lost when it is not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

__all__ = ["Member", "QueueAssignor", "Shares", "share_out"]

_VERSION = 0


@dataclass(frozen=True, slots=True)
class Member:
    """What a consumer says of itself when it joins."""

    #: Its name, new for each start.
    name: str
    #: Number of the last sharing out that it took part in; 0: none.
    round: int = 0
    #: Numbers of the partitions that it had then.
    had: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Shares:
    """One sharing out."""

    round: int
    #: Names of those who took part in the one before, too.
    continuing: frozenset[str]
    #: Member id -> numbers of its partitions.
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def share_out(members: Mapping[str, Member], partitions: int) -> Shares:
    """Numbers 0 to `partitions` - 1 over the members (by member id), as evenly as can be, each keeping what it may."""
    last = max((member.round for member in members.values()), default=0)
    continuing = {key for key, member in members.items() if member.round == last and last > 0}
    order = sorted(members, key=lambda key: (key not in continuing, members[key].name, key))
    fewest, more = divmod(partitions, len(order) or 1)
    free = set(range(partitions))
    shares: dict[str, list[int]] = {}
    for key in order:
        had = sorted(free.intersection(members[key].had)) if key in continuing else []
        shares[key] = had[: fewest + 1] if more else had[:fewest]
        if len(shares[key]) > fewest:
            more -= 1
        free.difference_update(shares[key])
    for number in sorted(free):
        key = min(order, key=lambda each: len(shares[each]))
        shares[key].append(number)
    names = frozenset(members[key].name for key in continuing)
    return Shares(last + 1, names, {key: tuple(sorted(numbers)) for key, numbers in shares.items()})


class QueueAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """The rule in aiokafka's form: an object of it for each consumer, where aiokafka's own are classes."""

    name = "prpc"

    def __init__(self, member: str) -> None:
        self._me = Member(member)
        #: The last sharing out, as far as it is this member's; None before the first.
        self.shares: Shares | None = None

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member says when it joins."""
        me = {"name": self._me.name, "round": self._me.round, "had": sorted(self._me.had)}
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), json.dumps(me).encode())

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The sharing out, made by the member that the broker chose for it."""
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        said = {key: _read_member(key, member.user_data) for key, member in members.items()}
        shares = share_out(said, max(counts.values(), default=0))
        word = json.dumps({"round": shares.round, "continuing": sorted(shares.continuing)}).encode()
        return {
            key: ConsumerProtocolMemberAssignment(
                _VERSION, [(topic, [n for n in numbers if n < count]) for topic, count in counts.items()], word
            )
            for key, numbers in shares.numbers.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """This member's share came."""
        numbers = {number for _, share in assignment.assignment for number in share}
        try:
            word = json.loads(assignment.user_data)
            count, continuing = int(word["round"]), frozenset(map(str, word["continuing"]))
        except (ValueError, TypeError, KeyError):
            count, continuing = self._me.round + 1, frozenset()
        self._me = Member(self._me.name, count, frozenset(numbers))
        self.shares = Shares(count, continuing)


def _read_member(key: str, data: bytes) -> Member:
    """What a member said; of one that says nothing of ours, only that it is there."""
    try:
        said = json.loads(data)
        return Member(str(said["name"]), int(said["round"]), frozenset(map(int, said["had"])))
    except (ValueError, TypeError, KeyError):
        return Member(key)
