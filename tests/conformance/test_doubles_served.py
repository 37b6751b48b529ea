"""At most once through whole servers: what runs is counted in the function itself."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest
from broker_harness import Harness, connected, run

from prpc.app_server import AppServer
from prpc.brokers.base import Mailbox, Outgoing
from prpc.codec import Codec
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

CODEC = Codec()


class Ledger:
    """Two servers of one queue, and how often each call ran."""

    def __init__(self, settings: Settings) -> None:
        self.ran: Counter[int] = Counter()
        self.gate = asyncio.Event()
        self.settings = settings

    def server(self) -> AppServer:
        settings = self.settings
        app = AppServer(
            settings.type_broker,
            settings.url_broker,
            "async",
            8,
            name_queue=settings.queue_name,
            redis_heartbeat=settings.redis_heartbeat,
            redis_recover=settings.redis_recover,
            kafka_queue_partitions=settings.kafka_queue_partitions or None,
        )

        @app.decorator_reg_func
        async def work(number: int) -> int:
            self.ran[number] += 1
            await self.gate.wait()
            return number

        return app


@asynccontextmanager
async def serving(ledger: Ledger, servers: int = 2) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(servers):
            app = ledger.server()
            task = asyncio.create_task(app.serve())
            stack.push_async_callback(_stop, app, task)
            await app.ready
        yield


async def _stop(app: AppServer, task: asyncio.Task[None]) -> None:
    await app.stop(grace=5)
    await task


def written(number: int, address: str) -> Outgoing:
    message = PRPCMessage("work", (number,), {}, uuid.uuid4(), datetime.now(UTC))
    return Outgoing(message.message_id, CODEC.write_call(message), {"reply_to": address}, address)


async def outcomes(mailbox: Mailbox, count: int) -> dict[uuid.UUID, int]:
    """Results of so many different calls."""
    found: dict[uuid.UUID, int] = {}
    while len(found) < count:
        for body in (await mailbox.receive()).bodies:
            reply = CODEC.read_reply(body)
            if reply.message_id in found and reply.failure is not None:
                continue  # the end of a call that had its outcome was not written down: its callers take the first one
            assert reply.failure is None, reply.failure
            assert found.setdefault(reply.message_id, reply.result) == reply.result
    return found


@pytest.mark.parametrize("doubled", ["before the servers start", "while the first runs"])
def test_doubled_calls_run_once_and_every_caller_is_answered(settings: Settings, harness: Harness, doubled: str) -> None:
    async def scenario() -> None:
        ledger = Ledger(settings)
        async with connected(settings) as broker:
            mailbox, other = [await broker.open_mailbox(settings.queue_name) for _ in range(2)]
            calls = [written(number, mailbox.address) for number in range(100)]

            def double() -> None:
                for call in calls:
                    for address in (mailbox.address, other.address):
                        harness.put({"message": call.body, "reply_to": address.encode()}, raw=False)

            await asyncio.gather(*(broker.publish(settings.queue_name, call) for call in calls))
            if doubled == "before the servers start":
                double()
                ledger.gate.set()
            async with serving(ledger):
                if doubled == "while the first runs":
                    while len(ledger.ran) < 16:
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(double)  # the servers' loop goes on
                    ledger.gate.set()
                expected = {call.message_id: number for number, call in enumerate(calls)}
                assert await outcomes(mailbox, 100) == expected
                assert await outcomes(other, 100) == expected
            assert ledger.ran == Counter(range(100))

    run(scenario())


def test_raw_calls_that_stand_twice_run_once(settings: Settings, harness: Harness) -> None:
    async def scenario() -> None:
        ledger = Ledger(settings)
        ledger.gate.set()
        ids = [uuid.uuid4() for _ in range(50)]
        for _ in range(2):
            for number, message_id in enumerate(ids):
                text = {
                    "func_name": "work",
                    "func_args": [number],
                    "func_kwargs": {},
                    "message_id": str(message_id),
                    "date_create_message": datetime.now(UTC).isoformat(),
                }
                harness.put({"message": json.dumps(text).encode()}, raw=True)
        async with serving(ledger):
            while not all([await asyncio.to_thread(harness.kept_raw, message_id) for message_id in ids]):
                await asyncio.sleep(0.01)
        assert ledger.ran == Counter(range(50))

    run(scenario())


def test_servers_that_stop_give_back_what_the_next_ones_run_once(settings: Settings, harness: Harness) -> None:
    async def scenario() -> None:
        ledger = Ledger(settings)
        async with connected(settings) as broker:
            mailbox = await broker.open_mailbox(settings.queue_name)
            calls = [written(number, mailbox.address) for number in range(60)]
            for call in calls:
                await broker.publish(settings.queue_name, call)
                harness.put({"message": call.body, "reply_to": mailbox.address.encode()}, raw=False)
            async with serving(ledger):
                while len(ledger.ran) < 8:
                    await asyncio.sleep(0.01)
                ledger.gate.set()
            async with serving(ledger):
                assert await outcomes(mailbox, 60) == {call.message_id: number for number, call in enumerate(calls)}
            assert ledger.ran == Counter(range(60))

    run(scenario())
