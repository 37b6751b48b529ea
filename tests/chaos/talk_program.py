"""A client that holds one short conversation after the other: `python -m tests.chaos.talk_program CONFIG`.

A line `talk` on its input has it make a few calls, one after the other, whatever becomes of them; a line `sure` some that must
succeed. It answers each line with an empty one. At the end of its input it looks at every call again and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from prpc import AsyncClient
from tests.chaos.client_program import Notes


async def talk(client: AsyncClient, again: AsyncClient, notes: Notes) -> None:
    for function in ("async", "thread_again", "thread", "async_again"):
        await notes.call(again if function.endswith("_again") else client, function, 0.0)


async def prove(client: AsyncClient, again: AsyncClient, notes: Notes) -> None:
    # The first one is repeated until its answer has come over connections that hold: from there on nothing excuses an error.
    await notes.call(again, "async_again", 0.0, sure=True)
    for function in ("async", "thread"):
        await notes.call(client, function, 0.0, sure=True)


async def main(config: dict[str, Any]) -> None:
    notes = Notes(config)
    async with AsyncClient(**config["client"]) as client:
        once = client.options(timeout=config["timeout"])
        again = once.options(idempotent=True, **config["repeats"])
        while line := await asyncio.to_thread(sys.stdin.readline):
            await {"talk": talk, "sure": prove}[line.strip()](once, again, notes)
            print(flush=True)
    notes.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
