"""The nemesis: does what the options name, at drawn moments, and mends it all at the end."""

from __future__ import annotations

import asyncio
from copy import copy
from random import Random
from typing import TYPE_CHECKING

from tests.ledger.causes import BROKER
from tests.sim.hosts import Host

if TYPE_CHECKING:
    from tests.sim.world import Client, Server, World

__all__ = ["Nemesis"]

#: Seconds until a killed server is started again.
AGAIN = (0.0, 0.5, 4.0)
#: Seconds that a fault of the ways or a pause lasts.
LASTS = (0.2, 1.5, 5.0, 9.0)


class Nemesis:
    """One run's faults."""

    def __init__(self, world: World) -> None:
        self._world, self._draw = world, world.random["faults"]
        self._under_way: list[asyncio.Task[None]] = []
        self._noise = 0

    async def run(self) -> None:
        """Every deed of the options, within their span; then what was begun goes on until `heal`."""
        world, options = self._world, self._world.options
        if options.noise:
            self._noise = world.fault("noise", BROKER)
        moments = sorted(self._draw.random() * options.span for _ in options.faults)
        began = world.loop.now
        for number, (moment, deed) in enumerate(zip(moments, options.faults, strict=True)):
            await asyncio.sleep(max(0.0, began + moment - world.loop.now))
            if number not in options.skipped:
                self._under_way.append(asyncio.create_task(getattr(self._alone(number), deed)(), name=f"nemesis {deed}"))
        await asyncio.sleep(max(0.0, began + options.span - world.loop.now))

    def _alone(self, number: int) -> Nemesis:
        """With a stream of its own, so that a deed does what it does whether or not others are done."""
        alone = copy(self)
        alone._draw = Random(f"{self._world.options.seed} fault {number}")
        return alone

    async def heal(self) -> None:
        """Everything is mended, everybody is there."""
        world = self._world
        world.timing.noisy = False
        if self._noise:
            world.mended(self._noise)
        world.timing.watchers.clear()
        if self._under_way:
            await asyncio.wait(self._under_way)
        for task in self._under_way:
            task.result()
        for server in world.servers:
            if not server.alive:
                world.start_server(server)
        if not any(client.host.alive for client in world.clients):
            world.start_client()

    def _server(self) -> Server | None:
        living = [server for server in self._world.servers if server.alive]
        return self._draw.choice(living) if living else None

    def _client(self) -> Client | None:
        living = [client for client in self._world.clients if client.host.alive]
        return self._draw.choice(living) if living else None

    def _host(self) -> Host | None:
        living: list[Host] = [server.host for server in self._world.servers if server.alive and server.host is not None]
        living += [client.host for client in self._world.clients if client.host.alive]
        return self._draw.choice(living) if living else None

    # processes

    async def kill(self) -> None:
        server = self._server()
        if server is not None:
            await self._kill(server)

    async def _kill(self, server: Server) -> None:
        world = self._world
        assert server.host is not None
        world.fault("kill", server.host.name, kills=True)
        world.kill(server.host)
        await asyncio.sleep(self._draw.choice(AGAIN))
        if not server.alive:
            world.start_server(server)

    async def kill_at_operation(self) -> None:
        """The server is killed as it asks the broker for something: before it is sent, or when it is."""
        server, world = self._server(), self._world
        if server is None or server.host is None:
            return
        host, number, armed = server.host, self._draw.randrange(1, 30), asyncio.Event()
        before = self._draw.random() < 0.5

        def watch(asking: Host | None, operation: str) -> str:
            nonlocal number
            number -= asking is host
            if number == 0 and asking is host:
                armed.set()
                if before:
                    world.loop.pause(host)
            return ""

        world.timing.watchers.append(watch)
        try:
            async with asyncio.timeout(world.options.span):
                await armed.wait()
        except TimeoutError:
            return
        finally:
            if watch in world.timing.watchers:
                world.timing.watchers.remove(watch)
        if server.host is host and host.alive:
            world.counts["fault kill_at_operation"] += 1
            await self._kill(server)

    async def stop(self) -> None:
        """SIGTERM."""
        server, world = self._server(), self._world
        if server is None or server.host is None or server.service is None or server.task is None:
            return
        number = world.fault("stop", server.host.name, orderly=True)
        world.stop(server)
        await asyncio.wait([server.task], timeout=60)
        world.mended(number)
        await asyncio.sleep(self._draw.choice(AGAIN))
        if not server.alive:
            world.start_server(server)

    async def pause(self) -> None:
        host, world = self._host(), self._world
        if host is None:
            return
        seconds = self._draw.choice(LASTS)
        world.stand_still(host, seconds, parts=True)
        await asyncio.sleep(seconds)

    async def worker_lost(self) -> None:
        """A process worker that runs something dies."""
        world = self._world
        for _ in range(20):
            for server in world.servers:
                pools = server.host.globals.get("process pools", []) if server.alive and server.host else []
                for pool in pools:
                    if pool.busy:
                        execution = self._draw.choice(pool.busy)
                        number = world.fault("worker_lost", server.host.name, calls=[execution.job.message_id])
                        world.note("worker", id=execution.job.message_id, server=server.host.name)
                        world.loop.on(server.host, pool.lose, execution)
                        world.mended(number)
                        return
            await asyncio.sleep(0.05)

    async def kill_client(self) -> None:
        client, world = self._client(), self._world
        if client is None:
            return
        world.counts["fault kill_client"] += 1
        world.kill(client.host)

    async def clock_jump(self) -> None:
        """Somebody sets the date."""
        host = self._host()
        if host is not None:
            self._world.counts["fault clock_jump"] += 1
            host.wall += self._draw.choice((-600.0, -1.0, 1.0, 600.0))

    # ways

    async def _break_way(self, name: str, host: Host, *, out: bool, home: bool) -> None:
        world = self._world
        way, number = world.network.way(host), world.fault(name, BROKER, host.name)
        way.out, way.home = way.out and out, way.home and home
        await asyncio.sleep(self._draw.choice(LASTS))
        way.out = way.home = True
        world.network.cut(host)
        world.mended(number)

    async def partition(self) -> None:
        host = self._host()
        if host is not None:
            await self._break_way("partition", host, out=False, home=False)

    async def deaf(self) -> None:
        """What it asks is done, and it hears nothing."""
        host = self._host()
        if host is not None:
            await self._break_way("deaf", host, out=True, home=False)

    async def mute(self) -> None:
        """Nothing arrives of what it asks; it still hears."""
        host = self._host()
        if host is not None:
            await self._break_way("mute", host, out=False, home=True)

    async def cut(self) -> None:
        host, world = self._host(), self._world
        if host is not None:
            number = world.fault("cut", BROKER, host.name)
            world.network.cut(host)
            world.mended(number)

    async def clog(self) -> None:
        host = self._host()
        if host is not None:
            await self._clog("clog", [host])

    async def swizzle(self) -> None:
        """A subset stands still one by one and goes on in another order."""
        living: list[Host] = [each.host for each in (*self._world.servers, *self._world.clients) if each.host and each.host.alive]
        chosen = [host for host in living if self._draw.random() < 0.6]
        if chosen:
            await self._clog("swizzle", chosen)

    async def _clog(self, name: str, hosts: list[Host]) -> None:
        world = self._world
        number = world.fault(name, BROKER)
        ways = []
        for host in hosts:
            way = world.network.way(host)
            if way.clogged is None:  # else another one does that already
                way.clogged = []
                ways.append(way)
            await asyncio.sleep(self._draw.random() * 0.5)
        await asyncio.sleep(self._draw.choice(LASTS))
        self._draw.shuffle(ways)
        for way in ways:
            waiting, way.clogged = way.clogged or [], None
            for go_on in waiting:
                go_on()
            await asyncio.sleep(self._draw.random() * 0.5)
        world.mended(number)

    # the broker

    async def broker_restart(self) -> None:
        await self._restart("broker_restart", None)

    async def broker_forgets_second(self) -> None:
        await self._restart("broker_forgets_second", self._draw.random())

    async def broker_forgets_all(self) -> None:
        await self._restart("broker_forgets_all", -1.0)

    async def _restart(self, name: str, forgets: float | None) -> None:
        """It is away for a while; `forgets`: the last so many seconds, or everything where that is negative."""
        world = self._world
        if not world.network.up:
            return
        kept = None if forgets is None or forgets < 0 else world.store.data.copy()
        if kept is not None:
            assert forgets is not None
            await asyncio.sleep(forgets)
            if not world.network.up:
                return
        number = world.fault(name, BROKER, forgets=forgets is not None)
        world.network.go_down()
        if forgets is not None:
            world.store.restore(kept)
        await asyncio.sleep(self._draw.choice((0.05, 1.0, 4.0)))
        world.store.restarted()
        world.network.up = True
        world.mended(number)

    async def rebalance(self) -> None:
        """Kafka shares every queue out anew, for no reason that anybody knows."""
        world = self._world
        world.counts["fault rebalance"] += 1
        for name in list(world.store.data.queues):
            world.store.rebalance(name)

    async def broker_pause(self) -> None:
        """It takes everything and answers nothing for a while."""
        world = self._world
        number = world.fault("broker_pause", BROKER)
        world.loop.pause(world.site_host)
        await asyncio.sleep(self._draw.choice(LASTS))
        world.loop.resume(world.site_host)
        world.mended(number)

    # entries

    async def double(self) -> None:
        """Entries that wait or run are written once more."""
        world = self._world
        for name, queue in world.store.data.queues.items():
            for number in list(queue.entries):
                if self._draw.random() < 0.5 and queue.entries[number].message_id is not None:
                    world.counts["fault double"] += 1
                    world.store.double(name, number)

    async def garbage(self) -> None:
        """Entries that are no calls."""
        world = self._world
        bodies = (None, b"", b"{", b'{"py/object": "os.system"}', b"\xff" * 50, b'{"func_name": "work"}')
        for _ in range(3):
            world.counts["fault garbage"] += 1
            world.store.put("sim", self._draw.choice(bodies), {}, raw=self._draw.random() < 0.5)
