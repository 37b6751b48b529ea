"""The broker in memory as an object: it runs on a thread of its own, and is told what to do from any other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

from prpc.dev_kafka.api import NAMES
from prpc.dev_kafka.faults import Fault, Faults, Journal, Kind, Seen
from prpc.dev_kafka.server import Server
from prpc.dev_kafka.store import Options, Store

__all__ = ["FakeKafka"]

T = TypeVar("T")

#: Seconds within which the broker's thread does what it is told.
PATIENCE = 10.0


class FakeKafka:
    """A Kafka broker of one node in memory, listening on loopback from the moment it is made until `close`.

    Use it with `with`. Every method may be called from any thread and returns when the thing is done; apart from `wait_for` none
    of them takes more than an instant. APIs are named as Kafka does: "Produce", "Fetch", "JoinGroup", "OffsetCommit" and so on.

        with FakeKafka() as kafka:
            kafka.create_topic("calls", partitions=4)
            kafka.lose_reply("Produce")
            producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

    Raises OSError where the port is taken.
    """

    def __init__(self, port: int = 0, **options: Any) -> None:
        self._options = Options(**options)
        self._loop = asyncio.new_event_loop()
        self._store = Store(self._options, self._loop)
        self._faults = Faults()
        self._journal = Journal()
        self._server = Server(self._store, self._faults, self._journal)
        self._thread = threading.Thread(target=self._loop.run_forever, name="prpc-fake-kafka", daemon=True)
        self._thread.start()
        try:
            self._wait(self._server.listen(port))
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """Port of 127.0.0.1."""
        return self._store.port

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, as aiokafka wants it."""
        return f"{self._store.host}:{self._store.port}"

    def close(self) -> None:
        """Cut all connections and forget everything. Idempotent."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def __enter__(self) -> FakeKafka:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- faults --------------------------------------------------------------------------------------------------------

    def lose_reply(self, api: str, *, times: int = 1, topic: str | None = None) -> None:
        """The next request of this kind has its effect, and its connection is cut instead of an answer."""
        self._add(Fault(Kind.LOSE_REPLY, api, topic), times)

    def refuse(self, api: str, *, times: int = 1, topic: str | None = None) -> None:
        """The next request of this kind has no effect, and its connection is cut."""
        self._add(Fault(Kind.REFUSE, api, topic), times)

    def delay(self, api: str, seconds: float, *, times: int = 1, topic: str | None = None) -> None:
        """The next request of this kind is looked at after so many seconds; those behind it on its connection wait as well."""
        self._add(Fault(Kind.DELAY, api, topic, seconds=seconds), times)

    def fail(self, api: str, code: int, *, times: int = 1, topic: str | None = None) -> None:
        """Everything in the next request of this kind is answered with this error code, and has no effect."""
        self._add(Fault(Kind.FAIL, api, topic, code=code), times)

    def clear_faults(self) -> None:
        """Faults that were not used up are gone."""
        self._faults.clear()

    def drop_connections(self) -> None:
        """Cut every connection; new ones are welcome."""
        self._wait(self._server.hang_up())

    def down(self) -> None:
        """Cut every connection and take none, like a network that fails: topics and groups stay, sessions run out. Idempotent."""
        self._wait(self._server.down())

    def up(self) -> None:
        """Take connections again, on the same port. Idempotent."""
        self._wait(self._server.listen(self.port))

    def _add(self, fault: Fault, times: int) -> None:
        _known(fault.api)
        self._faults.add(fault, times)

    # -- topics --------------------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> None:
        """A new topic. Raises Refused where there is one of that name, or a setting is wrong."""
        self._do(lambda: self._store.topics.create(name, partitions, 1, configs))

    def delete_topic(self, name: str) -> None:
        """The topic is gone, with its offsets in all groups. Raises Refused for an unknown one."""
        self._do(lambda: self._store.delete_topic(name))

    def topics(self) -> list[str]:
        """Names of all topics."""
        return self._do(self._store.topics.names)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Lose the records before `offset` (-1: all), as when their time of retention is over."""
        self._do(lambda: self._store.topics.partition(topic, partition).delete_before(offset))

    def truncate(self, topic: str, partition: int, offset: int) -> None:
        """Lose the batches that hold `offset` or more, as when a broker leads that had not got them.

        Who read further than that is out of range.
        """
        self._do(lambda: self._store.topics.partition(topic, partition).truncate(offset))

    def offsets(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """The log's start and end."""

        def read() -> tuple[int, int]:
            log = self._store.topics.partition(topic, partition)
            return log.start, log.end

        return self._do(read)

    # -- groups and requests -------------------------------------------------------------------------------------------

    def committed(self, group: str) -> dict[tuple[str, int], tuple[int, str]]:
        """Topic and partition -> offset and metadata that the group committed."""
        return self._do(lambda: dict(known.offsets) if (known := self._store.groups.get(group)) else {})

    def members(self, group: str) -> dict[str, str]:
        """Member ids and client ids of the group's members."""

        def read() -> dict[str, str]:
            known = self._store.groups.get(group)
            return {member.id: member.asking.client_id for member in known.members.values()} if known else {}

        return self._do(read)

    def requests(self, api: str | None = None) -> list[Seen]:
        """The last requests, oldest first."""
        return self._journal.entries(_known(api) if api else None)

    def forget_requests(self) -> None:
        """Begin the journal anew."""
        self._journal.clear()

    def wait_for(self, api: str, *, times: int = 1, client_id: str | None = None, timeout: float = PATIENCE) -> None:
        """Return when so many requests of this kind are in the journal. Raises TimeoutError after `timeout` seconds."""
        _known(api)

        def fits(seen: Seen) -> bool:
            return seen.api == api and client_id in (None, seen.client_id)

        if not self._journal.wait_for(fits, times, timeout):
            raise TimeoutError(f"{times} x {api} did not come within {timeout:g} s")

    # -- the thread ----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        await self._server.down()
        for group in self._store.groups.values():
            group.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _do(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return self._wait(run())


def _known(api: str) -> str:
    if api not in NAMES:
        raise ValueError(f"no API {api!r}; there are {', '.join(sorted(NAMES))}")
    return api
