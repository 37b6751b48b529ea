"""A Redis behind Sentinels: found, and found again after a failover."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from prpc.brokers import create_broker
from prpc.brokers.base import Outgoing, Reply
from prpc.dev_broker import DevBroker, find_server, free_port
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings

pytestmark = [pytest.mark.real_redis, pytest.mark.timeout(120)]

CONFIG = """
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor mymaster 127.0.0.1 {master} 1
sentinel down-after-milliseconds mymaster 300
sentinel failover-timeout mymaster 1000
sentinel auth-pass mymaster s3cret
requirepass watcher
"""


@pytest.fixture
def start_sentinel(private_redis: Callable[..., DevBroker], tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Starts a Sentinel that watches a master's port; its own port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(master: int) -> int:
        server, port = find_server(), free_port()
        assert server.executable is not None
        config = tmp_path / "sentinel.conf"
        config.write_text(CONFIG.format(port=port, directory=tmp_path, master=master))
        processes.append(subprocess.Popen([server.executable, str(config), "--sentinel"], stdout=subprocess.DEVNULL))
        return port

    yield start
    for process in processes:
        process.kill()
        process.wait()


async def wait_for_replica(sentinel: int, replica: int) -> None:
    """Until the Sentinel is up and knows a replica that is in step; it asks the master every ten seconds at the latest."""
    with redis.Redis(port=sentinel, password="watcher") as watcher, redis.Redis(port=replica, password="s3cret") as follower:
        while True:
            try:
                if watcher.sentinel_slaves("mymaster") and follower.info("replication")["master_link_status"] == "up":
                    return
            except redis.ConnectionError:
                pass
            await asyncio.sleep(0.05)


def test_a_failover_is_followed(private_redis: Callable[..., DevBroker], start_sentinel: Callable[[int], int]) -> None:
    options = ["--requirepass", "s3cret", "--masterauth", "s3cret", "--repl-diskless-sync-delay", "0"]
    master = private_redis(*options)
    replica = private_redis(*options, "--replicaof", "127.0.0.1", str(master.port))
    sentinel = start_sentinel(master.port)
    url = f"redis+sentinel://:s3cret@127.0.0.1:1,127.0.0.1:{sentinel}/mymaster/0?sentinel_password=watcher"
    settings = Settings(url_broker=url, queue_name="q", redis_heartbeat=0.5, redis_recover=2.0)

    async def work() -> None:
        await wait_for_replica(sentinel, replica.port)
        broker = create_broker(settings)
        await broker.connect()
        await broker.declare("q")
        mailbox = await broker.open_mailbox("q")
        consumer = broker.consume("q", consumer="one")
        call = Outgoing(uuid.uuid4(), b"before", {})
        await broker.publish("q", call)
        (delivery,) = await consumer.take(1)
        with redis.Redis(port=master.port, password="s3cret") as admin:
            admin.wait(1, 5000)
        master.process.kill()
        assert await delivery.settle(Reply(call.message_id, b"done", mailbox.address))
        mail = await mailbox.receive()
        assert b"done" in mail.bodies or (mail.gap and await mailbox.collect([call.message_id]))
        await broker.publish("q", Outgoing(uuid.uuid4(), b"after", {}))
        (second,) = await consumer.take(1)
        assert second.body == b"after"
        assert await second.settle(None)
        with redis.Redis(port=replica.port, password="s3cret") as admin:
            assert admin.xlen("prpc_q") == 0
            assert admin.role()[0] == b"master"
        await broker.close()

    asyncio.run(work())


def test_a_master_that_no_sentinel_knows(private_redis: Callable[..., DevBroker], start_sentinel: Callable[[int], int]) -> None:
    sentinel = start_sentinel(private_redis("--requirepass", "s3cret").port)

    async def refusal(password: str, master: str) -> str:
        broker = create_broker(
            Settings(url_broker=f"redis+sentinel://:s3cret@127.0.0.1:{sentinel}/{master}?sentinel_password={password}")
        )
        with pytest.raises(BrokerUnavailableError) as caught:
            await broker.connect()
        assert "s3cret" not in str(caught.value)
        return str(caught.value)

    assert "knows a running master 'other'" in asyncio.run(refusal("watcher", "other"))
    assert "no Sentinel of 127.0.0.1" in asyncio.run(refusal("wrong", "mymaster"))
