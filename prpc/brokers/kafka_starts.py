"""What a server knows of its starts and ends that nobody may have committed, or somebody should not have. No I/O.

A commit may be persisted although its answer is lost. Then it says that a call was started which never was, and only the server
that wrote it knows. So that server tells the others by name which starts never were. What it says may be heard late, or twice:
therefore a name stands for one start of a record at most. Once a start is given up, nothing more is started under its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import TopicPartition

from prpc.brokers.kafka_words import Place, Start

__all__ = ["MOST_UNSTARTED", "Ends", "Starts", "name_of"]

#: Starts that are remembered of those which never were; what is forgotten counts as a call that was lost.
MOST_UNSTARTED = 1000
#: Ends that are remembered of partitions which went away before they were committed.
MOST_ENDED = 10_000


class Starts:
    """The names under which one server marks what it starts, and which of those starts never were."""

    def __init__(self, member: str) -> None:
        self.member = member
        self._number = 0
        self._unstarted: dict[Start, None] = {}

    @property
    def token(self) -> str:
        """What the next start is marked with."""
        return f"{self.member}.{self._number}"

    def rename(self) -> None:
        """Mark nothing more with the names of before."""
        self._number += 1

    def is_mine(self, token: str) -> bool:
        """Whether this server marks with it, or did."""
        return name_of(token) == self.member

    @property
    def unstarted(self) -> tuple[Start, ...]:
        """Starts in partitions that are not ours which may be committed, although they never were and never will be."""
        return tuple(self._unstarted)

    def forgo(self, starts: Iterable[Start]) -> None:
        """These never were, and never will be."""
        self._unstarted.update(dict.fromkeys(starts))
        while len(self._unstarted) > MOST_UNSTARTED:
            del self._unstarted[next(iter(self._unstarted))]

    def take(self, partition: TopicPartition) -> set[tuple[int, str]]:
        """Those of a partition that is ours again, by offset and name: from now on its tenure remembers them."""
        found = [start for start in self._unstarted if start[0][0] == partition]
        for start in found:
            del self._unstarted[start]
        return {(offset, token) for (_, offset), token in found}


class Ends:
    """What ended while its partition was nobody's, or its end could not be committed."""

    def __init__(self) -> None:
        self._unsaid: set[Place] = set()
        #: The same and what of it was said, oldest first: a partition may come back before anybody has committed that end.
        self._ended: dict[Place, None] = {}

    def keep(self, places: Iterable[Place]) -> None:
        """These have ended."""
        for place in places:
            self._unsaid.add(place)
            self._ended[place] = None
        while len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def forget(self, place: Place) -> None:
        """It begins, once more."""
        self._unsaid.discard(place)
        self._ended.pop(place, None)

    def take(self, place: Place) -> bool:
        """Whether it has ended; its partition is ours again, so that others need not be told."""
        self._unsaid.discard(place)
        return place in self._ended

    def to_say(self) -> tuple[Place, ...]:
        """What others were not told yet: from now on they were."""
        unsaid, self._unsaid = tuple(self._unsaid), set()
        return unsaid

    def clear(self) -> None:
        """Others have decided about all of that."""
        self._unsaid.clear()
        self._ended.clear()


def name_of(token: str) -> str:
    """The server that marks with it."""
    return token.rpartition(".")[0]
