"""Who reads which partitions, and who is still there: the rule that one member of the group applies for all. No I/O.

All topics of a queue are shared out by the partition's number, so that calls of one id meet in one server whichever topic they
stand in. A member keeps what it had, as far as the shares allow.

With its share every member gets the names of those that *continue*: whose membership Kafka kept up since their last share. A call
that runs in a server which lost its partition goes on while the server is among them, and counts as lost when it is not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

__all__ = ["Member", "QueueAssignor", "Word", "share_out"]

_VERSION = 0


@dataclass(frozen=True, slots=True)
class Member:
    """What a consumer says of itself when it joins."""

    #: Its name, new for each start.
    name: str
    #: What it subscribes to.
    topics: frozenset[str] = frozenset()
    #: The id under which Kafka knew it with its last share; empty before the first. Whom Kafka gave up gets another one.
    id: str = ""
    #: Number of that sharing out.
    round: int = 0
    #: Numbers of the partitions that it had then.
    had: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """What a member gets beside its share."""

    id: str
    round: int
    #: Names of the members that were there without a break.
    continuing: frozenset[str]


def share_out(members: Mapping[str, Member], partitions: int) -> dict[str, tuple[int, ...]]:
    """Numbers 0 to `partitions` - 1 over the members (by their id), as evenly as can be, each keeping what it may."""
    order = sorted(members, key=lambda key: (members[key].id != key, members[key].name, key))
    fewest, more = divmod(partitions, len(order) or 1)
    free = set(range(partitions))
    shares: dict[str, list[int]] = {}
    for key in order:
        had = sorted(free.intersection(members[key].had)) if members[key].id == key else []
        shares[key] = had[: fewest + 1] if more > 0 else had[:fewest]
        more -= len(shares[key]) > fewest
        free.difference_update(shares[key])
    for number in sorted(free):
        key = min(order, key=lambda each: len(shares[each]))
        shares[key].append(number)
    return {key: tuple(sorted(numbers)) for key, numbers in shares.items()}


class QueueAssignor:
    """The rule in aiokafka's form: an object of it for each consumer, where aiokafka's own are classes."""

    name = "prpc"

    def __init__(self, member: str) -> None:
        self._me = Member(member)
        #: What came with the last share; None before the first.
        self.word: Word | None = None

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member says when it joins."""
        me = self._me
        said = {"name": me.name, "id": me.id, "round": me.round, "had": sorted(me.had)}
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), json.dumps(said).encode())

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The sharing out, made by the member that Kafka chose for it. Queues in one group are shared out one by one."""
        said = {key: _read_member(key, member) for key, member in members.items()}
        number = max((member.round for member in said.values()), default=0) + 1
        continuing = sorted(member.name for key, member in said.items() if member.id == key)
        answers: dict[str, ConsumerProtocolMemberAssignment] = {}
        for topics in {member.topics for member in said.values()}:
            counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in sorted(topics)}
            some = {key: member for key, member in said.items() if member.topics == topics}
            for key, numbers in share_out(some, max(counts.values(), default=0)).items():
                word = json.dumps({"id": key, "round": number, "continuing": continuing}).encode()
                share = [(topic, [n for n in numbers if n < count]) for topic, count in counts.items()]
                answers[key] = ConsumerProtocolMemberAssignment(_VERSION, share, word)
        return answers

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """This member's share came."""
        numbers = {number for _, share in assignment.assignment for number in share}
        self.word = _read_word(assignment.user_data)
        self._me = Member(self._me.name, frozenset(), self.word.id, self.word.round, frozenset(numbers))


def _read_word(data: bytes) -> Word:
    """What came with a share; from a member that is not ours, nobody continues."""
    try:
        said = json.loads(data)
        return Word(str(said["id"]), int(said["round"]), frozenset(map(str, said["continuing"])))
    except (ValueError, TypeError, KeyError):
        return Word("", 0, frozenset())


def _read_member(key: str, member: ConsumerProtocolMemberMetadata) -> Member:
    """What a member said; of one that is not ours, only that it is there."""
    topics = frozenset(member.subscription)
    try:
        said = json.loads(member.user_data)
        had = frozenset(map(int, said["had"]))
        return Member(str(said["name"]), topics, str(said["id"]), int(said["round"]), had)
    except (ValueError, TypeError, KeyError):
        return Member(key, topics)
