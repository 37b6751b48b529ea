"""Into a Kafka that asks who we are: passwords, SCRAM and TLS on a real one, and what is said where we are not let in."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prpc import AppServer, AsyncClient
from prpc.brokers import create_broker
from prpc.dev_broker import KafkaCluster, KafkaKit
from prpc.dev_broker.kafka import JVM
from prpc.dev_kafka import FakeKafka
from prpc.exceptions import BrokerUnavailableError
from prpc.settings import Settings

PASSWORD = "s3cret word"
QUOTED = "s3cret%20word"


async def serves(url: str, **settings: str) -> None:
    """A call goes through a server and a client that connect so."""
    app = AppServer("kafka", url, "async", 2, name_queue="connecting", **settings)  # type: ignore[arg-type]

    @app.function()
    async def double(x: int) -> int:
        return 2 * x

    task = asyncio.create_task(app.serve())
    await app.ready
    async with AsyncClient("kafka", url, "connecting", **settings) as client:
        assert await client.call("double", 4) == 8
    await app.stop()
    await task


async def refused(url: str, **settings: str) -> str:
    """What is said; soon enough, and never the password."""
    broker = create_broker(Settings(type_broker="kafka", url_broker=url, connect_timeout=4.0, **settings))  # type: ignore[arg-type]
    with pytest.raises(BrokerUnavailableError) as caught:
        await broker.connect()
    await broker.close()
    assert PASSWORD not in str(caught.value) and QUOTED not in str(caught.value) and "wr0ng" not in str(caught.value)
    return str(caught.value)


def run(scenario: object) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))  # type: ignore[arg-type]
    gc.collect()  # a connection that was left open says so


def test_a_password_for_the_one_in_memory() -> None:
    async def scenario(address: str) -> None:
        await serves(f"kafka://alice:{QUOTED}@{address}")
        await serves(f"kafka://{address}", kafka_username="alice", kafka_password=PASSWORD)
        assert "refuses the user or the password" in await refused(f"kafka://alice:wr0ng@{address}")
        assert "127.0.0.1" in await refused(f"kafka://{address}")

    with FakeKafka(users={"alice": PASSWORD}) as fake:
        run(scenario(fake.bootstrap_servers))


def test_nobody_there_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def scenario() -> None:
        text = await refused(f"127.0.0.1:{port}")
        assert "does not answer" in text and "python -m prpc.dev_broker --kafka" in text

    run(scenario())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with `cert.pem`, and `both.pem` that holds its key, too."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, no certificate can be made")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kafka"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([openssl, *words, *names, *files], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    return tmp_path


SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@pytest.mark.real_kafka
def test_passwords_scram_and_tls_of_a_real_one(
    private_kafka: Callable[..., KafkaCluster], kafka_kit: KafkaKit, certificate: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        tls = f"127.0.0.1:{free.getsockname()[1]}"
    cluster = private_kafka(
        users={"alice": PASSWORD},
        options={
            "+listeners": f"TLS://{tls}",
            "+advertised.listeners": f"TLS://{tls}",
            "+listener.security.protocol.map": "TLS:SASL_SSL",
            "listener.name.client.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "listener.name.tls.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "inter.broker.listener.name": "CLIENT",
            "listener.name.client.scram-sha-256.sasl.jaas.config": SCRAM,
            "listener.name.tls.scram-sha-512.sasl.jaas.config": SCRAM,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate / "both.pem"),
        },
    )
    add_users(kafka_kit, cluster, certificate, {"bob": "SCRAM-SHA-256", "carol": "SCRAM-SHA-512"})
    cafile = certificate / "cert.pem"

    async def scenario() -> None:
        await serves(f"kafka://alice:{QUOTED}@{cluster.url}")
        assert "refuses the user or the password" in await refused(f"kafka://alice:wr0ng@{cluster.url}")
        await serves(f"kafka://bob:{QUOTED}@{cluster.url}?sasl_mechanism=SCRAM-SHA-256")
        wrong = await refused(f"kafka://bob:wr0ng@{cluster.url}", kafka_sasl_mechanism="SCRAM-SHA-256")
        assert "refuses the user or the password" in wrong
        await serves(f"kafka+ssl://carol:{QUOTED}@{tls}?sasl_mechanism=SCRAM-SHA-512&ssl_cafile={cafile}")
        untrusted = await refused(f"kafka+ssl://carol:{QUOTED}@{tls}?sasl_mechanism=SCRAM-SHA-512")
        assert "certificate verify failed" in untrusted

    run(scenario())


def add_users(kit: KafkaKit, cluster: KafkaCluster, folder: Path, mechanisms: Mapping[str, str]) -> None:
    """Some who log in by SCRAM: made by Kafka's own command, a JVM for each."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    (folder / "admin.properties").write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        f'sasl.jaas.config={login} username="alice" password="{PASSWORD}";\n'
    )
    tool = [kit.java, *JVM, "-cp", kit.class_path, "kafka.admin.ConfigCommand", "--bootstrap-server", cluster.url]
    tool += ["--command-config", str(folder / "admin.properties"), "--alter", "--entity-type", "users"]
    running = []
    for name, mechanism in mechanisms.items():
        words = ["--entity-name", name, "--add-config", f"{mechanism}=[iterations=4096,password={PASSWORD}]"]
        running.append(subprocess.Popen([*tool, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for process in running:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
