"""One simulated world: servers and clients as hosts, a broker as another, and everything that happens noted for the ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from prpc.app_client import AsyncClient
from prpc.call_context import current_call
from prpc.client.channel import Channel
from prpc.deadline import SystemClock
from prpc.exceptions import BrokerUnavailableError
from prpc.server.registry import Registry
from prpc.server.service import Service
from prpc.settings import Settings
from tests.sim.armed import Armed
from tests.sim.broker import SimBroker, Site
from tests.sim.caller import Plan, run_plan
from tests.sim.fence import EPOCH
from tests.sim.hosts import HOST, Host
from tests.sim.loop import SimLoop
from tests.sim.network import Network
from tests.sim.noted import Noted, NotedChannel
from tests.sim.options import Options
from tests.sim.store import Store
from tests.sim.timing import SimTiming

__all__ = ["QUEUE", "Client", "Server", "World"]

QUEUE = "sim"


class Server:
    """One server process, and those that come in its place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host: Host | None = None
        self.service: Service | None = None
        self.task: asyncio.Task[None] | None = None
        self.incarnation = 0
        self.stopping = False

    @property
    def alive(self) -> bool:
        return self.host is not None and self.host.alive and self.task is not None and not self.task.done()


class Client:
    """One client process."""

    def __init__(self, name: str, host: Host, client: Any) -> None:
        self.name, self.host, self.client = name, host, client


