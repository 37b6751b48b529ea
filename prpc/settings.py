"""Settings: frozen values, read from the environment in one place.

`load_environment()` is the only reader of `os.environ` and `.env` in the house; `Settings.from_env` turns what it
gave into values and names the variable, the value and what is allowed where one cannot be used.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from prpc.exceptions import ConfigurationError
from prpc.names import QueueNames

__all__ = ["Settings", "load_environment", "safe_url"]

BROKERS = ("redis", "kafka", "memory")
WORKERS = ("thread", "process", "async")
#: Fewest characters of a key that signs messages.
MIN_KEY_LENGTH = 32
DEFAULT_URLS = {"redis": "redis://localhost:6379/0", "kafka": "localhost:9092", "memory": "memory://"}


def load_environment(directory: Path | None = None) -> dict[str, str]:
    """The process's environment over a `.env` file in `directory` (default: the current one)."""
    file = (directory or Path.cwd()) / ".env"
    values = {k: v for k, v in dotenv_values(file).items() if v is not None} if file.is_file() else {}
    return {**values, **os.environ}


def safe_url(url: str) -> str:
    """The URL without its password, for logs and errors."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
            return f"{parts.scheme}://... (a user or password with a special character, which a URL wants as %XX)"
        if parts.password is None and not parts.query:
            return url
        user = f"{parts.username}:***@" if parts.username else "***@"
        host = parts.netloc.rpartition("@")[2]
        netloc = user + host if "@" in parts.netloc else host
        query = "&".join(p if not _secret(p) else p.partition("=")[0] + "=***" for p in parts.query.split("&"))
        return urlunsplit(parts._replace(netloc=netloc, query=query))
    except ValueError:
        return "(a URL that cannot be read)"


def _secret(parameter: str) -> bool:
    return any(word in parameter.partition("=")[0].lower() for word in ("pass", "secret", "token"))


def _refuse(variable: str, value: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{variable}={value!r} cannot be used: {allowed}", variable=variable, value=value)


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def read(variable: str, value: str) -> str:
        if value.strip().lower() not in allowed:
            raise _refuse(variable, value, "allowed is one of " + ", ".join(allowed))
        return value.strip().lower()

    return read


def _word(*allowed: str) -> Callable[[str, str], str]:
    """As `_choice`, in capitals."""

    def read(variable: str, value: str) -> str:
        if value.strip().upper() not in allowed:
            raise _refuse(variable, value, "allowed is one of " + ", ".join(allowed))
        return value.strip().upper()

    return read


def _number(low: float, *, whole: bool = False) -> Callable[[str, str], Any]:
    kind = "a whole number" if whole else "a number"

    def read(variable: str, value: str) -> int | float:
        try:
            number = int(value) if whole else float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= low):
            raise _refuse(variable, value, f"allowed is {kind} from {low:g} up")
        return number

    return read


def _port(variable: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise _refuse(variable, value, "allowed is a port from 1 to 65535, or 0 for none")
    return number


def _text(variable: str, value: str) -> str:
    if not value.strip():
        raise _refuse(variable, value, "allowed is a text that is not empty")
    return value.strip()


def _keys(variable: str, value: str) -> str:
    """One or several keys, or none; an error never shows them."""
    if value and any(len(key.strip()) < MIN_KEY_LENGTH for key in value.split(",")):
        text = f"{variable} cannot be used: every key, separated by commas, needs at least {MIN_KEY_LENGTH} characters"
        raise ConfigurationError(text, variable=variable, value="***")
    return value.strip()


def _setting(variable: str, default: Any, read: Callable[[str, str], Any], **more: Any) -> Any:
    return field(default=default, metadata={"variable": variable, "read": read}, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its unit, its variable and its default."""

    type_broker: str = _setting("PRPC_TYPE_BROKER", "redis", _choice(*BROKERS))
    #: Broker's URL; never shown with its password.
    url_broker: str = _setting("PRPC_URL_BROKER", "", _text, repr=False)
    queue_name: str = _setting("PRPC_QUEUE_NAME", "task_prpc", _text)
    #: Name of this process among its peers; a new uuid4 where none is given.
    instance_name: str = _setting("PRPC_INSTANCE_NAME", "", _text)
    group_name: str = _setting("PRPC_GROUP_NAME", "prpc_group_consumers", _text)

    default_type_worker: str = _setting("PRPC_DEFAULT_TYPE_WORKER", "thread", _choice(*WORKERS))
    #: Calls that run at once in one server.
    max_number_worker: int = _setting("PRPC_MAX_NUMBER_WORKER", 4, _number(1, whole=True))
    #: Longest run of one call in seconds; None is without end.
    timeout_worker: float | None = _setting("PRPC_TIMEOUT_WORKER_SEC", None, _number(0.001))
    #: Streams of one function that are open at once in one server, unless it says otherwise itself.
    max_streams: int = _setting("PRPC_MAX_STREAMS", 1000, _number(1, whole=True))
    #: Seconds of silence after which the reader of a stream counts as gone, and the stream ends.
    stream_reader_timeout: float = _setting("PRPC_STREAM_READER_TIMEOUT_SEC", 10.0, _number(2))
    #: Seconds that a stopping server waits for running calls.
    shutdown_grace: float = _setting("PRPC_SHUTDOWN_GRACE_SEC", 30.0, _number(0))
    #: Loop that `AppServer.start` runs in: uvloop's, asyncio's own, or the first of them that is installed.
    event_loop: str = _setting("PRPC_EVENT_LOOP", "auto", _choice("auto", "asyncio", "uvloop"))
    #: Port that answers /live and /ready; 0 is none.
    health_port: int = _setting("PRPC_HEALTH_PORT", 0, _port)
    #: Address at which it listens.
    health_host: str = _setting("PRPC_HEALTH_HOST", "127.0.0.1", _text)
    #: A server is ready while its last round trip to the broker is no older than these seconds.
    health_window: float = _setting("PRPC_HEALTH_WINDOW_SEC", 6.0, _number(2))
    #: Deliveries of one idempotent call whose servers get lost; then it is a dead letter and its caller gets an error.
    max_deliveries: int = _setting("PRPC_MAX_DELIVERIES", 5, _number(1, whole=True))
    #: Dead letters that a queue keeps, about; the oldest go first.
    dead_letters_kept: int = _setting("PRPC_DEAD_LETTERS_KEPT", 1000, _number(1, whole=True))
    #: How process workers start: forkserver where the system has it, else spawn.
    process_start_method: str = _setting("PRPC_PROCESS_START_METHOD", "auto", _choice("auto", "forkserver", "spawn"))
    #: Calls after which a process worker is replaced; 0 is never.
    process_max_calls: int = _setting("PRPC_PROCESS_MAX_CALLS", 0, _number(0, whole=True))
    #: Resident bytes after which a process worker is replaced; 0 is never.
    process_max_bytes: int = _setting("PRPC_PROCESS_MAX_BYTES", 0, _number(0, whole=True))

    #: Seconds that a caller waits when it names no timeout itself; None is without end.
    call_timeout: float | None = _setting("PRPC_CALL_TIMEOUT_SEC", None, _number(0.001))
    #: Attempts after the first of a call whose function is idempotent.
    call_retries: int = _setting("PRPC_CALL_RETRIES", 3, _number(0, whole=True))
    #: Seconds that one attempt is waited for.
    call_attempt_timeout: float = _setting("PRPC_CALL_ATTEMPT_TIMEOUT_SEC", 30.0, _number(0.001))
    #: Seconds of pause before the second attempt, doubled before each further one.
    call_backoff: float = _setting("PRPC_CALL_BACKOFF_SEC", 0.5, _number(0))
    #: Items of a stream that may be on their way or wait to be read; with so many its writer waits.
    stream_window: int = _setting("PRPC_STREAM_WINDOW", 256, _number(1, whole=True))
    #: Longest such pause in seconds.
    call_backoff_max: float = _setting("PRPC_CALL_BACKOFF_MAX_SEC", 30.0, _number(0))
    #: Seconds after which a broker that does not answer is named unavailable.
    connect_timeout: float = _setting("PRPC_CONNECT_TIMEOUT_SEC", 5.0, _number(0.001))

    #: Seconds without an answer after which a connection to the broker counts as dead and is opened anew.
    broker_silence: float = _setting("PRPC_BROKER_SILENCE_SEC", 5.0, _number(0.1))

    #: Largest message in bytes that is read or written.
    max_message_bytes: int = _setting("PRPC_MAX_MESSAGE_BYTES", 64 * 1024 * 1024, _number(1024, whole=True))
    #: Deepest nesting of a message's values.
    max_message_depth: int = _setting("PRPC_MAX_MESSAGE_DEPTH", 100, _number(8, whole=True))
    #: Most values (items of lists, entries of dicts) in one message.
    max_message_items: int = _setting("PRPC_MAX_MESSAGE_ITEMS", 5_000_000, _number(100, whole=True))

    #: Seconds for which a message id is remembered, so that it runs once; the servers' value holds for all callers.
    duplicate_window: int = _setting("PRPC_DUPLICATE_WINDOW_SEC", 300, _number(1, whole=True))
    #: Calls that may wait or run in the queue; 0 is without bound. The servers' value holds for all callers.
    max_queue_length: int = _setting("PRPC_MAX_QUEUE_LENGTH", 0, _number(0, whole=True))
    #: Keys that sign messages, separated by commas: the first signs, any may have signed. Empty: nothing is signed.
    secret_key: str = _setting("PRPC_SECRET_KEY", "", _keys, repr=False)

    log_format: str = _setting("PRPC_LOG_FORMAT", "text", _choice("text", "json"))
    log_level: str = _setting("PRPC_LOG_LEVEL", "info", _choice("debug", "info", "warning", "error"))

    #: Seconds that a result is kept.
    redis_expire: int = _setting("PRPC_REDIS_EXPIRE_MESSAGE_FEEDBACK_SEC", 6 * 3600, _number(1, whole=True))
    #: Seconds between two renewals of a server's lease.
    redis_heartbeat: float = _setting("PRPC_REDIS_HEARTBEAT_INTERVAL_SEC", 5.0, _number(0.05))
    #: Seconds without renewal after which a server counts as lost; at least twice the heartbeat.
    redis_recover: float = _setting("PRPC_REDIS_RECOVER_INTERVAL_SEC", 15.0, _number(0.1))

    kafka_feedback_partitions: int = _setting("PRPC_KAFKA_FEEDBACK_TOPIC_NUMBER_PARTITIONS", 4, _number(1, whole=True))
    #: Partitions of the calls' topic; 0 is the number of workers.
    kafka_queue_partitions: int = _setting("PRPC_KAFKA_QUEUE_TOPIC_NUMBER_PARTITIONS", 0, _number(1, whole=True))
    kafka_replication: int = _setting("PRPC_KAFKA_REPLICATION_FACTOR", 1, _number(1, whole=True))
    #: User and password, where the URL names none.
    kafka_username: str = _setting("PRPC_KAFKA_USERNAME", "", _text)
    kafka_password: str = _setting("PRPC_KAFKA_PASSWORD", "", _text, repr=False)
    #: How they are proved: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    kafka_sasl_mechanism: str = _setting("PRPC_KAFKA_SASL_MECHANISM", "PLAIN", _word("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
    #: Files with the authority, our certificate and its key, for kafka+ssl://.
    kafka_ssl_cafile: str = _setting("PRPC_KAFKA_SSL_CAFILE", "", _text)
    kafka_ssl_certfile: str = _setting("PRPC_KAFKA_SSL_CERTFILE", "", _text)
    kafka_ssl_keyfile: str = _setting("PRPC_KAFKA_SSL_KEYFILE", "", _text)

    def __post_init__(self) -> None:
        QueueNames(self.queue_name)
        if not self.url_broker:
            object.__setattr__(self, "url_broker", DEFAULT_URLS[self.type_broker])
        if not self.instance_name:
            object.__setattr__(self, "instance_name", str(uuid.uuid4()))
        if self.redis_recover < 2 * self.redis_heartbeat:
            raise _refuse(
                "PRPC_REDIS_RECOVER_INTERVAL_SEC",
                f"{self.redis_recover:g}",
                f"allowed is at least twice PRPC_REDIS_HEARTBEAT_INTERVAL_SEC ({self.redis_heartbeat:g})",
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """What is given by name (None counts as not given), else the environment, else the default.

        Raises ConfigurationError naming the variable, the value and what is allowed. An empty variable counts as not set.
        """
        environ = load_environment() if environ is None else environ
        values: dict[str, Any] = {}
        for item in fields(cls):
            variable, read = item.metadata["variable"], item.metadata["read"]
            explicit = given.pop(item.name, None)
            if explicit is not None:
                values[item.name] = read(variable, str(explicit))
            elif environ.get(variable, "") != "":
                values[item.name] = read(variable, environ[variable])
        if given:
            raise TypeError(f"Settings has no {sorted(given)[0]!r}")
        return cls(**values)
