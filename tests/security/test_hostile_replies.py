"""Hostile replies, results, control messages and announcements between good calls: nobody is stopped, and each is seen."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hostile_doors import RedisDoor, until
from hostile_replies import announcement, broken_frame, control, garbage, reply_body
from hostile_world import SEED, World, opened

from prpc import status
from prpc.app_client import AwaitableTask
from prpc.brokers.redis_batch import frame
from prpc.exceptions import CallCancelledError, DecodeError
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis

#: Hostile replies, and how many of them stand between two good calls.
REPLIES, WINDOW = 1600, 20
CONTROLS, ANNOUNCEMENTS, SPOILT = 600, 200, 30


class Seen(logging.Handler):
    """How often a log line began with each of these texts."""

    def __init__(self, *starts: str) -> None:
        super().__init__(logging.WARNING)
        self.starts, self.counts = starts, Counter[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts.update(start for start in self.starts if str(record.msg).startswith(start))

    def __enter__(self) -> Seen:
        logging.getLogger("prpc").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("prpc").removeHandler(self)


@pytest.fixture
def run(settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario in a world of its own, on Redis."""

    def start(scenario: Callable[[World, RedisDoor, Random], Any], **more: Any) -> None:
        async def work() -> None:
            async with opened(settings_for("redis", **more), monkeypatch, processes=False) as world:
                assert isinstance(world.door, RedisDoor)
                await scenario(world, world.door, Random(SEED))
                world.check_server()
                await world.check_table()

        try:
            asyncio.run(work())
        except BaseException as exc:
            exc.add_note(f"seed {SEED}")
            raise

    return start


async def publish(door: RedisDoor, channel: str, payloads: list[bytes]) -> None:
    async with door.redis.pipeline(transaction=False) as pipe:
        for payload in payloads:
            pipe.publish(channel, payload)
        await pipe.execute()


