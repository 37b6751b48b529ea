"""Settings: defaults, the environment, and errors that name the variable, the value and what is allowed."""

from __future__ import annotations

import uuid
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from prpc.exceptions import ConfigurationError
from prpc.settings import Settings, load_environment, safe_url

#: Every variable with a value that is not its default, and what Settings makes of it.
VALUES = {
    "PRPC_TYPE_BROKER": ("Memory", "type_broker", "memory"),
    "PRPC_URL_BROKER": ("memory://x", "url_broker", "memory://x"),
    "PRPC_QUEUE_NAME": (" orders ", "queue_name", "orders"),
    "PRPC_INSTANCE_NAME": ("one", "instance_name", "one"),
    "PRPC_GROUP_NAME": ("group", "group_name", "group"),
    "PRPC_DEFAULT_TYPE_WORKER": ("ASYNC", "default_type_worker", "async"),
    "PRPC_MAX_NUMBER_WORKER": ("9", "max_number_worker", 9),
    "PRPC_TIMEOUT_WORKER_SEC": ("1.5", "timeout_worker", 1.5),
    "PRPC_MAX_STREAMS": ("20", "max_streams", 20),
    "PRPC_STREAM_READER_TIMEOUT_SEC": ("2.5", "stream_reader_timeout", 2.5),
    "PRPC_STREAM_WINDOW": ("8", "stream_window", 8),
    "PRPC_EVENT_LOOP": ("UVLOOP", "event_loop", "uvloop"),
    "PRPC_SHUTDOWN_GRACE_SEC": ("0", "shutdown_grace", 0.0),
    "PRPC_HEALTH_PORT": ("8080", "health_port", 8080),
    "PRPC_HEALTH_HOST": ("0.0.0.0", "health_host", "0.0.0.0"),
    "PRPC_HEALTH_WINDOW_SEC": ("12", "health_window", 12.0),
    "PRPC_MAX_DELIVERIES": ("3", "max_deliveries", 3),
    "PRPC_DEAD_LETTERS_KEPT": ("50", "dead_letters_kept", 50),
    "PRPC_PROCESS_START_METHOD": ("spawn", "process_start_method", "spawn"),
    "PRPC_PROCESS_MAX_CALLS": ("100", "process_max_calls", 100),
    "PRPC_PROCESS_MAX_BYTES": ("1000000", "process_max_bytes", 1000000),
    "PRPC_CALL_TIMEOUT_SEC": ("30", "call_timeout", 30.0),
    "PRPC_CALL_RETRIES": ("5", "call_retries", 5),
    "PRPC_CALL_ATTEMPT_TIMEOUT_SEC": ("2.5", "call_attempt_timeout", 2.5),
    "PRPC_CALL_BACKOFF_SEC": ("0.25", "call_backoff", 0.25),
    "PRPC_CALL_BACKOFF_MAX_SEC": ("7", "call_backoff_max", 7.0),
    "PRPC_CONNECT_TIMEOUT_SEC": ("2", "connect_timeout", 2.0),
    "PRPC_BROKER_SILENCE_SEC": ("2.5", "broker_silence", 2.5),
    "PRPC_MAX_MESSAGE_BYTES": ("2048", "max_message_bytes", 2048),
    "PRPC_MAX_MESSAGE_DEPTH": ("8", "max_message_depth", 8),
    "PRPC_MAX_MESSAGE_ITEMS": ("100", "max_message_items", 100),
    "PRPC_DUPLICATE_WINDOW_SEC": ("60", "duplicate_window", 60),
    "PRPC_MAX_QUEUE_LENGTH": ("1000", "max_queue_length", 1000),
    "PRPC_SECRET_KEY": (f" {'k' * 32},{'l' * 32} ", "secret_key", f"{'k' * 32},{'l' * 32}"),
    "PRPC_LOG_FORMAT": ("json", "log_format", "json"),
    "PRPC_LOG_LEVEL": ("DEBUG", "log_level", "debug"),
    "PRPC_REDIS_EXPIRE_MESSAGE_FEEDBACK_SEC": ("60", "redis_expire", 60),
    "PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": ("1", "redis_heartbeat", 1.0),
    "PRPC_REDIS_RECOVER_INTERVAL_SEC": ("3", "redis_recover", 3.0),
    "PRPC_KAFKA_FEEDBACK_TOPIC_NUMBER_PARTITIONS": ("7", "kafka_feedback_partitions", 7),
    "PRPC_KAFKA_QUEUE_TOPIC_NUMBER_PARTITIONS": ("8", "kafka_queue_partitions", 8),
    "PRPC_KAFKA_REPLICATION_FACTOR": ("3", "kafka_replication", 3),
    "PRPC_KAFKA_USERNAME": ("shop", "kafka_username", "shop"),
    "PRPC_KAFKA_PASSWORD": ("hunter2", "kafka_password", "hunter2"),
    "PRPC_KAFKA_SASL_MECHANISM": ("SCRAM-SHA-512", "kafka_sasl_mechanism", "SCRAM-SHA-512"),
    "PRPC_KAFKA_SSL_CAFILE": ("/ca.pem", "kafka_ssl_cafile", "/ca.pem"),
    "PRPC_KAFKA_SSL_CERTFILE": ("/me.pem", "kafka_ssl_certfile", "/me.pem"),
    "PRPC_KAFKA_SSL_KEYFILE": ("/me.key", "kafka_ssl_keyfile", "/me.key"),
}


