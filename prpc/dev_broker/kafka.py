"""A real Kafka (KRaft) for development and tests: one JVM for each node, on loopback, in a folder that is removed at the end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from prpc.dev_broker.children import check_free, free_port, last_words, spawn, stop
from prpc.dev_broker.java import KafkaKit
from prpc.dev_broker.kafka_conf import BROKER_PASSWORD, BROKER_USER, NodeConf
from prpc.exceptions import BrokerUnavailableError

__all__ = ["KafkaCluster", "KafkaNode", "prepare"]

#: Seconds within which a node must do its work.
START_PATIENCE = 90.0
#: Seconds that a node has to end before it is killed.
STOP_PATIENCE = 30.0
#: Seconds between two looks at a node that starts.
PAUSE = 0.03
#: Times that free ports are looked for, since another program may take them in between.
PORT_TRIES = 3
#: Lines of its log that an error shows of a node that did not start.
LAST_WORDS = 20
#: Lines in which the reason of an early end stands.
LONG_LOG = 200

#: A small heap, and no compiler that pays only for long runs: most starts are for some seconds of tests.
JVM = (
    "-Xms128m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Dlog4j2.level=WARN",
)


@dataclass(frozen=True, slots=True)
class _Launch:
    """What all JVMs of a cluster are started with."""

    kit: KafkaKit
    jvm: Sequence[str]
    lasting_thread: bool
    # Kafka's own ids are 16 bytes in URL-safe base64; any text without surprises does.
    cluster_id: str = field(default_factory=lambda: uuid.uuid4().hex[:22])


class KafkaNode:
    """One broker, which is a controller as well. Its cluster makes it."""

    def __init__(self, launch: _Launch, conf: NodeConf) -> None:
        self.number = conf.number
        self.port = conf.port
        #: What the node writes.
        self.log = conf.directory / "log"
        #: Whether it was told to run; it may have ended by itself since.
        self.wanted = False
        self._launch = launch
        self._kit = launch.kit
        self._conf = conf
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The JVM; tests stop and continue it."""
        assert self._process is not None, f"node {self.number} was not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the JVM, on the data that is there. Does not wait until it serves; idempotent."""
        self.wanted = True
        if self.running:
            return
        if not self._conf.data.exists():
            self._format()
        classes = [f"-XX:SharedArchiveFile={self._kit.archive}"] if self._kit.archive.exists() else []
        command = self._java(*classes, *self._launch.jvm, "-cp", self._kit.class_path, "kafka.Kafka", str(self._file))
        self._process = spawn(command, self.log, lasting_thread=self._launch.lasting_thread)

    def kill(self) -> None:
        """End the JVM at once, as kill -9 does; the data stays as it is. Idempotent."""
        self.wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End the JVM in order; the data stays. Idempotent."""
        self.wanted = False
        if self._process is not None:
            stop(self._process, STOP_PATIENCE)

    @property
    def _file(self) -> Path:
        return self._conf.directory / "server.properties"

    def _java(self, *words: str) -> list[str]:
        return [self._kit.java, *JVM, *words]

    def _format(self) -> None:
        """What StorageTool does; its result but for two ids is always the same, and another JVM would cost a second."""
        self._conf.directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(self._conf.properties(), encoding="utf-8")
        if self._kit.checkpoint.exists():
            self._conf.data.mkdir()
            shutil.copy(self._kit.checkpoint, self._conf.data / "bootstrap.checkpoint")
            text = f"version=1\ncluster.id={self._launch.cluster_id}\nnode.id={self.number}\n"
            (self._conf.data / "meta.properties").write_text(text, encoding="utf-8")
            return
        tool = ["-cp", self._kit.class_path, "kafka.tools.StorageTool", "format"]
        words = [*tool, "-t", self._launch.cluster_id, "-c", str(self._file)]
        done = subprocess.run(self._java(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise BrokerUnavailableError(f"Kafka could not format its folder: {done.stdout}{done.stderr}")


class _PortTaken(BrokerUnavailableError):
    """Another program was quicker."""


class KafkaCluster:
    """A real Kafka of one or more nodes. Made with `start`; use it with `with`, or call `close`."""

    type_broker = "kafka"

    def __init__(self, kit: KafkaKit, nodes: Sequence[KafkaNode], directory: Path, user: tuple[str, str] | None) -> None:
        #: For people: what it is.
        self.kind = kit.kind
        #: Node 1 first.
        self.nodes = nodes
        self._directory = directory
        self._user = user

    @classmethod
    def start(
        cls,
        kit: KafkaKit,
        nodes: int = 1,
        *,
        port: int = 0,
        users: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        jvm: Sequence[str] = (),
        lasting_thread: bool = False,
    ) -> KafkaCluster:
        """Start so many nodes and return when all do their work; the first one listens on `port` of 127.0.0.1 (0: a free one).

        With `users` (name -> password) clients have to log in with SASL PLAIN. `options` are more settings of server.properties,
        `jvm` more words for Java. `lasting_thread`: see `spawn`. Raises ConfigurationError where the port is taken,
        BrokerUnavailableError with the end of the log where a node does not start.
        """
        if port:
            check_free(port)
        launch = _Launch(kit, jvm, lasting_thread)
        for _ in range(PORT_TRIES - 1):
            with contextlib.suppress(_PortTaken):
                return cls._make(launch, nodes, port, users or {}, options or {})._started()
        return cls._make(launch, nodes, port, users or {}, options or {})._started()

    def _started(self) -> KafkaCluster:
        try:
            for node in self.nodes:
                node.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def _make(cls, launch: _Launch, count: int, port: int, users: Mapping[str, str], options: Mapping[str, str]) -> KafkaCluster:
        directory = Path(tempfile.mkdtemp(prefix="prpc-dev-kafka-"))
        voters = {number: free_port() for number in range(1, count + 1)}
        nodes = []
        for number in voters:
            listen = port if port and number == 1 else free_port()
            conf = NodeConf(number, listen, voters, directory / str(number), users, options)
            nodes.append(KafkaNode(launch, conf))
        return cls(launch.kit, nodes, directory, (BROKER_USER, BROKER_PASSWORD) if users else None)

    @property
    def url(self) -> str:
        """What PRPC_URL_BROKER says for it, and aiokafka's bootstrap_servers."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def port(self) -> int:
        """Where the first node listens on 127.0.0.1."""
        return self.nodes[0].port

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The first node's JVM."""
        return self.nodes[0].process

    def wait_ready(self) -> None:
        """Return when every node that was told to run knows all of them, and topics and groups work.

        Raises BrokerUnavailableError with the end of a log after START_PATIENCE seconds, or when a node ends.
        """
        from prpc.dev_kafka.ask import is_ready

        until = time.monotonic() + START_PATIENCE
        wanted = [node for node in self.nodes if node.wanted]
        for node in wanted:
            while True:
                if not node.running or time.monotonic() > until:
                    raise self._failed(node)
                with contextlib.suppress(OSError, EOFError):
                    if is_ready(node.port, len(wanted), self._user):
                        break
                time.sleep(PAUSE)

    def _failed(self, node: KafkaNode) -> BrokerUnavailableError:
        words = "\n".join(last_words(node.log, LAST_WORDS)) or "(empty)"
        how = "did not get ready in time" if node.running else "ended by itself"
        taken = any("Address already in use" in line for line in last_words(node.log, LONG_LOG))
        kind = _PortTaken if taken else BrokerUnavailableError
        return kind(f"{self.kind}: node {node.number} {how}; the end of its log:\n{words}", url=self.url)

    def close(self) -> None:
        """End all nodes and remove what they wrote. Idempotent."""
        for node in self.nodes:
            # Nothing is kept, so that nothing has to be written in order.
            node.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> KafkaCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def prepare(kit: KafkaKit, say: Callable[[str], None]) -> None:
    """Make the class archive and the formatted records that later starts use, once for each Java; without them they are slower.

    The archive halves the time that a start computes (docs/decisions/0008-dev-broker.md). Raises BrokerUnavailableError where
    Kafka does not start.
    """
    if kit.archive.exists():
        return
    try:
        with kit.locked():
            if kit.archive.exists():
                return
            say("Preparing Kafka for quick starts (about 15 s, once) ...")
            part = Path(tempfile.mkdtemp(prefix="preparing-", dir=kit.folder))
            try:
                _record(kit, part)
                shutil.rmtree(kit.prepared, ignore_errors=True)
                part.rename(kit.prepared)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as exc:
        # A cache that cannot be written to is no reason to go without Kafka.
        say(f"Kafka starts slower than it could: {exc}")


def _record(kit: KafkaKit, folder: Path) -> None:
    archive = folder / kit.archive.name
    with KafkaCluster.start(kit, jvm=[f"-XX:ArchiveClassesAtExit={archive}"]) as cluster:
        shutil.copy(cluster.nodes[0].log.parent / "data" / "bootstrap.checkpoint", folder / kit.checkpoint.name)
        stop(cluster.process, START_PATIENCE)
    if not archive.exists():
        raise OSError("Java made no class archive")
