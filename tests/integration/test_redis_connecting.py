"""Getting to a Redis: passwords, databases, TLS, unix sockets, and errors that a beginner understands."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis_kit import connected, run, take_one

from prpc.brokers import create_broker
from prpc.brokers.base import Outgoing, Reply
from prpc.dev_broker import DevBroker
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings

pytestmark = pytest.mark.real_redis

Start = Callable[..., DevBroker]


async def _ping(url: str, connect_timeout: float) -> None:
    broker = create_broker(Settings(url_broker=url, connect_timeout=connect_timeout))
    await broker.connect()
    try:
        await broker.connect()  # once more: it changes nothing
        assert await broker.ping() > 0
    finally:
        await broker.close()
        await broker.close()


async def _exchange(url: str) -> None:
    """Calls and replies of every size, through all three kinds of connection."""
    async with connected(Settings(url_broker=url, queue_name="q")) as broker:
        mailbox = await broker.open_mailbox("q")
        consumer = broker.consume("q", consumer="one")
        for size in (1, 100_000, 3_000_000):
            call = Outgoing(uuid.uuid4(), b"x" * size, {})
            await broker.publish("q", call)
            delivery = await take_one(consumer)
            assert delivery.body == call.body
            assert await delivery.settle(Reply(call.message_id, b"y" * size, mailbox.address))
            assert list((await mailbox.receive()).bodies) == [b"y" * size]


def exchange(url: str) -> None:
    run(_exchange(url))


def ping(url: str) -> None:
    asyncio.run(_ping(url, 10))


def refusal(url: str, connect_timeout: float = 10) -> BrokerUnavailableError:
    with pytest.raises(BrokerUnavailableError) as caught:
        asyncio.run(_ping(url, connect_timeout))
    assert caught.value.url is not None
    assert caught.value.__cause__ is not None
    assert "s3cret" not in f"{caught.value} {caught.value.url}"
    return caught.value


@pytest.fixture
def impostor() -> Iterator[Callable[[bytes | None], int]]:
    """A port on which something that is no Redis answers: None closes the connection, an empty text keeps silent."""
    kept: list[socket.socket] = []

    def listen(answer: bytes | None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        kept.append(server)

        def serve() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            if answer is None:
                connection.close()
                return
            connection.sendall(answer)
            kept.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield listen
    for open_socket in kept:
        open_socket.close()


def test_nobody_listens() -> None:
    error = refusal("redis://user:s3cret@localhost:1/0")
    assert "nothing listens there" in str(error)
    assert "redis://user:***@localhost:1/0" in str(error)


def test_the_host_has_no_address() -> None:
    assert "does not resolve" in str(refusal("redis://no-such-host.invalid/0"))


def test_passwords(private_redis: Start) -> None:
    port = private_redis("--requirepass", "s3cret#?/").port
    ping(f"redis://:s3cret%23%3F%2F@127.0.0.1:{port}/0")
    ping(f"redis://default:s3cret%23%3F%2F@127.0.0.1:{port}/0")
    assert "the URL has none" in str(refusal(f"redis://127.0.0.1:{port}/0"))
    assert "refused the user name or the password" in str(refusal(f"redis://:s3cret@127.0.0.1:{port}/0"))
    assert "refused the user name or the password" in str(refusal(f"redis://u:s3cret@127.0.0.1:{port}/0"))


def test_a_password_for_a_redis_that_has_none(private_redis: Start) -> None:
    assert "has no password, but the URL names one" in str(refusal(f"redis://:s3cret@127.0.0.1:{private_redis().port}/0"))


def test_databases(private_redis: Start) -> None:
    port = private_redis("--databases", "2").port
    ping(f"redis://127.0.0.1:{port}/1")
    ping(f"redis://127.0.0.1:{port}?db=1")
    assert "has no database 2" in str(refusal(f"redis://127.0.0.1:{port}/2"))


def test_a_user_who_may_not_do_what_is_needed(private_redis: Start) -> None:
    port = private_redis().port
    with redis.Redis(port=port) as admin:
        admin.acl_setuser(
            "poor", enabled=True, passwords=["+s3cret"], keys=["*"], channels=["*"], categories=["+@all", "-@scripting"]
        )
    error = refusal(f"redis://poor:s3cret@127.0.0.1:{port}/0")
    assert "does not let this user do what PRPC needs" in str(error)


def test_a_connection_that_is_closed_at_once_leaves_nothing_open(private_redis: Start) -> None:
    """Before the tasks that keep it had their first step; an unclosed transport would be a warning, and so an error."""
    redis_ = private_redis()

    async def work() -> None:
        broker = create_broker(Settings(url_broker=redis_.url))
        await broker.connect()
        mailbox = await broker.open_mailbox("q")
        await mailbox.close()
        await broker.close()
        unused = create_broker(Settings(url_broker=redis_.url))
        await unused.connect()
        await unused.close()

    asyncio.run(work())
    gc.collect()


def test_unix_sockets(private_redis: Start, tmp_path: Path) -> None:
    private_redis("--unixsocket", str(tmp_path / "redis.sock"))
    ping(f"unix://{tmp_path}/redis.sock?db=3")
    exchange(f"unix://{tmp_path}/redis.sock?db=3")
    assert "No such file" in str(refusal(f"unix://{tmp_path}/other.sock"))


def test_tls(private_redis: Start, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, no certificate can be made")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([openssl, *words, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    try:
        plain = private_redis("--tls-port", str(port), *files, "--tls-auth-clients", "no").port
    except BrokerUnavailableError as exc:
        pytest.skip(f"this Redis was built without TLS: {exc}")
    ping(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
    exchange(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
    ping(f"rediss://localhost:{port}/0?ssl_cert_reqs=none")
    assert "certificate that is not trusted" in str(refusal(f"rediss://localhost:{port}/0"))
    assert "write rediss://" in str(refusal(f"redis://localhost:{port}/0"))
    assert "write redis://" in str(refusal(f"rediss://localhost:{plain}/0", connect_timeout=0.3))


def test_no_redis_at_all(impostor: Callable[[bytes | None], int]) -> None:
    http = impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "not as a Redis does" in str(refusal(f"redis://127.0.0.1:{http}/0"))
    assert "write rediss://" in str(refusal(f"redis://127.0.0.1:{impostor(None)}/0"))
    assert "did not answer within 0.3 s" in str(refusal(f"redis://127.0.0.1:{impostor(b'')}/0", connect_timeout=0.3))
    assert "does not speak TLS" in str(refusal(f"rediss://127.0.0.1:{impostor(b'+OK' + bytes([13, 10]))}/0"))


def test_a_redis_that_refuses_everything(private_redis: Start, impostor: Callable[[bytes | None], int]) -> None:
    denied = impostor(b"-DENIED Redis is running in protected mode\r\n")
    assert "refused: DENIED" in str(refusal(f"redis://127.0.0.1:{denied}/0"))