def test_defaults() -> None:
    settings = Settings.from_env({})
    assert (settings.type_broker, settings.url_broker) == ("redis", "redis://localhost:6379/0")
    assert (settings.queue_name, settings.group_name) == ("task_prpc", "prpc_group_consumers")
    assert (settings.redis_expire, settings.redis_heartbeat, settings.redis_recover) == (6 * 3600, 5.0, 15.0)
    assert settings.kafka_feedback_partitions == 4
    assert uuid.UUID(settings.instance_name).version == 4
    assert settings.instance_name != Settings.from_env({}).instance_name
    assert Settings(type_broker="kafka").url_broker == "localhost:9092"
    assert Settings(type_broker="memory").url_broker == "memory://"


def test_every_variable_is_read() -> None:
    settings = Settings.from_env({variable: text for variable, (text, _, _) in VALUES.items()})
    assert {name: getattr(settings, name) for _, name, _ in VALUES.values()} == {n: v for _, n, v in VALUES.values()}


def test_there_is_one_variable_for_every_setting() -> None:
    known = {item.metadata["variable"]: item.name for item in fields(Settings)}
    assert {variable: name for variable, (_, name, _) in VALUES.items()} == known


def test_what_is_given_wins_over_the_environment() -> None:
    environment = {"PRPC_QUEUE_NAME": "from_env", "PRPC_MAX_NUMBER_WORKER": "7"}
    settings = Settings.from_env(environment, queue_name="given", max_number_worker=None)
    assert (settings.queue_name, settings.max_number_worker) == ("given", 7)


def test_an_empty_variable_is_not_set() -> None:
    settings = Settings.from_env({"PRPC_QUEUE_NAME": "", "PRPC_CALL_TIMEOUT_SEC": ""})
    assert (settings.queue_name, settings.call_timeout) == ("task_prpc", None)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PRPC_TYPE_BROKER", "rabbit", "redis, kafka, memory"),
        ("PRPC_HEALTH_PORT", "65536", "a port from 1 to 65535, or 0 for none"),
        ("PRPC_HEALTH_PORT", "http", "a port from 1 to 65535, or 0 for none"),
        ("PRPC_DEFAULT_TYPE_WORKER", "fiber", "thread, process, async"),
        ("PRPC_MAX_NUMBER_WORKER", "0", "a whole number from 1 up"),
        ("PRPC_MAX_NUMBER_WORKER", "2.5", "a whole number from 1 up"),
        ("PRPC_MAX_NUMBER_WORKER", "many", "a whole number from 1 up"),
        ("PRPC_TIMEOUT_WORKER_SEC", "-1", "a number from 0.001 up"),
        ("PRPC_TIMEOUT_WORKER_SEC", "inf", "a number from 0.001 up"),
        ("PRPC_TIMEOUT_WORKER_SEC", "nan", "a number from 0.001 up"),
        ("PRPC_URL_BROKER", "  ", "not empty"),
        ("PRPC_QUEUE_NAME", "a b", "without blanks"),
        ("PRPC_LOG_FORMAT", "xml", "text, json"),
    ],
)
def test_a_value_that_cannot_be_used_names_itself(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({variable: value})
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)
    assert caught.value.variable == variable
    assert caught.value.value == value


def test_a_lost_server_is_given_two_heartbeats() -> None:
    with pytest.raises(ConfigurationError, match="at least twice PRPC_REDIS_HEARTBEAT_INTERVAL_SEC") as caught:
        Settings(redis_heartbeat=5, redis_recover=9.9)
    assert caught.value.variable == "PRPC_REDIS_RECOVER_INTERVAL_SEC"
    assert Settings(redis_heartbeat=5, redis_recover=10).redis_recover == 10


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="has no 'colour'"):
        Settings.from_env({}, colour="red")


def test_settings_are_frozen_and_hide_the_url() -> None:
    settings = Settings(url_broker="redis://:s3cret@host/0")
    with pytest.raises(FrozenInstanceError):
        settings.queue_name = "other"  # type: ignore[misc]
    assert "s3cret" not in repr(settings)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PRPC_QUEUE_NAME=from_file\nPRPC_GROUP_NAME=group_of_file\nEMPTY\n")
    monkeypatch.setenv("PRPC_QUEUE_NAME", "from_env")
    environment = load_environment(tmp_path)
    assert (environment["PRPC_QUEUE_NAME"], environment["PRPC_GROUP_NAME"]) == ("from_env", "group_of_file")
    monkeypatch.chdir(tmp_path)
    assert Settings.from_env().group_name == "group_of_file"
    assert "PRPC_GROUP_NAME" not in load_environment(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:s3cret@host/0", "redis://***@host/0"),
        ("redis://user:s3cret@host/0", "redis://user:***@host/0"),
        ("redis://user:s3@cret@host/0", "redis://user:***@host/0"),
        ("redis+sentinel://u:s3cret@a:1,b:2/m/0", "redis+sentinel://u:***@a:1,b:2/m/0"),
        (
            "rediss://host?ssl_ca_certs=/ca.pem&sentinel_password=s3cret",
            "rediss://host?ssl_ca_certs=/ca.pem&sentinel_password=***",
        ),
        ("unix:///run/redis@1.sock", "unix:///run/redis@1.sock"),
        ("localhost:9092", "localhost:9092"),
    ],
)
def test_urls_are_shown_without_their_password(url: str, shown: str) -> None:
    assert safe_url(url) == shown


UNREADABLE = ["redis://:s3#cret@host/0", "redis://:1/s3cret@host", "redis://:a@s3?cret@host", "redis://[s3cret"]


@pytest.mark.parametrize("url", [*UNREADABLE, "redis://u:s3cret@[x/0", "unix:///a?password=s3cret"])
def test_urls_that_cannot_be_read_show_nothing(url: str) -> None:
    assert "cret" not in safe_url(url)
