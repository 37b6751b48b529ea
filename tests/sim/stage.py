"""Scenes: what some clients do together, by a script of their own, beside whatever else happens in the world."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from prpc.app_client import AsyncClient
from prpc.app_client import Client as PlainClient
from prpc.client.middleware import Middleware
from prpc.client.stream import Stream
from prpc.exceptions import PRPCError
from prpc.server.middleware import Middleware as ServerMiddleware
from prpc.server.registry import Registry
from tests.sim.caller import name_of
from tests.sim.noted import LATE
from tests.sim.programs import spawn_plain

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["Scene", "Stage", "ends", "healthy", "logged", "sync_ends"]

#: Errors that faults and load bring about: an actor that meets one leaves the stage, the ledger has judged the call.
OF_FAULTS = frozenset(
    {
        *LATE,
        *("WorkerLostError", "ServerShutdownError", "BrokerUnavailableError", "CallCancelledError", "QueueFullError"),
        *("NoServerError",),
    }
)


class Stage:
    """One scene in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.draw = Random(f"{world.options.seed} scene")
        #: Who acts, and what ends when that is over.
        self.actors: list[tuple[Any, asyncio.Future[Any]]] = []

    def acts(
        self,
        program: Callable[[AsyncClient], Awaitable[None]],
        middleware: Sequence[Middleware] = (),
        expects: Mapping[str, Sequence[str]] | None = None,
        **settings: Any,
    ) -> None:
        """A process with a loop."""
        guest = self.world.add_guest(AsyncClient, middleware, expects or {}, settings)

        async def act() -> None:
            try:
                await program(guest.client)
            except Exception as exc:
                self._missed(exc)
            self._leave_all(guest.name)
            await guest.client.close()

        self.actors.append((guest, self.world.loop.spawn(guest.host, act(), f"{guest.name} {program.__name__}")))

    def plays(
        self,
        program: Callable[[PlainClient], Any],
        middleware: Sequence[Middleware] = (),
        expects: Mapping[str, Sequence[str]] | None = None,
        **settings: Any,
    ) -> None:
        """A process without a loop."""
        guest = self.world.add_guest(PlainClient, middleware, expects or {}, settings)

        def act() -> None:
            try:
                with guest.client as client:
                    program(client)
            except Exception as exc:
                self._missed(exc)
            self._leave_all(guest.name)

        self.actors.append((guest, spawn_plain(self.world.loop, guest.host, act)))

    def _missed(self, exc: Exception) -> None:
        if name_of(exc) in OF_FAULTS:
            self.world.counts[f"scene ended by {name_of(exc)}"] += 1
            return
        where = traceback.extract_tb(exc.__traceback__)
        places = ", ".join(f"{frame.name}:{frame.lineno}" for frame in where if "/tests/sim/" in frame.filename)
        self.world.note("broken", what=f"scene {self.world.options.scene}: {exc!r} at {places}")

    def directs(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that is done to the world itself."""
        self.actors.append((self.world.root_guest, self.world.loop.spawn(self.world.loop.root, self._directed(work))))

    async def _directed(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:
            self._missed(exc)

    @property
    def peaceful(self) -> bool:
        """Whether nothing else happens to the world."""
        options = self.world.options
        held = "hold" in options.ends
        return not (options.faults or options.armed or options.noise or options.max_queue or held)

    # streams

    async def read(self, stream: Stream[Any], count: int, most: int | None = None) -> list[Any]:
        """All its items, or so many at `most`; what the ledger wants to know is noted."""
        reader = _Read(self.world, stream)
        try:
            while most is None or len(reader.items) < most:
                reader.read(await anext(stream))
        except StopAsyncIteration:
            reader.end(count)
        except PRPCError as exc:
            reader.fail(exc)
            raise
        if not reader.ended:
            reader.leave()
            await stream.aclose()
        return reader.items

    def sync_read(self, stream: Stream[Any], count: int, most: int | None = None) -> list[Any]:
        """The same for plain code."""
        reader = _Read(self.world, stream)
        try:
            while most is None or len(reader.items) < most:
                reader.read(next(stream))
        except StopIteration:
            reader.end(count)
        except PRPCError as exc:
            reader.fail(exc)
            raise
        if not reader.ended:
            reader.leave()
            stream.close()
        return reader.items

    def _leave_all(self, name: str) -> None:
        """The streams that an actor still had as it left the stage."""
        events = self.world.events
        calls = [event for event in events if event["event"] == "call" and event["client"] == name]
        streams = {event["id"] for event in calls if event.get("stream")}
        ended = {event["id"] for event in events if event["event"] in ("outcome", "leave")}
        for message_id in sorted(streams - ended):
            self.world.note("leave", id=message_id, silent=True)

    def gone(self, client: AsyncClient | PlainClient) -> None:
        """This one's loop has ended, or its process: it hears and says nothing any more."""
        self.world.note("gone", client=next(guest.name for guest in self.world.guests if guest.client is client))

    def leave(self, stream: Stream[Any], *, silent: bool = False) -> None:
        """Its reader has gone, or goes now; `silent`: it cannot say so."""
        self.world.note("leave", id=stream.message.message_id, silent=silent)


class _Read:
    """What one reader tells the ledger."""

    def __init__(self, world: World, stream: Stream[Any]) -> None:
        self._world, self._id = world, str(stream.message.message_id)
        self.items: list[Any] = []
        self.ended = False

    def read(self, item: Any) -> None:
        self._world.note("read", id=self._id, index=len(self.items))
        assert int(item) == len(self.items), f"item {item} in the place of {len(self.items)}"
        self.items.append(item)

    def end(self, count: int) -> None:
        assert len(self.items) == count, f"the stream {self._id} ended after {len(self.items)} of {count} items"
        self._outcome("value", self._world.last_end(self._id))

    def fail(self, exc: Exception) -> None:
        self._outcome(name_of(exc), None)

    def _outcome(self, how: str, token: str | None) -> None:
        self.ended = True
        self._world.note("outcome", id=self._id, how=how, token=token)
        self._world.counts[f"outcome {how}"] += 1

    def leave(self) -> None:
        self.ended = True
        self._world.note("leave", id=self._id, silent=True)


def healthy(found: Sequence[Any]) -> Sequence[Any]:
    """These results, unless one is the error of a fault, which is raised."""
    for each in found:
        if isinstance(each, Exception) and name_of(each) in OF_FAULTS:
            raise each
    return found


@contextmanager
def logged(wanted: bool) -> Iterator[None]:
    """Within: PRPC writes its log, which nobody reads."""
    logger, disabled = logging.getLogger("prpc"), logging.root.manager.disable
    if not wanted:
        yield
        return
    before = logger.level, logger.propagate
    handler = logging.StreamHandler(io.StringIO())
    logging.disable(logging.NOTSET)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        logging.disable(disabled)


async def ends(work: Awaitable[Any], *errors: type[BaseException]) -> BaseException:
    """Await it: it ends with one of these errors, or with one of a fault, which is raised."""
    try:
        value = await work
    except errors as exc:
        return exc
    raise AssertionError(f"no error, but {value!r}")


def sync_ends(work: Callable[[], Any], *errors: type[BaseException]) -> BaseException:
    """Call it: it ends as `ends` says."""
    try:
        value = work()
    except errors as exc:
        return exc
    raise AssertionError(f"no error, but {value!r}")


@dataclass(frozen=True)
class Scene:
    """A script, and what its servers are like."""

    #: Sends the actors onto the stage.
    script: Callable[[Stage], None]
    #: What servers serve.
    registry: Callable[[], Registry]
    #: Of the servers.
    middleware: Sequence[ServerMiddleware] = ()
    lifespan: Callable[[World], Callable[[], AbstractAsyncContextManager[Any]]] | None = None
    #: Whether everything is logged, to nobody.
    logged: bool = False
    #: Settings of the world that differ.
    settings: Mapping[str, Any] = field(default_factory=dict)
