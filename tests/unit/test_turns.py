"""One future for all that is begun in one turn of the loop."""

from __future__ import annotations

import asyncio

from prpc.brokers.awaiting import Turns


def test_a_turns_future_ends_with_the_last_of_it() -> None:
    async def scenario() -> None:
        turns = Turns()
        turn = turns.now()
        turn.join()
        assert turns.now() is turn
        turn.join()
        turn.leave()
        turn.leave()
        assert not turn.done.done()  # more may join it
        await asyncio.sleep(0)
        assert turn.done.result() is True
        later = turns.now()
        assert later is not turn
        later.join()
        await asyncio.sleep(0)
        assert not later.done.done()
        later.leave()
        assert later.done.result() is True

    asyncio.run(scenario())


def test_who_gives_the_future_up_harms_nobody() -> None:
    async def scenario() -> None:
        turn = Turns().now()
        turn.join()
        turn.done.cancel()
        turn.leave()
        await asyncio.sleep(0)
        assert turn.done.cancelled()

    asyncio.run(scenario())
