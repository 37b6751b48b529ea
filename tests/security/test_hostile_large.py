"""Large hostile entries under the limits as they are by default: much of it is read, and none holds up the others for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

import pytest
from hostile_entries import Forge
from hostile_kinds import LARGE, large
from hostile_world import SEED, opened

from prpc.settings import Settings

#: Seconds that one of them may hold up a good call behind it, on a busy machine.
MOST_SECONDS = 5.0


@pytest.mark.parametrize("kind", [pytest.param("redis", marks=pytest.mark.real_redis), "memory"])
def test_large_entries(kind: str, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(settings_for(kind), monkeypatch, processes=False) as world:
            rng = Random(SEED)
            forge = Forge(rng, world.mailboxes, 0, processes=False)
            for number in range(LARGE):
                entries = [large(forge, number)]
                world.ledger.book(await world.door.put(entries), entries)
                start = time.perf_counter()
                await world.check_good(*world.start_good(rng))
                assert time.perf_counter() - start < MOST_SECONDS, str(entries[0])
            await world.close_account("large entries")
            world.check_server()

    asyncio.run(work())
