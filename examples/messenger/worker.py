"""The worker: takes messages and hands them to everyone who reads, through any worker. `python -m examples.messenger.worker`

It serves two queues. `send_message` and `read_messages` are called through the one that the environment names. `deliver` is
broadcast to the workers themselves through another one, so that it never waits behind the calls that wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from examples.messenger.outbox import HEARD_WITHIN, Outbox
from examples.messenger.room import Letter, Message, Room
from examples.messenger.stopping import run_until_signal
from prpc import AppServer, AsyncClient, PRPCError

__all__ = ["Messenger", "main", "serve"]

#: Messages that are being sent at once in one worker.
SENDS_AT_ONCE = 16
#: Seconds after which a delivery that nobody has taken is repeated; it stays one delivery.
REPEAT_AFTER = 1.0
#: Seconds that a stopping worker gives to messages that are being sent, and to streams whose readers do not read.
STOP_WITHIN = HEARD_WITHIN + 1


class Messenger:
    """The service. Its methods run on the server's event loop."""

    def __init__(self, workers: AsyncClient) -> None:
        """`workers`: the queue of the workers."""
        self._workers = workers.options(timeout=HEARD_WITHIN, idempotent=True, attempt_timeout=REPEAT_AFTER)
        self.room = Room()
        self.outbox = Outbox(self.room, self._publish)

    async def send_message(self, author: str, text: str) -> int:
        """Send a message to everyone who reads; returns its time, in nanoseconds since 1970.

        Raises ValueError for one that is too long, and NotConfirmed where it may have been lost.
        """
        return await self.outbox.send(author, text)

    async def read_messages(self, announced: bool = False) -> AsyncIterator[Message | None]:
        """Every message from now on. `announced`: begin with None, so that the caller learns when "now" is."""
        with self.room.enter() as reader:
            if announced:
                yield None
            async for message in reader:
                yield message

    async def deliver(self, name: str, floor: int, letters: list[Letter]) -> None:
        """Hand messages to those who read here. Every worker hears the same deliveries in the same order."""
        self.outbox.heard(name, self.room.deliver(floor, letters))

    async def _publish(self, name: str, floor: int, letters: Sequence[Letter]) -> None:
        await self._workers.call("deliver", name, floor, list(letters))


async def serve() -> None:
    """Serve until cancelled; broker and queue come from the environment. Raises PRPCError where the start fails."""
    app = AppServer(default_type_worker="async", max_number_worker=SENDS_AT_ONCE)
    workers_queue = f"{app.settings.queue_name}_workers"
    workers = AppServer(default_type_worker="async", max_number_worker=4, name_queue=workers_queue, health_port=0)
    async with AsyncClient(name_queue=workers_queue) as client:
        messenger = Messenger(client)
        app.register_funcs(messenger.send_message, messenger.read_messages)
        workers.register_func(messenger.deliver, idempotent=True, max_concurrency=1, broadcast=True)
        async with _serving(workers) as heard, _sending(messenger.outbox) as sent:
            await messenger.outbox.greet()
            async with _serving(app) as served:
                try:
                    await asyncio.wait([heard, sent, served], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    # Streams have no end of their own, and a stopping server waits for what runs.
                    messenger.room.close()


@asynccontextmanager
async def _serving(app: AppServer) -> AsyncIterator[asyncio.Task[None]]:
    """Serve inside of the block; leaving it lets running calls end."""
    task = asyncio.create_task(app.serve())
    try:
        await app.ready
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    try:
        yield task
    finally:
        await app.stop(STOP_WITHIN)
        await task


@asynccontextmanager
async def _sending(outbox: Outbox) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(outbox.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def main() -> None:
    """The command: serve until SIGTERM or Ctrl-C; exit code 1 where it cannot."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("prpc").setLevel(logging.INFO)
    try:
        run_until_signal(serve())
    except PRPCError as exc:
        print(f"messenger worker: {exc}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
