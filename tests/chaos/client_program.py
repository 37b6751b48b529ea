"""A client of the chaos runs: `python -m tests.chaos.client_program CONFIG`. Calls until SIGTERM, then waits for the outcomes."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

from prpc import AsyncClient, AwaitableTask
from tests.chaos.journal import Journal


class Notes:
    """Makes calls and notes them: each before its bytes can leave (they do at the end of the loop's tick), and its outcome when
    its waiter has it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._name, self._timeout = config["name"], config["timeout"]
        self._journal = Journal(Path(config["folder"]), self._name)
        self._tasks: list[AwaitableTask[Any]] = []

    async def call(self, client: AsyncClient, function: str, seconds: float, *, sure: bool = False) -> str:
        """Returns how it ended. `sure`: it is made in a world in which it must succeed."""
        task = client.call(function, seconds)
        self._journal.write(
            "call",
            id=str(task.message.message_id),
            client=self._name,
            function=function,
            idempotent=function.endswith("_again"),
            timeout=self._timeout,
            sure=sure,
        )
        self._tasks.append(task)
        try:
            await task
        except Exception:  # whatever it is, it is noted as the outcome
            pass
        return self._note("outcome", task)

    def close(self) -> None:
        """Look at every call once more."""
        for task in self._tasks:
            self._note("again", task)
        self._journal.close()

    def _note(self, event: str, task: AwaitableTask[Any]) -> str:
        how, token = "value", None
        try:
            token = task.get_result()
        except Exception as exc:
            how = type(exc).__name__
        self._journal.write(event, id=str(task.message.message_id), how=how, token=token)
        return how


class Load:
    """Calls of seeded kind and length at a steady rate, as many at once as `window` allows."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._notes = Notes(config)
        self._random = random.Random(config["seed"])
        self._window = asyncio.Semaphore(config["window"])
        self._stop = asyncio.Event()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        async with AsyncClient(**self._config["client"]) as client, asyncio.TaskGroup() as group:
            once = client.options(timeout=self._config["timeout"])
            again = once.options(idempotent=True, **self._config["repeats"])
            while not self._stop.is_set():
                await self._window.acquire()
                function = self._random.choice(self._config["functions"])
                group.create_task(self._call(again if function.endswith("_again") else once, function))
                await self._pause()
        self._notes.close()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._random.expovariate(self._config["rate"])):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _call(self, client: AsyncClient, function: str) -> None:
        await self._notes.call(client, function, self._random.choices((0.0, 0.005, 0.1, 0.3), (40, 25, 20, 15))[0])
        self._window.release()


async def main(config: dict[str, Any]) -> None:
    await Load(config).run()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    asyncio.run(main(json.loads(sys.argv[1])))
