"""What the URL of a Kafka may say, and what its errors say to a person."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from prpc.brokers.kafka_address import KafkaAddress, explain
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.settings import Settings


def parse(url: str, **given: Any) -> KafkaAddress:
    return KafkaAddress.parse(url, Settings(type_broker="kafka", url_broker=url, **given))


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("localhost:9092", ["localhost:9092"]),
        ("localhost", ["localhost:9092"]),
        ("one:1,two:2, three", ["one:1", "two:2", "three:9092"]),
        ("kafka://one:1,two:2", ["one:1", "two:2"]),
        ("kafka://one:1/", ["one:1"]),
        ("kafka://user:pass@one:1,two:2", ["one:1", "two:2"]),
        ("kafka+ssl://one:1", ["one:1"]),
        ("[::1]:9092", ["[::1]:9092"]),
        ("kafka://[::1]", ["[::1]:9092"]),
    ],
)
def test_hosts(url: str, hosts: list[str]) -> None:
    assert list(parse(url).hosts) == hosts


@pytest.mark.parametrize(
    ("url", "given", "options"),
    [
        ("one:1", {}, {"security_protocol": "PLAINTEXT"}),
        ("one:1", {"kafka_password": "unused"}, {"security_protocol": "PLAINTEXT"}),
        (
            "kafka://me:p%40ss@one:1",
            {},
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": "me",
                "sasl_plain_password": "p@ss",
            },
        ),
        (
            "kafka://me:x@one:1?sasl_mechanism=SCRAM-SHA-512",
            {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": "me",
                "sasl_plain_password": "x",
            },
        ),
        (
            "one:1",
            {"kafka_username": "me", "kafka_password": "x", "kafka_sasl_mechanism": "SCRAM-SHA-256"},
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-256",
                "sasl_plain_username": "me",
                "sasl_plain_password": "x",
            },
        ),
    ],
)
def test_how_to_log_in(url: str, given: dict[str, str], options: dict[str, str]) -> None:
    assert parse(url, **given).options == options


def test_tls() -> None:
    options = parse("kafka+ssl://me:x@one:1").options
    assert options["security_protocol"] == "SASL_SSL"
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname
    loose = parse("kafka+ssl://one:1?ssl_verify=false").options
    assert (loose["security_protocol"], loose["ssl_context"].verify_mode) == ("SSL", ssl.CERT_NONE)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://one:1", "its scheme is 'redis'"),
        ("kafka://one:no", "'one:no' is no host and port"),
        ("kafka://one:0", "'one:0' is no host and port"),
        ("one:70000", "is no host and port"),
        ("kafka://", "'' is no host and port"),
        ("one:1,,two:2", "'' is no host and port"),
        ("kafka://one:1?what=1", "it has the option 'what'; known are sasl_mechanism, "),
        ("kafka://me:x@one:1?sasl_mechanism=GSSAPI", "sasl_mechanism is 'GSSAPI', allowed is one of PLAIN, SCRAM-SHA-256"),
        ("kafka+ssl://one:1?ssl_cafile=/nowhere.pem", "its certificates cannot be read"),
        ("kafka+ssl://one:1?ssl_verify=perhaps", "ssl_verify is 'perhaps', allowed is true or false"),
    ],
)
def test_what_cannot_be_used_is_said(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert caught.value.variable == "PRPC_URL_BROKER"
    assert problem in str(caught.value)
    assert "allowed is host:9092" in str(caught.value)


def test_no_password_is_shown(tmp_path: Path) -> None:
    address = parse("kafka://me:hunter2@one:1", kafka_password="hunter3")
    assert "hunter" not in repr(address)
    assert address.shown == "kafka://me:***@one:1"
    with pytest.raises(ConfigurationError) as caught:
        parse("kafka://me:hunter2@one:no")
    assert "hunter2" not in str(caught.value)
    assert "hunter" not in repr(Settings(type_broker="kafka", url_broker="kafka://me:hunter2@one:1", kafka_password="hunter3"))


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: AuthenticationFailedError("bad"), "refuses the user or the password"),
        (lambda: TopicAuthorizationFailedError("t"), "Give it read, write, create and describe"),
        (lambda: KafkaConnectionError("gone"), "python -m prpc.dev_broker --kafka"),
        (ConnectionRefusedError, "does not answer"),
        (RequestTimedOutError, "did not answer in time"),
        (TimeoutError, "did not answer in time"),
        (lambda: KafkaError("other"), "refuses: KafkaError: other"),
        (lambda: ValueError("odd"), "ValueError: odd"),
    ],
)
def test_errors_say_what_to_do(make: Callable[[], BaseException], advice: str) -> None:
    error = explain(make(), "kafka://one:1")
    assert isinstance(error, BrokerUnavailableError)
    assert advice in str(error)
    assert error.url == "kafka://one:1"
    assert explain(error, "other") is error