def test_a_hostile_mailbox(run: Callable[..., None]) -> None:
    """Each body is refused, or belongs to a call that is not there; each payload that is no frame is refused as a whole."""

    async def scenario(world: World, door: RedisDoor, rng: Random) -> None:
        connection = world.client.channel.pump()._connection
        assert connection is not None
        mailbox, forget = connection.mailbox, connection.mailbox.forget
        strangers: list[UUID] = []
        monkeypatched: Any = mailbox
        monkeypatched.forget = lambda ids: (strangers.extend(set(ids) - world.ledger.known), forget(ids))
        sent = 0
        channel = door.names.reply(mailbox.address)
        with Seen("a reply on", "a wake-up cannot be read") as seen:
            for _ in range(REPLIES // WINDOW):
                payloads = [payload_of(rng) for _ in range(WINDOW)]
                sent += sum(bodies for _, bodies in payloads)
                await world.check_good(*world.start_good(rng))
                await publish(door, channel, [payload for payload, _ in payloads])
                await world.check_good(*world.start_good(rng))
            accounted = seen.counts.total() + len(strangers)
            assert accounted == sent >= REPLIES, f"{seen.counts}, {len(strangers)} replies to strangers"

    run(scenario)


def payload_of(rng: Random) -> tuple[bytes, int]:
    """What is pushed to a mailbox, and for how many replies it counts."""
    if rng.random() < 0.1:
        return broken_frame(rng), 1
    bodies = [reply_body(rng) for _ in range(rng.choice((1, 1, 2, 5)))]
    if rng.random() < 0.1:
        return frame(bodies) + b"9999999:" + reply_body(rng), len(bodies) + 1  # cut off
    if rng.random() < 0.1:
        return frame(bodies) + broken_frame(rng), len(bodies) + 1
    return frame(bodies), len(bodies)


async def spoil(door: RedisDoor, key: str, rng: Random) -> bool:
    """Put something in the place of a result; whether it is a text."""
    kind = rng.randrange(6)
    await door.redis.delete(key)
    if kind == 0:
        await door.redis.rpush(key, "x")
    elif kind == 1:
        await door.redis.hset(key, "a", "b")
    elif kind == 2:
        await door.redis.xadd(key, {"a": "b"})
    else:
        await door.redis.set(key, garbage(rng))
    await door.redis.expire(key, 600)
    return kind > 2


async def end_of_spoilt(task: AwaitableTask[Any], door: RedisDoor, *, signed: bool) -> None:
    """Its caller is told; with a key it believes nothing of it, and waits."""
    await until(door.quiet, "entries are left in the queue")
    if not signed:
        with pytest.raises(DecodeError, match="cannot be read"):
            await task
    else:
        assert task.cancel()
        with pytest.raises(CallCancelledError):
            await task


@pytest.mark.parametrize("secret", ["", "k" * 40], ids=["unsigned", "signed"])
def test_rubbish_in_the_place_of_a_result(run: Callable[..., None], secret: str) -> None:
    """What is no text is no outcome at all. Its neighbours get theirs in any case."""

    async def scenario(world: World, door: RedisDoor, rng: Random) -> None:
        for number in range(SPOILT):
            gated = [await world.start_gated(f"{number} {n}") for n in range(3)]
            (first, _), (spoilt, _), (last, _) = gated
            is_text = await spoil(door, door.names.feedback(spoilt.message.message_id), rng)
            good = world.start_good(rng)
            for _, gate in gated:
                gate.set()
            await world.check_good(*good)
            assert [await first, await last] == [f"{number} 0", f"{number} 2"]
            if is_text:
                await end_of_spoilt(spoilt, door, signed=bool(secret))
            else:
                assert await spoilt == f"{number} 1"
            await spoil(door, door.names.feedback(first.message.message_id), rng)
            assert await first == f"{number} 0"
        await until(door.quiet, "entries are left in the queue")

    run(scenario, secret_key=secret)


def test_hostile_control_messages(run: Callable[..., None]) -> None:
    async def scenario(world: World, door: RedisDoor, rng: Random) -> None:
        refused = 0
        with Seen("a control message was refused") as seen:
            for _ in range(CONTROLS // WINDOW):
                messages = [control(rng) for _ in range(WINDOW)]
                refused += sum(is_refused for _, is_refused in messages)
                await publish(door, door.names.control, [body for body, _ in messages])
                await world.check_good(*world.start_good(rng))

            async def all_seen() -> bool:
                return seen.counts.total() == refused

            await until(all_seen, f"{refused} of {CONTROLS} control messages had to be refused")
        assert world.dispatcher._table._early

    run(scenario)


def test_hostile_announcements(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redis_url: str, queue: str
) -> None:
    monkeypatch.setenv("PRPC_URL_BROKER", redis_url)
    monkeypatch.setenv("PRPC_QUEUE_NAME", queue)

    async def scenario(world: World, door: RedisDoor, rng: Random) -> None:
        for start in range(0, ANNOUNCEMENTS, WINDOW):
            names = []
            for _ in range(WINDOW):
                name, score, record = announcement(rng)
                names.append(name)
                key = door.names.server("").encode() + name
                await door.redis.zadd(door.names.servers, {name: score})
                await door.redis.set(key, record, ex=600)
            await world.check_good(*world.start_good(rng))
            assert await world.client.ping() == "pong"
            assert await world.client.options(require_server=True).call("join", ["a", "b"]) == "a-b"
            servers = await world.client.servers()
            assert [s.info["capacity"] for s in servers if s.instance == world.app.settings.instance_name] == [8]
            if start % (5 * WINDOW) == 0:
                for as_json in (True, False):
                    await asyncio.to_thread(status.servers, 5.0, as_json=as_json)
                    await asyncio.to_thread(status.running, 5.0, as_json=as_json)
                assert await asyncio.to_thread(status.health, world.app.settings.instance_name, 5.0) == 0
            await door.redis.zrem(door.names.servers, *names)
        capsys.readouterr()

    run(scenario)
