"""The outbox: has what this worker was asked to send delivered to all workers, and waits until it hears of it itself.

One delivery is under way at a time; what comes meanwhile goes into the next one. So a sender that sends much costs the broker
little, and a worker always knows of its own last messages when it names the floor of the next ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from examples.messenger.room import Letter, Room
from prpc import PRPCError

__all__ = ["HEARD_WITHIN", "MOST_BYTES", "NotConfirmed", "Outbox", "Publish"]

logger = logging.getLogger("examples.messenger")

#: Seconds until a delivery must have been heard here.
HEARD_WITHIN = 3.0
GREET_AGAIN_AFTER = 0.5
#: Most bytes of one delivery, as it travels; an event of PRPC takes 1,000,000 with everything around it.
MOST_BYTES = 900_000

#: Has letters delivered by every worker: the delivery's name, the floor, the letters. Raises PRPCError.
Publish = Callable[[str, int, Sequence[Letter]], Awaitable[object]]


class NotConfirmed(Exception):
    """It is not known whether the message was or will be delivered."""


class Outbox:
    """One worker's outbox. For one event loop."""

    def __init__(self, room: Room, publish: Publish) -> None:
        self._room, self._publish = room, publish
        #: Letters with their bytes, and who waits for their times.
        self._waiting: deque[tuple[Letter, int, asyncio.Future[int]]] = deque()
        self._news = asyncio.Event()
        #: Deliveries of this worker that it has not heard itself.
        self._unheard: dict[str, asyncio.Future[Sequence[int]]] = {}

    async def send(self, author: str, text: str) -> int:
        """Send a message; returns its time when this worker has heard it.

        Raises ValueError for one that is too long, and NotConfirmed.
        """
        size = _bytes_of(author, text)
        if size > MOST_BYTES:
            raise ValueError(f"the message takes {size} bytes on its way; at most {MOST_BYTES} can be sent")
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(((author, text, time.time_ns()), size, sent))
        self._news.set()
        return await sent

    async def greet(self) -> None:
        """Return when this worker hears what is delivered."""
        while True:
            try:
                await self._deliver([])
                return
            except (PRPCError, NotConfirmed) as exc:
                logger.warning("this worker does not hear itself yet: %s", exc)
                await asyncio.sleep(GREET_AGAIN_AFTER)

    def heard(self, name: str, times: Sequence[int]) -> None:
        """A delivery was heard, with these times; it may be anybody's."""
        unheard = self._unheard.get(name)
        if unheard is not None and not unheard.done():
            unheard.set_result(times)

    async def run(self) -> NoReturn:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._send_next()

    async def _send_next(self) -> None:
        letters, senders = self._take()
        if not letters:
            return
        try:
            times = await self._deliver(letters)
        except (PRPCError, NotConfirmed) as exc:
            for sender in senders:
                if not sender.done():
                    sender.set_exception(NotConfirmed(f"the message may not have been delivered: {exc}"))
            return
        for sender, its_time in zip(senders, times, strict=True):
            if not sender.done():
                sender.set_result(its_time)

    def _take(self) -> tuple[list[Letter], list[asyncio.Future[int]]]:
        """What goes into one delivery; whoever has given up waiting is left out."""
        letters, senders, room = [], [], MOST_BYTES
        while self._waiting and self._waiting[0][1] <= room:
            letter, size, sender = self._waiting.popleft()
            if not sender.done():
                letters.append(letter)
                senders.append(sender)
                room -= size
        return letters, senders

    async def _deliver(self, letters: Sequence[Letter]) -> Sequence[int]:
        name = uuid.uuid4().hex
        heard: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._unheard[name] = heard
        published = False
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                await self._publish(name, self._room.last, letters)
                published = True
                return await heard
        except PRPCError:
            if heard.done():
                return heard.result()
            raise
        except TimeoutError:
            if published:  # others may have heard it; what else was missed nobody knows
                self._room.send_away("this worker did not hear what was delivered")
            raise NotConfirmed(f"it was not heard within {HEARD_WITHIN:g} s") from None
        finally:
            del self._unheard[name]


def _bytes_of(author: str, text: str) -> int:
    # It travels as JSON inside of JSON.
    return len(json.dumps(json.dumps([author, text, 0])))
