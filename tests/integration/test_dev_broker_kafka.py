"""The Kafka for development: the command, a real one that is killed and comes back, and what is done where there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prpc.dev_broker import KafkaCluster, KafkaKit, command, find_kafka, java, kafka, kafka_start, main, start_dev_kafka
from prpc.dev_broker.java import jars_folder, kafka_version
from prpc.dev_kafka import FakeKafka
from prpc.dev_kafka.__main__ import main as memory_main
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from tests import kafka_desk
from tests.kafka_talk import Kafka, consumer, new_topic, producer, run


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- the command ---------------------------------------------------------------------------------------------------------


async def works(broker: Kafka) -> None:
    topic = await new_topic(broker)
    async with producer(broker) as out, consumer(broker, topic) as back:
        await out.send_and_wait(topic, b"x")
        assert (await back.getone()).value == b"x"


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.real_kafka)])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m prpc.dev_broker --kafka --port 0`, and where it listens."""
    # Its folder is left behind when it is killed.
    monkeypatch.setenv("TMPDIR", str(request.getfixturevalue("tmp_path")))
    if request.param == "real":
        monkeypatch.setenv("PRPC_KAFKA_JARS", str(request.getfixturevalue("kafka_kit").folder))
    else:
        request.getfixturevalue("no_java")
    words = [sys.executable, "-m", "prpc.dev_broker", "--kafka", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if line.startswith("PRPC_URL_BROKER="):
                break
        assert said[-2] == "PRPC_TYPE_BROKER=kafka"
        assert ("Not the real one" in said[0]) == (request.param == "memory")
        yield process, said[-1].partition("=")[2]
        process.kill()


def test_the_command_serves_and_takes_its_server_along(running: tuple[subprocess.Popen[str], str]) -> None:
    process, url = running
    run(works(Kafka(url)))
    # The server of a command that was killed is the harder case: nobody is left to end it.
    process.send_signal(signal.SIGKILL if sys.platform == "linux" else signal.SIGTERM)
    process.wait()
    while listens(int(url.rpartition(":")[2])):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_a_signal(
    no_java: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    real = start_dev_kafka
    ports = []

    def start(port: int, *, say: Callable[[str], None]) -> object:
        broker = real(port, say=say)
        ports.append(broker.port)
        os.kill(os.getpid(), number)
        return broker

    monkeypatch.setattr(command, "start_dev_kafka", start)
    assert main(["--kafka", "--port", "0"]) == 0
    said = capsys.readouterr().out
    assert "in memory" in said and f"PRPC_TYPE_BROKER=kafka\nPRPC_URL_BROKER=127.0.0.1:{ports[0]}\n" in said
    assert not listens(ports[0])


def test_the_command_names_what_is_wrong(
    no_java: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--kafka", "--port", str(taken.getsockname()[1])]) == 1
    assert "is taken" in capsys.readouterr().err
    assert main(["--kafka", "--fetch"]) == 1
    assert "needs Java 17" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--fetch"])
    monkeypatch.setattr(kafka_start, "find_spec", lambda name: None)
    assert main(["--kafka"]) == 1
    assert 'pip install "prpc[kafka]"' in capsys.readouterr().err


def test_the_broker_in_memory_as_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-m", "prpc.dev_kafka", "--auto-create"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        async def scenario() -> None:
            async with producer(Kafka(url)) as out:
                await out.send_and_wait("by-itself", b"x")

        run(scenario())
        process.terminate()
        assert process.wait(20) == 0
    with pytest.raises(SystemExit):
        memory_main(["--port", "x"])


def test_a_broker_in_memory_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeKafka() as other:
        monkeypatch.setattr(kafka_start, "check_free", lambda port: None)
        # The port answers, but it is not ours: the program has ended.
        monkeypatch.setattr(socket, "create_connection", refuse)
        with pytest.raises(BrokerUnavailableError, match="last words"):
            kafka_start.start_memory_kafka(other.port)


def refuse(*arguments: object, **more: object) -> None:
    raise ConnectionRefusedError


# -- Java, Maven and the jars --------------------------------------------------------------------------------------------


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def a_java(folder: Path, version: str) -> Path:
    return program(folder, "java", f"""echo 'openjdk version "{version}" 2025-04-15' >&2""")


def test_what_a_real_kafka_needs(tmp_path: Path) -> None:
    jars = tmp_path / "jars"
    environ = {"PATH": f"{tmp_path}/bin", "PRPC_KAFKA_JARS": str(jars)}
    assert find_kafka(environ) is None
    program(tmp_path / "bin", "java", "exit 1")
    assert find_kafka(environ) is None
    a_java(tmp_path / "bin", "11.0.2")
    assert find_kafka(environ) is None
    new = a_java(tmp_path / "home" / "bin", "21")
    assert find_kafka({**environ, "JAVA_HOME": str(tmp_path / "home")}) is None
    jars.mkdir()
    (jars / "kafka_2.13-4.1.1.jar").touch()
    kit = find_kafka({**environ, "JAVA_HOME": str(tmp_path / "home")})
    assert kit == KafkaKit(str(new), "21", jars, None)
    assert kit.kind == f"Apache Kafka 4.1.1 (Java 21, jars in {jars})"
    (tmp_path / "bin" / "java").write_text("no program")
    assert find_kafka(environ) is None
    a_java(tmp_path / "bin", "17.0.15")
    found = find_kafka(environ)
    assert found is not None and found.fetched and found.maven is None


def test_where_the_jars_are() -> None:
    name = f"prpc-kafka-{kafka_version()}"
    assert jars_folder({}) == Path.home() / ".cache" / name
    assert jars_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache") / name
    assert jars_folder({"XDG_CACHE_HOME": "/cache", "PRPC_KAFKA_JARS": "~/jars"}) == Path.home() / "jars"


FAKE_MAVEN = """
for word in "$@"; do
  case $word in -DoutputDirectory=*) folder=${word#-DoutputDirectory=};; esac
done
touch "$folder/kafka_2.13-4.1.1.jar" "$folder/other.jar"
echo called >> "$0.calls"
"""


def test_maven_fetches_the_jars_once(tmp_path: Path) -> None:
    maven = program(tmp_path, "mvn", FAKE_MAVEN)
    kit = KafkaKit("java", "17", tmp_path / "deep" / "jars", str(maven))
    said: list[str] = []
    assert not kit.fetched and kafka_version() in kit.kind
    kit.fetch(said.append)
    kit.fetch(said.append)
    assert kit.fetched
    assert kit.class_path == f"{kit.folder}/kafka_2.13-4.1.1.jar:{kit.folder}/other.jar"
    assert [line for line in said if "Fetching Kafka" in line] == said and len(said) == 1
    assert (tmp_path / "mvn.calls").read_text() == "called\n"
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["jars", "jars.lock"]


@pytest.mark.parametrize(
    ("text", "error"),
    [("echo '[ERROR] no network'; exit 1", "no network"), ("exit 1", "said nothing"), (None, "mvn"), ("", "no Maven")],
)
def test_jars_that_cannot_be_fetched(tmp_path: Path, text: str | None, error: str) -> None:
    maven = program(tmp_path, "mvn", text) if text else tmp_path / "no-mvn"
    kit = KafkaKit("java", "17", tmp_path / "jars", None if text == "" else str(maven))
    with pytest.raises(ConfigurationError, match=error):
        kit.fetch(print)
    assert not kit.fetched


def test_a_fetch_that_fails_leaves_the_one_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kit = KafkaKit("java", "17", tmp_path / "jars", str(program(tmp_path, "mvn", "echo no network; exit 1")))
    monkeypatch.setattr(kafka_start, "find_kafka", lambda: kit)
    said: list[str] = []
    with start_dev_kafka(say=said.append) as broker:
        assert "in memory" in broker.kind
    assert "no network" in said[-1]


def test_preparing_is_done_once_for_each_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def record(kit: KafkaKit, folder: Path) -> None:
        (folder / "classes.jsa").touch()

    monkeypatch.setattr(kafka, "_record", record)
    said: list[str] = []
    for version in ("17", "17", "21"):
        kit = KafkaKit("java", version, tmp_path, None)
        kafka.prepare(kit, said.append)
        assert kit.archive.exists()
    assert len(said) == 2
    monkeypatch.setattr(kafka, "_record", lambda kit, folder: refuse())
    kafka.prepare(KafkaKit("java", "25", tmp_path, None), said.append)
    assert "slower" in said[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared-java-17", "prepared-java-21"]


def test_a_port_that_was_taken_in_between_is_another_ones(tmp_path: Path) -> None:
    prepared = tmp_path / "prepared-java-17"
    prepared.mkdir()
    (prepared / "bootstrap.checkpoint").touch()
    text = f"echo start >> {tmp_path}/starts; echo 'java.net.BindException: Address already in use'; exit 1"
    kit = KafkaKit(str(program(tmp_path, "java", text)), "17", tmp_path, None)
    with pytest.raises(BrokerUnavailableError, match="in use"):
        KafkaCluster.start(kit)
    assert (tmp_path / "starts").read_text() == "start\n" * kafka.PORT_TRIES


def test_a_kafka_that_never_gets_ready_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared-java-17"
    prepared.mkdir()
    (prepared / "bootstrap.checkpoint").touch()
    monkeypatch.setattr(kafka, "START_PATIENCE", 0.3)
    kit = KafkaKit(str(program(tmp_path, "java", "exec sleep 100")), "17", tmp_path, None)
    with pytest.raises(BrokerUnavailableError, match=r"did not get ready in time; the end of its log:\n\(empty\)"):
        KafkaCluster.start(kit)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="is taken"):
        KafkaCluster.start(kit, port=taken.getsockname()[1])


def test_a_broken_java_is_an_error(tmp_path: Path) -> None:
    kit = KafkaKit(str(program(tmp_path, "java", "echo broken; exit 1")), "17", tmp_path, None)
    with pytest.raises(BrokerUnavailableError, match="broken"):
        KafkaCluster.start(kit)


def test_fetching_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = KafkaKit("java", "17", tmp_path / "jars", str(program(tmp_path, "mvn", FAKE_MAVEN)))
    monkeypatch.setattr(kafka_start, "find_kafka", lambda: kit)
    monkeypatch.setattr(kafka_start, "prepare", lambda kit, say: say("prepared"))
    assert main(["--kafka", "--fetch"]) == 0
    assert "prepared\nReady: Apache Kafka" in capsys.readouterr().out


# -- one for all workers -------------------------------------------------------------------------------------------------


def test_the_desk_says_why_there_is_none() -> None:
    desk = kafka_desk.Desk({"PATH": ""})
    try:
        for _ in range(2):
            with pytest.raises(kafka_desk.NoKafka, match="Java 17"):
                kafka_desk.ask_desk(desk.port)
    finally:
        desk.close()
    assert not listens(desk.port)


def test_the_desk_hands_an_error_on(tmp_path: Path) -> None:
    a_java(tmp_path, "17")
    (tmp_path / "kafka_2.13-4.1.1.jar").touch()
    (tmp_path / "prepared-java-17").mkdir()
    (tmp_path / "prepared-java-17" / "classes.jsa").touch()
    desk = kafka_desk.Desk({"PATH": str(tmp_path), "PRPC_KAFKA_JARS": str(tmp_path)})
    try:
        with pytest.raises(RuntimeError, match="ended by itself"):
            kafka_desk.ask_desk(desk.port)
    finally:
        desk.close()


def test_maven_has_a_pom() -> None:
    assert java.POM.is_file()
