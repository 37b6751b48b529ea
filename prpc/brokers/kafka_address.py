"""Where a Kafka is and how to get in: URLs, TLS, SASL, and errors that say what to do."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.settings import Settings, safe_url

__all__ = ["KafkaAddress", "explain"]

SCHEMES = {"kafka": "PLAINTEXT", "kafka+ssl": "SSL"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
#: What a URL may say after the question mark.
OPTIONS = ("sasl_mechanism", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_keypassword", "ssl_verify")
DEFAULT_PORT = 9092
_FORM = "allowed is host:9092,host2:9092, or kafka://user:password@host:9092,host2:9092, or kafka+ssl://... for TLS"


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A Kafka cluster, found through its URL."""

    #: The URL without its password.
    shown: str
    #: Brokers to begin with.
    hosts: tuple[str, ...]
    #: How every client of ours connects: aiokafka's names.
    options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, url: str, settings: Settings) -> KafkaAddress:
        """Read a URL and what the settings say beside it. Raises ConfigurationError that says what is allowed."""
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = "kafka", url
        if scheme not in SCHEMES:
            raise _refuse(url, f"its scheme is {scheme!r}")
        place, _, query = rest.partition("?")
        credentials, at, hosts = place.rstrip("/").rpartition("@")
        given = _options(url, query)
        options: dict[str, Any] = {"security_protocol": SCHEMES[scheme]}
        user, _, password = credentials.partition(":")
        user = unquote(user) or settings.kafka_username
        if user:
            mechanism = given.get("sasl_mechanism") or settings.kafka_sasl_mechanism
            if mechanism not in MECHANISMS:
                raise _refuse(url, f"sasl_mechanism is {mechanism!r}, allowed is one of {', '.join(MECHANISMS)}")
            options["security_protocol"] = "SASL_SSL" if scheme == "kafka+ssl" else "SASL_PLAINTEXT"
            options["sasl_mechanism"] = mechanism
            options["sasl_plain_username"] = user
            options["sasl_plain_password"] = unquote(password) if at and password else settings.kafka_password
        if scheme == "kafka+ssl":
            options["ssl_context"] = _ssl_context(url, given, settings)
        return cls(safe_url(url), tuple(_hosts(url, hosts)), options)

    def client_options(self, **more: Any) -> dict[str, Any]:
        """Arguments of one of aiokafka's clients."""
        return {"bootstrap_servers": list(self.hosts), **self.options, **more}


def _options(url: str, query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in OPTIONS:
            raise _refuse(url, f"it has the option {name!r}; known are {', '.join(OPTIONS)}")
    return given


def _hosts(url: str, text: str) -> Iterator[str]:
    for host in text.split(","):
        name, separator, port = host.strip().rpartition(":")
        if not separator or (name.startswith("[") and host.strip().endswith("]")):
            name, port = host.strip(), str(DEFAULT_PORT)
        if not name or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or "/" in name:
            raise _refuse(url, f"{host!r} is no host and port")
        yield f"{name}:{port}"


def _ssl_context(url: str, given: Mapping[str, str], settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl_cafile") or settings.kafka_ssl_cafile or None)
        certificate = given.get("ssl_certfile") or settings.kafka_ssl_certfile
        if certificate:
            key = given.get("ssl_keyfile") or settings.kafka_ssl_keyfile or None
            context.load_cert_chain(certificate, key, given.get("ssl_keypassword") or None)
    except (OSError, ssl.SSLError) as exc:
        raise _refuse(url, f"its certificates cannot be read: {exc}") from exc
    verify = given.get("ssl_verify", "true").lower()
    if verify not in ("true", "false"):
        raise _refuse(url, f"ssl_verify is {verify!r}, allowed is true or false")
    if verify == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refuse(url: str, problem: str) -> ConfigurationError:
    shown = safe_url(url)
    text = f"PRPC_URL_BROKER={shown!r} cannot be used: {problem}; {_FORM}"
    return ConfigurationError(text, variable="PRPC_URL_BROKER", value=shown)


def explain(error: BaseException, shown: str) -> BrokerUnavailableError:
    """A driver's error as ours, with what to do about it. `shown`: the URL without its password."""
    if isinstance(error, BrokerUnavailableError):
        return error
    where = f"Kafka at {shown}"
    if isinstance(error, AuthenticationFailedError | SaslAuthenticationFailed | UnsupportedSaslMechanismError):
        text = f"{where} refuses the user or the password: {error}. Correct them in PRPC_URL_BROKER, and sasl_mechanism with them"
    elif isinstance(error, TopicAuthorizationFailedError | GroupAuthorizationFailedError | ClusterAuthorizationFailedError):
        text = f"{where} does not allow this user what PRPC needs: {error}. Give it read, write, create and describe on prpc_*"
    elif isinstance(error, KafkaTimeoutError | RequestTimedOutError | TimeoutError):
        text = f"{where} did not answer in time: {str(error) or 'it is slow, or a broker of it is away'}"
    elif isinstance(error, KafkaConnectionError | NodeNotReadyError | OSError):
        text = (
            f"{where} does not answer: {error}. Start it (`python -m prpc.dev_broker --kafka` gives you one to try things out) "
            "or correct PRPC_URL_BROKER"
        )
    elif isinstance(error, KafkaError):
        text = f"{where} refuses: {error}"
    else:
        text = f"{where}: {type(error).__name__}: {error}"
    return BrokerUnavailableError(text, url=shown)
