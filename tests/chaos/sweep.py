"""A sweep of cuts over one short conversation: behind its first byte, behind its second, and so on to its last, both ways.

First the conversation alone, then the same with every connection opened anew. A cut is followed by calls that must succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tests.chaos.program import PATIENCE, Program
from tests.chaos.world import World
from tests.ledger.causes import BROKER

__all__ = ["cut_points", "sweep"]

#: Bytes between two cuts: less than the shortest of our commands has, and than an answer with an entry or a reply in it.
STEP = 48
#: Where connections are opened, most of the bytes are the scripts that are loaded, a few kB each.
STEP_AT_START = 480
#: Conversations that are measured; the quietest one counts, as servers renew their leases meanwhile.
MEASURED = 3


class Talker:
    """The client of the conversations (tests/chaos/talk_program.py)."""

    def __init__(self, program: Program) -> None:
        self._program = program

    async def say(self, word: str) -> bool:
        """Have it do what `word` stands for. False where that came to what the ledger will not let pass."""
        assert self._program.process.stdin is not None and self._program.process.stdout is not None
        self._program.process.stdin.write(f"{word}\n".encode())
        self._program.process.stdin.flush()
        async with asyncio.timeout(PATIENCE):
            answer = await asyncio.to_thread(self._program.process.stdout.readline)
        if not answer:
            raise RuntimeError(f"{self._program.name} ended:\n{self._program.tail()}")
        return set(answer.decode().split()) <= ({"value"} if word == "sure" else {"value", "BrokerUnavailableError"})

    async def leave(self, world: World) -> None:
        assert self._program.process.stdin is not None
        self._program.expected = True
        self._program.process.stdin.close()
        code = await self._program.ended()
        if code != 0:
            world.journal.write("broken", what=f"{self._program.name} ended with {code}:\n{self._program.tail()}")


async def sweep(world: World, seconds: float) -> None:
    """All cuts, one after the other on the same programs; how long that takes is theirs to say. It ends at the first violation,
    as each further one would cost a whole deadline."""
    talker = Talker(world.start_talker())
    try:
        await talker.say("sure")
        await _sweep(world, talker)
    finally:
        await talker.leave(world)


async def _sweep(world: World, talker: Talker) -> None:
    for anew in (False, True):
        sizes = await measure(world, talker, anew=anew)
        for up in (True, False):
            points = list(cut_points(sizes[up], STEP_AT_START if anew else STEP))
            world.tell(f"{len(points)} cuts on the way {'up' if up else 'down'}, {sum(sizes[up])} bytes, anew: {anew}")
            for count in points:
                if not await cut(world, talker, count, up=up, anew=anew):
                    return


async def measure(world: World, talker: Talker, *, anew: bool) -> dict[bool, list[int]]:
    """The bytes of one conversation, each way in the pieces in which they came."""
    quietest: dict[bool, list[int]] | None = None
    for _ in range(MEASURED):
        pieces: dict[bool, list[int]] = {True: [], False: []}
        if anew:
            world.proxy.cut_all()
        world.proxy.watch = lambda up, count, pieces=pieces: pieces[up].append(count)
        await talker.say("talk")
        world.proxy.watch = None
        if quietest is None or sum(map(len, pieces.values())) < sum(map(len, quietest.values())):
            quietest = pieces
        await talker.say("sure")
    assert quietest is not None
    return quietest


def cut_points(pieces: list[int], step: int) -> Iterator[int]:
    """Where to cut, in bytes from the beginning: every `step` bytes, and at the end of each piece, right before and behind it."""
    total, ends, at = sum(pieces), set[int](), 0
    for size in pieces:
        at += size
        ends |= {at - 1, at, at + 1}
    return iter(sorted(point for point in ends | set(range(1, total, step)) if 0 < point <= total))


async def cut(world: World, talker: Talker, count: int, *, up: bool, anew: bool) -> bool:
    """One cut and the calls after it; False where the sweep may end."""
    way = "up" if up else "down"
    with world.fault(f"a cut behind byte {count} on the way {way}", BROKER):
        if anew:
            world.proxy.cut_all()
        burnt = world.proxy.light_fuse(count, up=up)
        while not burnt.is_set():  # a conversation may be a few bytes shorter than the one that was measured
            if not await talker.say("talk"):
                return False
    return await talker.say("sure")
