"""Thousands of hostile entries between good calls: every good call is answered, every bad entry is accounted for.

The entries follow from PRPC_TEST_HOSTILE_SEED; a failure names the seed, the chunk, and the entries that it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from hostile_entries import Entry, Forge
from hostile_kinds import KINDS, make
from hostile_world import SEED, World, opened

from prpc.settings import Settings

#: Hostile entries of one chunk, and of one window: four good calls stand around and between those, one of which runs meanwhile.
CHUNK, WINDOW = 500, 40
#: Doubles of the running call in a window.
DOUBLES = 4
MOST_BYTES = 64 * 1024
KEY = "a-key-that-nobody-hostile-has-" + "1" * 10
#: Kinds that are large, and therefore few.
RARE = {"size": 4, "many fields": 4}


def kinds_of(rng: Random) -> list[str]:
    """The kinds of one chunk: each is there, in any order."""
    kinds = [kind for kind, times in RARE.items() for _ in range(times)]
    often = sorted(KINDS.keys() - RARE.keys())
    kinds += [often[number % len(often)] for number in range(CHUNK - len(kinds))]
    rng.shuffle(kinds)
    return kinds


async def send_window(world: World, forge: Forge, number: int, entries: list[Entry]) -> None:
    """Good calls before, between and behind the bad entries, and one that runs meanwhile, of which some are doubles."""
    good = [world.start_good(forge.rng)]
    gated, opened = await world.start_gated(f"{number} {forge.rng.getrandbits(64):x}")
    for _ in range(DOUBLES):
        entries[forge.rng.randrange(len(entries))] = forge.double(gated.message)
    for some in (entries[: WINDOW // 2], entries[WINDOW // 2 :]):
        world.ledger.book(await world.door.put(some), some)
        good.append(world.start_good(forge.rng))
    for call in good:
        await world.check_good(*call)
    opened.set()
    assert await gated == gated.message.func_args[0]
    world.check_server()


async def send_chunk(world: World, number: int) -> None:
    rng = Random(f"{SEED} {number}")
    forge = Forge(rng, world.mailboxes, MOST_BYTES, processes=world.processes)
    kinds = kinds_of(rng)
    for start in range(0, len(kinds), WINDOW):
        entries = [make(forge, kind) for kind in kinds[start : start + WINDOW]]
        try:
            await send_window(world, forge, start, entries)
        except BaseException as exc:
            exc.add_note(f"seed {SEED}, chunk {number}, among these entries:\n" + "\n".join(str(entry) for entry in entries))
            raise
    await world.close_account(f"chunk {number}")


REDIS = pytest.mark.real_redis


@pytest.mark.parametrize(
    ("kind", "chunks", "key"),
    [pytest.param("redis", 12, "", marks=REDIS), ("memory", 3, ""), pytest.param("redis", 2, KEY, marks=REDIS)],
    ids=["redis", "memory", "signed"],
)
def test_every_good_call_is_answered_and_every_bad_entry_accounted_for(
    kind: str, chunks: int, key: str, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(kind, max_message_bytes=MOST_BYTES, dead_letters_kept=1_000_000, secret_key=key)

    async def work() -> None:
        async with opened(settings, monkeypatch, processes=kind == "redis" and not key) as world:
            for number in range(chunks):
                await send_chunk(world, number)
            account = world.ledger.account
            print(f"seed {SEED}: {account}")
            assert account.sent == chunks * CHUNK
            assert len(account.kinds) == len(KINDS) + 1
            if key:  # nothing of it was even looked at
                assert account.answered == account.doubles == 0 and set(account.reasons) == {"signature", "form"}

    asyncio.run(work())
