"""Java and the jars of a real Kafka: found, fetched with Maven, and prepared for a quick start."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prpc.exceptions import ConfigurationError
from prpc.settings import load_environment

__all__ = ["JARS", "KafkaKit", "find_kafka", "jars_folder"]

#: Variable that names the folder of the jars.
JARS = "PRPC_KAFKA_JARS"
POM = Path(__file__).with_name("pom.xml")
#: Kafka 4 needs it.
OLDEST_JAVA = 17
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
#: Seconds that Maven may take.
FETCH_PATIENCE = 600.0


def kafka_version() -> str:
    """The version that the pom names."""
    found = re.search(r"<kafka.version>(.+?)</kafka.version>", POM.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def jars_folder(environ: Mapping[str, str]) -> Path:
    """Where the jars are or will be: PRPC_KAFKA_JARS, else a folder below the user's cache."""
    if environ.get(JARS):
        return Path(environ[JARS]).expanduser().absolute()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / f"prpc-kafka-{kafka_version()}"


@dataclass(frozen=True, slots=True)
class KafkaKit:
    """What a real Kafka is started with."""

    #: The program.
    java: str
    #: Its version, such as "17.0.15".
    java_version: str
    folder: Path
    #: The program that can fetch the jars; None where there is none.
    maven: str | None = None

    @property
    def fetched(self) -> bool:
        return bool(list(self.folder.glob("kafka_*.jar")))

    @property
    def kind(self) -> str:
        """For people: what it is."""
        jars = sorted(self.folder.glob("kafka_*.jar"))
        version = jars[0].stem.partition("-")[2] if jars else kafka_version()
        return f"Apache Kafka {version} (Java {self.java_version}, jars in {self.folder})"

    @property
    def class_path(self) -> str:
        """Sorted, since a class archive counts only for the class path that it was made with."""
        return ":".join(sorted(str(jar) for jar in self.folder.glob("*.jar")))

    @property
    def prepared(self) -> Path:
        """Folder with what makes a start quick: a class archive of this Java, and a formatted node's first records."""
        return self.folder / f"prepared-java-{self.java_version}"

    @property
    def archive(self) -> Path:
        return self.prepared / "classes.jsa"

    @property
    def checkpoint(self) -> Path:
        return self.prepared / "bootstrap.checkpoint"

    def fetch(self, say: Callable[[str], None]) -> None:
        """Have Maven copy the jars, once. Raises ConfigurationError where that does not work."""
        if self.fetched:
            return
        if self.maven is None:
            raise ConfigurationError(f"no Kafka in {self.folder}, and no Maven (mvn) to fetch it", variable=JARS)
        with self.locked():
            if self.fetched:
                return
            say(f"Fetching Kafka {kafka_version()} with Maven into {self.folder} (about 45 MB, once) ...")
            part = Path(tempfile.mkdtemp(prefix="fetching-", dir=self.folder.parent))
            try:
                _copy(self.maven, part)
                self.folder.mkdir(exist_ok=True)
                # The jar that tells that all are there comes last.
                for jar in sorted(part.iterdir(), key=lambda path: path.name.startswith("kafka_")):
                    jar.replace(self.folder / jar.name)
            finally:
                shutil.rmtree(part, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time works on the folder."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(self.folder.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _copy(maven: str, folder: Path) -> None:
    words = [maven, "-B", "-q", "-f", str(POM), COPY, f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigurationError(f"Maven could not fetch Kafka: {exc}", variable=JARS) from exc
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or ["(it said nothing)"]
        raise ConfigurationError(f"Maven could not fetch Kafka: {said[0]}", variable=JARS)


def find_kafka(environ: Mapping[str, str] | None = None) -> KafkaKit | None:
    """What this machine has for a real Kafka; None without Java 17, or with neither jars nor Maven.

    Looks at JAVA_HOME, PATH, PRPC_KAFKA_JARS and XDG_CACHE_HOME in `environ` (default: the environment and `.env`).
    """
    environ = load_environment() if environ is None else environ
    home = environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else environ.get("PATH"))
    version = _version(java) if java else None
    if java is None or version is None:
        return None
    kit = KafkaKit(java, version, jars_folder(environ), shutil.which("mvn", path=environ.get("PATH")))
    return kit if kit.fetched or kit.maven else None


def _version(java: str) -> str | None:
    """The version of a Java that is new enough."""
    try:
        done = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "((\d+)[^"]*)"', done.stderr)
    return found[1] if found and int(found[2]) >= OLDEST_JAVA else None
