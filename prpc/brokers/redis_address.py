"""Where a Redis is and how to get a connection to it: URLs, TLS, Sentinel, and errors that say what to do.

redis-py's own `Connection` objects open a connection: they know TLS, AUTH, databases and unix sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from prpc.brokers.redis_wire import GOOD_BYE, Wire
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.settings import safe_url

__all__ = ["RedisAddress", "explain"]


class RedisConnection(Protocol):
    """What we use of redis-py's connection."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None

    async def connect(self) -> None: ...

    async def send_command(self, *args: Any, check_health: bool = ...) -> None: ...

    async def read_response(self, *, disconnect_on_error: bool = ...) -> Any: ...

    async def disconnect(self) -> None: ...


#: What a URL may say after the question mark, beside the ssl_... options of redis-py.
OPTIONS = {"db", "client_name", "sentinel_username", "sentinel_password"}
SCHEMES = "redis://, rediss:// (TLS), unix://, redis+sentinel:// or rediss+sentinel://"
#: Seconds after which a Sentinel that does not answer is passed over for the next one.
SENTINEL_PATIENCE = 1.0
#: Seconds of silence, between probes, and probes before the kernel gives a dead peer up.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis, found through its URL."""

    #: The URL without its password.
    shown: str
    connect_timeout: float
    connection_class: type[AbstractConnection]
    options: dict[str, Any] = field(repr=False)
    #: Sentinels to ask for `master`; empty for a Redis that is named directly.
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, connect_timeout: float) -> RedisAddress:
        """Read a URL. Raises ConfigurationError that says what is allowed."""
        try:
            return cls._parse(url, connect_timeout)
        except (ValueError, TypeError) as exc:
            if isinstance(exc, ConfigurationError):
                raise
            raise _refuse(url, str(exc)) from exc

    @classmethod
    def _parse(cls, url: str, connect_timeout: float) -> RedisAddress:
        parts = urlsplit(url)
        scheme, kind = _check(url, parts)
        sentinels: tuple[tuple[str, int], ...] = ()
        master = ""
        if kind:
            credentials, _, hosts = parts.netloc.rpartition("@")
            sentinels = tuple(_host(url, host) for host in hosts.split(","))
            master, _, database = parts.path.strip("/").partition("/")
            if not master:
                raise _refuse(url, "name the master: redis+sentinel://host:26379,host2:26379/MASTER/0")
            parts = parts._replace(scheme=scheme, netloc=f"{credentials}@sentinel", path=f"/{database}")
        database = parts.path.strip("/")
        if scheme != "unix" and database and not database.isdecimal():
            raise _refuse(url, f"the database is a number, not {database!r}")
        options: dict[str, Any] = dict(parse_url(parts.geturl()))
        connection_class = cast("type[AbstractConnection]", options.pop("connection_class", Connection))
        sentinel_options = {
            name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
        }
        options = {"client_name": "prpc", **options, **_common(connection_class), "socket_connect_timeout": connect_timeout}
        if connection_class is SSLConnection:
            sentinel_options.update({k: v for k, v in options.items() if k.startswith("ssl_")}, ssl=True)
        address = cls(safe_url(url), connect_timeout, connection_class, options, sentinels, master, sentinel_options)
        address._build(options)  # an option that the driver refuses is refused now
        return address

    def _build(self, options: dict[str, Any]) -> RedisConnection:
        return cast("RedisConnection", self.connection_class(retry=Retry(NoBackoff(), 0), **options))

    async def open(self) -> Wire:
        """A new connection that has proved itself. Raises BrokerUnavailableError within the connect timeout."""
        try:
            async with asyncio.timeout(self.connect_timeout):
                return await self._open()
        except (RedisError, OSError) as exc:
            raise explain(exc, self) from exc

    async def _open(self) -> Wire:
        options = {**self.options, **(await self._find_master() if self.sentinels else {})}
        connection = self._build(options)
        try:
            await connection.connect()
            await connection.send_command("PING", check_health=False)
            await connection.read_response()
            if self.sentinels:
                await connection.send_command("ROLE", check_health=False)
                if (await connection.read_response())[0] != b"master":
                    raise ReadOnlyError(f"{options['host']}:{options['port']} is no master any more")
        except BaseException:
            await _hang_up(connection)
            raise
        return _take_over(connection)

    async def _find_master(self) -> dict[str, Any]:
        options = {
            "socket_timeout": SENTINEL_PATIENCE,
            "socket_connect_timeout": SENTINEL_PATIENCE,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            **self.sentinel_options,
        }
        async with cast("Any", Sentinel)(self.sentinels, sentinel_kwargs=options) as sentinel:
            host, port = await sentinel.discover_master(self.master)
            return {"host": host, "port": port}


def _take_over(connection: RedisConnection) -> Wire:
    """The driver's connection forgets its streams, so that it neither closes them nor warns when it is collected."""
    reader, writer = connection._reader, connection._writer
    connection._reader = connection._writer = None
    if reader is None or writer is None:
        raise ConnectionResetError("the connection was closed")
    return Wire(reader, writer)


