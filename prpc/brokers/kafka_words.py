"""What servers of one queue tell each other over the control topic about calls whose partition has moved. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition

__all__ = ["Place", "Start", "Word", "read_word", "write_word"]

#: Where a record stands.
Place = tuple[TopicPartition, int]
#: A start of a record, by the name that it is marked with.
Start = tuple[Place, str]


@dataclass(frozen=True, slots=True)
class Word:
    """One server's word."""

    member: str
    #: Records whose calls have ended there.
    ended: tuple[Place, ...] = ()
    #: Starts that may be committed, although they never were and never will be.
    unstarted: tuple[Start, ...] = ()
    #: Number of the sharing out that `holds` was said after.
    round: int = 0
    #: All records of partitions that are not its own whose calls run there; None where it says nothing about that.
    holds: frozenset[Place] | None = None
    #: A call that has ended or runs elsewhere, and the address of a further caller: whoever has its outcome sends it there.
    #: A word that asks says nothing else.
    asks: tuple[UUID, str] | None = None


def write_word(word: Word) -> bytes:
    """As it is sent."""
    unstarted = [(place.topic, place.partition, offset, token) for (place, offset), token in word.unstarted]
    said: dict[str, Any] = {"member": word.member, "ended": _list(word.ended), "unstarted": unstarted}
    if word.holds is not None:
        said |= {"round": word.round, "holds": _list(sorted(word.holds))}
    if word.asks is not None:
        message_id, address = word.asks
        said["asks"] = (str(message_id), address)
    return json.dumps(said).encode()


def read_word(body: bytes) -> Word | None:
    """As it was said; None where it cannot be read."""
    try:
        said = json.loads(body)
        holds = None if said.get("holds") is None else frozenset(_places(said["holds"]))
        return Word(
            str(said["member"]),
            tuple(_places(said["ended"])),
            tuple(_starts(said["unstarted"])),
            int(said.get("round", 0)),
            holds,
            None if said.get("asks") is None else _call_and_address(said["asks"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _list(places: Iterable[Place]) -> list[tuple[str, int, int]]:
    return [(place.topic, place.partition, offset) for place, offset in places]


def _places(said: Any) -> Iterable[Place]:
    for topic, partition, offset in said:
        yield TopicPartition(str(topic), int(partition)), int(offset)


def _starts(said: Any) -> Iterable[Start]:
    for topic, partition, offset, token in said:
        yield (TopicPartition(str(topic), int(partition)), int(offset)), str(token)


def _call_and_address(said: Any) -> tuple[UUID, str]:
    message_id, address = said
    return UUID(message_id), str(address)
