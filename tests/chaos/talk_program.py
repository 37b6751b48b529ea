"""A client that holds one short conversation after the other: `python -m tests.chaos.talk_program CONFIG`.

A line `talk` on its input has it make a few calls, one after the other, whatever becomes of them; a line `sure` some that must
succeed. It answers each line with how the calls ended. At the end of its input it looks at every call again and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from prpc import AsyncClient
from tests.chaos.client_program import Notes


async def talk(client: AsyncClient, again: AsyncClient, notes: Notes) -> list[str]:
    functions = ("async", "thread_again", "thread", "async_again")
    return [await notes.call(again if name.endswith("_again") else client, name, 0.0) for name in functions]


async def prove(client: AsyncClient, again: AsyncClient, notes: Notes) -> list[str]:
    # The first one is repeated until its answer has come over connections that hold: from there on nothing excuses an error.
    first = await notes.call(again, "async_again", 0.0, sure=True)
    return [first, *[await notes.call(client, function, 0.0, sure=True) for function in ("async", "thread")]]


async def main(config: dict[str, Any]) -> None:
    notes = Notes(config)
    async with AsyncClient(**config["client"]) as client:
        once = client.options(timeout=config["timeout"])
        again = once.options(idempotent=True, **config["repeats"])
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(*await {"talk": talk, "sure": prove}[line.strip()](once, again, notes), flush=True)
    notes.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