async def _hang_up(connection: RedisConnection) -> None:
    with contextlib.suppress(RedisError, OSError):
        async with asyncio.timeout(GOOD_BYE):
            await connection.disconnect()


def _refuse(url: str, why: str) -> ConfigurationError:
    shown = safe_url(url)
    return ConfigurationError(f"PRPC_URL_BROKER={shown!r} cannot be used: {why}", variable="PRPC_URL_BROKER", value=shown)


def _check(url: str, parts: SplitResult) -> tuple[str, str]:
    """The scheme and "sentinel" where the URL names Sentinels; refuses what cannot be meant."""
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss", "unix") or kind not in ("", "sentinel") or (scheme == "unix" and kind):
        raise _refuse(url, f"the URL of a Redis starts with {SCHEMES}")
    if scheme == "unix":
        if not parts.path:
            raise _refuse(url, "name the socket: unix:///path/to/redis.sock")
    elif "@" in parts.path + parts.query + parts.fragment:
        raise _refuse(url, "write special characters of the user and the password as %XX (# is %23, / is %2F, ? is %3F)")
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in OPTIONS and not name.startswith("ssl_"):
            raise _refuse(url, f"it has no option {name!r}; allowed are {', '.join(sorted(OPTIONS))} and ssl_...")
    return scheme, kind


def _host(url: str, text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise _refuse(url, "each Sentinel is written host:port")
    return unquote(parts.hostname), parts.port or 26379


def _common(connection_class: type[AbstractConnection]) -> dict[str, Any]:
    # RESP2 has one shape for every reply on every server; blocking reads are bounded by their callers, not by socket_timeout.
    options: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_read_size": 256 * 1024, "driver_info": None}
    if not issubclass(connection_class, UnixDomainSocketConnection):
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = {
            getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)
        }
    return options


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def explain(exc: BaseException, address: RedisAddress) -> BrokerUnavailableError:
    """The driver's error as one that a beginner understands; the caller raises it `from exc`."""
    where = f"Redis at {address.shown}"
    return BrokerUnavailableError(f"{where} {_reason(exc, address)}", url=address.shown)


def _reason(exc: BaseException, address: RedisAddress) -> str:
    text = str(exc)
    chain = list(_chain(exc))
    if isinstance(exc, AuthenticationError):
        return _password_reason(address, text)
    if isinstance(exc, NoPermissionError):
        return f"does not let this user do what PRPC needs: {text}. Grant it all commands on keys and channels prpc_*."
    if isinstance(exc, MasterNotFoundError):
        hosts = ", ".join(f"{host}:{port}" for host, port in address.sentinels)
        return f"was not found: no Sentinel of {hosts} answers and knows a running master {address.master!r}."
    if isinstance(exc, InvalidResponse):
        return f"answers, but not as a Redis does ({text}). Is another program listening on this port?"
    if isinstance(exc, ResponseError):
        if "DB index" in text or "database" in text.lower():
            return f"has no database {address.options.get('db', 0)}: {text}. Name another number at the end of the URL."
        return f"refused: {text}"
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            return _tls_reason(cause)
    return _network_reason(chain, address, text)


def _password_reason(address: RedisAddress, text: str) -> str:
    if address.options.get("password") is None:
        return "asks for a password and the URL has none. Write it as redis://:PASSWORD@host:6379/0 or redis://USER:PASSWORD@..."
    if "without any password" in text or "no password is set" in text:
        return "has no password, but the URL names one. Take it out of PRPC_URL_BROKER."
    return "refused the user name or the password. Correct them in PRPC_URL_BROKER (special characters as %XX)."


def _tls_reason(cause: ssl.SSLError) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted ({cause.verify_message}). "
            "Name its authority with ?ssl_ca_certs=/path/ca.pem in the URL."
        )
    return f"does not speak TLS as expected ({cause.reason or cause}). A Redis without TLS wants redis://, one with it rediss://."


def _network_reason(chain: list[BaseException], address: RedisAddress, text: str) -> str:
    for cause in chain:
        if isinstance(cause, socket.gaierror):
            return "cannot be found: its host name does not resolve. Correct the host in PRPC_URL_BROKER."
        if isinstance(cause, (FileNotFoundError, PermissionError)):
            return f"cannot be opened: {cause.strerror}. See that the file exists and that this user may use it."
        if isinstance(cause, ConnectionRefusedError):
            return (
                "does not answer: nothing listens there. Start it (`python -m prpc.dev_broker` gives you one to try things out) "
                "or correct PRPC_URL_BROKER."
            )
    if any(isinstance(cause, TimeoutError) for cause in chain) or "Timeout" in text:
        tls = " If it does not speak TLS, write redis://." if address.shown.startswith("rediss") else ""
        return (
            f"did not answer within {address.connect_timeout:g} s. See that it runs and that no firewall stands in between.{tls}"
        )
    if "closed" in text.lower() or any(isinstance(cause, ConnectionResetError) for cause in chain):
        return "closed the connection at once. If it speaks TLS, write rediss:// instead of redis://."
    return f"cannot be reached: {text}"