class World:
    """Made anew for each run."""

    def __init__(self, loop: SimLoop, options: Options, registry: Registry) -> None:
        self.loop, self.options, self.registry = loop, options, registry
        self.events: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self._tokens = 0
        self._faults = 0
        #: Seconds that all planned calls run.
        self.load = 0.0
        #: For so many seconds the queue may take to empty.
        self.patience = 100.0
        seed = options.seed
        self.random = {name: Random(f"{seed} {name}") for name in ("latency", "noise", "faults", "workload")}
        self.site_host = loop.add_host("broker")
        self.timing = SimTiming(options, self.random["latency"], self.random["noise"])
        self.network = Network(loop, self.site_host, self.timing)
        self.store = self._make_store()
        self.store.doubled = self.timing.doubles_mail
        self.site = Site(self.store, self.network, EPOCH, self.note)
        self.servers = [Server(f"s{number}") for number in range(1, options.servers + 1)]
        self.clients: list[Client] = []
        self.armed: Armed | None = None
        #: The clients of a scene, which are of many kinds.
        self.guests: list[Client] = []
        self.root_guest = Client("world", loop.root, None)
        self.noted: Noted = {}
        self.taken_ports: set[int] = set()
        #: Which process has heard which event.
        self.heard: set[tuple[str, str]] = set()
        #: Progress bars that are open.
        self.bars = 0
        #: Of the servers.
        self.middleware: Sequence[Any] = ()
        self.lifespan: Any = None
        self.settings = Settings(
            type_broker="memory",
            url_broker="memory://sim",
            queue_name=QUEUE,
            instance_name="nobody",
            max_number_worker=options.slots,
            redis_heartbeat=options.heartbeat,
            redis_recover=options.recover,
            connect_timeout=options.connect_timeout,
            broker_silence=options.silence,
            shutdown_grace=options.grace,
            max_queue_length=options.max_queue,
            secret_key=options.secret,
            stream_window=options.window,
            stream_reader_timeout=4.0,
            call_attempt_timeout=4.0,
            call_backoff=0.2,
            call_backoff_max=2.0,
            call_retries=6,
        )

    def _make_store(self) -> Store:
        if self.options.broker == "kafka":
            from tests.sim.kafka_store import KafkaStore

            return KafkaStore(lambda: self.loop.now, self.note)
        return Store(lambda: self.loop.now, self.note)

    def broker(self, settings: Settings) -> SimBroker:
        """What `create_broker` makes here."""
        return SimBroker(settings, self.site)

    # the ledger

    def note(self, event: str, **fields: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, UUID):
                fields[name] = str(value)
            elif value is None and name == "id":
                fields[name] = ""
        self.events.append({"event": event, "at": self.loop.now, **fields})

    def last_end(self, message_id: str) -> str | None:
        """Token of the last execution of this call that ended."""
        ends = [event["token"] for event in self.events if event["event"] == "end" and event["id"] == message_id]
        return ends[-1] if ends else None

    def token(self) -> str:
        """A further execution's own."""
        self._tokens += 1
        return f"t{self._tokens}"

    def fault(self, name: str, *hits: str, **effects: Any) -> int:
        """A fault begins; its number is what `mended` wants."""
        self._faults += 1
        self.counts[f"fault {name}"] += 1
        self.note("fault", number=self._faults, name=name, hits=list(hits), **effects)
        return self._faults

    def mended(self, number: int) -> None:
        self.note("mended", number=number)

    # processes

    def add_process(self, name: str) -> Host:
        """A host with a clock of its own."""
        draw, options = self.random["faults"], self.options
        host = self.loop.add_host(
            name,
            offset=draw.uniform(0, 1000) if options.drift else 0.0,
            rate=1 + draw.uniform(-options.drift, options.drift),
            wall=draw.uniform(-options.skew, options.skew),
        )
        host.globals.update(world=self, process=name, host=host)
        return host

    def start_server(self, server: Server) -> None:
        """A new process in this one's place."""
        server.incarnation += 1
        name = f"{server.name}-{server.incarnation}"
        server.host = host = self.add_process(name)
        server.service, server.stopping = None, False
        server.task = self.loop.spawn(host, self._serve(server, name), name)

    async def _serve(self, server: Server, name: str) -> None:
        """As a supervisor would have it: a broker that is not there at the start is tried again."""
        settings = replace(self.settings, instance_name=name)
        while True:
            if server.stopping:
                return
            service = server.service = Service(
                settings, self.registry, clock=SystemClock(), lifespan=self.lifespan, middleware=self.middleware
            )
            try:
                await service.serve(lambda: None)
                if (client := HOST.get().globals.get("client")) is not None:
                    await client.close()
                return
            except BrokerUnavailableError:
                await asyncio.sleep(0.5)

    def start_client(self) -> Client:
        name = f"c{len(self.clients) + 1}"
        client = Client(name, self.add_process(name), AsyncClient._over(Channel(self.settings)))
        self.clients.append(client)
        return client

    def add_guest(self, kind: Any, middleware: Sequence[Any], expects: Mapping[str, Sequence[str]], settings: Any) -> Client:
        """A client of a scene, whose calls are noted wherever they are made."""
        name = f"g{len(self.guests) + 1}"
        channel = NotedChannel(self, name, replace(self.settings, **settings), middleware, expects=expects)
        guest = Client(name, self.add_process(name), kind._over(channel))
        self.guests.append(guest)
        return guest

    def stop(self, server: Server) -> None:
        """SIGTERM."""
        assert server.host is not None and server.service is not None
        server.stopping = True
        self.loop.on(server.host, server.service.request_stop)

    def may_run_out(self, seconds: float, timeout: float) -> bool:
        """Whether a call of so many seconds may run out of time by the load alone, or by faults that hold everything up."""
        faults = len(self.options.faults) * (9.0 + self.options.recover)
        # One that calls another may wait for the very slot that it has; on Kafka also while another server is idle.
        planned = [plan[1] for plan in self.options.planned] if self.options.broker == "kafka" else []
        return (
            not self.options.exact
            or "nested" in (*self.options.kinds, *planned)
            or timeout <= self.load * 3 + faults + seconds + 5.0
        )

    def kill(self, host: Host) -> None:
        """SIGKILL: its connections are closed by the kernel, what it had sent is on its way."""
        self.loop.kill(host)
        self.note("gone", client=host.name)
        for connection in [each for each in self.network.connections if each.host is host]:
            self.loop.at(self.site_host, self.loop.now + self.timing.delay(), connection._hang_up)

    def stand_still(self, host: Host, seconds: float, *, parts: bool) -> None:
        """A process does nothing for a while: SIGSTOP, or (without `parts`) a loop that is blocked."""
        number = self.fault("pause" if parts else "hold", host.globals["process"], stops=True)
        self.loop.pause(host, parts)
        self.loop.at(self.loop.root, self.loop.now + seconds, self._go_on, host, parts, number)

    def _go_on(self, host: Host, parts: bool, number: int) -> None:
        self.loop.resume(host, parts)
        self.mended(number)

    async def call_inside(self, seconds: float, end: str) -> None:
        """For functions that call: by a client of their process, and within what is left of their time."""
        home, left = HOST.get().globals, current_call().remaining()
        if "client" not in home:
            home["client"] = AsyncClient._over(Channel(self.settings))
        plan = Plan(0.0, "work", seconds, end, 30.0 if left is None else min(left, 30.0), None, 1)
        await run_plan(self, home["process"], home["client"], plan)

    # the end

    @property
    def idle(self) -> bool:
        """Whether every entry has ended."""
        return all(not queue.entries for queue in self.store.data.queues.values())

    @property
    def quiet(self) -> bool:
        """Whether nothing runs any more, not even what was taken from its server, and nobody stands still."""
        services = [server.service for server in self.servers if server.alive]
        running = any(service is None or service._dispatcher is None or service._dispatcher.running for service in services)
        return self.idle and not running and not any(host.paused for host in self.loop.hosts if host.alive)

    def what_is_left(self) -> str:
        """Entries that have not ended."""
        entries = [entry for queue in self.store.data.queues.values() for entry in queue.entries.values()]
        return ", ".join(f"{entry.number} of call {entry.message_id}" for entry in entries)

    def left(self) -> None:
        """Note what stays behind where everybody has left in order."""
        for name, queue in self.store.data.queues.items():
            held = [consumer for consumer, until in queue.leases.items() if until > self.loop.now]
            killed = {event["hits"][0] for event in self.events if event["event"] == "fault" and event.get("kills")}
            last = {
                server.service._dispatcher._consumer._name  # type: ignore[attr-defined]
                for server in self.servers
                if server.service is not None and server.service._dispatcher is not None
            }
            for consumer in held:  # one that was given up for another name runs out by itself
                if consumer in last and consumer.rpartition("_")[0] not in killed:
                    self.note("left", what=f"a lease of {consumer} on {name}")
        if self.bars and all(guest.host.alive for guest in self.guests):
            self.note("left", what=f"{self.bars} progress bars")
        ended = {server.host for server in self.servers if server.host is not None and server.host.alive}
        ended |= {client.host for client in self.clients if client.host.alive}
        for task, host in self.loop._tasks:
            if not task.done() and host.alive and host.process in ended:
                self.note("left", what=f"{host.name}: the task {task.get_name()}: {task.get_coro()!r}")
        for client in self.clients:
            if client.host.alive:
                if pending := [len(pump.pending) for pump in client.client.channel._pumps.values()]:
                    self.note("left", what=f"{client.name}: pending calls {pending}") if any(pending) else None
