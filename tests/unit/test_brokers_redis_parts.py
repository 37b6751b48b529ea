"""The parts of the Redis broker that need no Redis: URLs, frames, entries, waiting times."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from prpc.brokers import create_broker, redis_claims
from prpc.brokers.base import Outgoing
from prpc.brokers.redis import RedisBroker
from prpc.brokers.redis_address import RedisAddress, explain
from prpc.brokers.redis_batch import frame, milliseconds, read_entry, unframe
from prpc.brokers.redis_claims import Claims
from prpc.brokers.redis_lease import Lease
from prpc.brokers.redis_link import LONGEST_PAUSE, Backoff, Link
from prpc.brokers.redis_scripts import LOST, SCRIPTS
from prpc.exceptions import BrokerUnavailableError, ConfigurationError
from prpc.names import QueueNames
from prpc.settings import Settings


def parse(url: str) -> RedisAddress:
    return RedisAddress.parse(url, 5.0)


def test_plain_urls() -> None:
    address = parse("redis://user:p%23w@host:7000/3")
    assert address.connection_class is Connection
    given = {name: address.options[name] for name in ("host", "port", "db", "username", "password")}
    assert given == {"host": "host", "port": 7000, "db": 3, "username": "user", "password": "p#w"}
    assert address.shown == "redis://user:***@host:7000/3"
    assert "p#w" not in repr(address)
    assert parse("redis://host?db=4&client_name=me").options["client_name"] == "me"


def test_tls_and_socket_urls() -> None:
    address = parse("rediss://host/0?ssl_cert_reqs=none")
    assert (address.connection_class, address.options["ssl_cert_reqs"]) == (SSLConnection, "none")
    address = parse("unix://:pw@/run/redis.sock?db=2")
    assert address.connection_class is UnixDomainSocketConnection
    assert (address.options["path"], address.options["db"], address.options["password"]) == ("/run/redis.sock", 2, "pw")


def test_sentinel_urls() -> None:
    address = parse("redis+sentinel://u:pw@one:1,two,[::1]:3/main/2?sentinel_username=su&sentinel_password=sp")
    assert address.sentinels == (("one", 1), ("two", 26379), ("::1", 3))
    assert (address.master, address.options["db"], address.options["password"]) == ("main", 2, "pw")
    assert address.sentinel_options == {"username": "su", "password": "sp"}
    address = parse("rediss+sentinel://one/main?ssl_ca_certs=/ca.pem")
    assert address.sentinel_options == {"ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert address.connection_class is SSLConnection


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host", "starts with redis://"),
        ("host:6379", "starts with redis://"),
        ("unix+sentinel://host/m", "starts with redis://"),
        ("redis+cluster://host", "starts with redis://"),
        ("unix://", "name the socket"),
        ("redis://host/first", "the database is a number"),
        ("redis://host:port/0", "cannot be used"),
        ("redis://host/0?colour=red", "no option 'colour'"),
        ("redis://host/0?db=x", "cannot be used"),
        ("redis://:s3#cret@host/0", "as %XX"),
        ("redis+sentinel://host:26379", "name the master"),
        ("redis+sentinel://host:1,:2/m", "host:port"),
        ("rediss://host/0?ssl_min_version=x", "cannot be used"),
        ("rediss://host/0?ssl_nonsense=x", "cannot be used"),
    ],
)
def test_urls_that_cannot_be_meant(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_broker(Settings(url_broker=url))
    assert why in str(caught.value)
    assert "cret" not in str(caught.value)
    assert caught.value.variable == "PRPC_URL_BROKER"


def test_an_error_of_no_known_kind_is_told_as_it_is() -> None:
    assert "cannot be reached: odd" in str(explain(OSError("odd"), parse("redis://host")))


def test_nothing_is_sent_before_connect() -> None:
    broker = create_broker(Settings(url_broker="redis://host"))

    async def work() -> None:
        with pytest.raises(BrokerUnavailableError, match="connect first"):
            await broker.ping()
        await broker.close()

    asyncio.run(work())
    with pytest.raises(BrokerUnavailableError, match="connect first"):
        broker.publish("q", Outgoing(uuid.uuid4(), b"", {}))
    assert not Link(parse("redis://host"), SCRIPTS).closed


def test_a_server_with_a_short_lease_comes_back_to_redis_in_time() -> None:
    """Else it is taken for lost after a restart of Redis, by servers that were back sooner."""
    broker = create_broker(Settings(url_broker="redis://host", redis_heartbeat=0.1, redis_recover=0.4))
    assert isinstance(broker, RedisBroker) and broker._link.longest_pause == pytest.approx(0.1)
    usual = create_broker(Settings(url_broker="redis://host"))
    assert isinstance(usual, RedisBroker) and usual._link.longest_pause == LONGEST_PAUSE


@given(st.lists(st.binary(max_size=60)))
def test_frames_bring_bodies_back(bodies: list[bytes]) -> None:
    assert unframe(frame(bodies)) == bodies


@given(st.binary(max_size=60))
def test_any_payload_can_be_unframed(payload: bytes) -> None:
    assert isinstance(unframe(payload), list)


def test_entries() -> None:
    fields = [b"message", b"m", b"a", b"1", b"prpc_crashes", b"2", b"prpc_born_ms", b"77", b"own", b"7-1"]
    assert read_entry(fields) == (b"m", {"a": "1"}, 2, 77, b"7-1")
    assert read_entry([b"prpc_crashes", b"-1", b"prpc_born_ms", b"9" * 40]) == (None, {}, 0, None, None)
    assert read_entry([]) == (None, {}, 0, None, None)
    assert milliseconds(b"1234-5") == 1234


def test_waiting_times_grow_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(first=1.0, most=4.0)
    for most in (1.0, 2.0, 4.0, 4.0):
        assert most / 2 <= backoff.next() <= most
    backoff.reset()
    assert backoff.next() <= 1.0


def test_scripts_have_different_names() -> None:
    assert len({script.sha for script in SCRIPTS}) == len(SCRIPTS)


# claims


class Line:
    """In the place of a Link: what is posted waits for its answer."""

    def __init__(self) -> None:
        self.posted: list[tuple[Sequence[Any], Callable[[Any, Exception | None], None]]] = []

    def before_write(self, send: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(send)

    def post(self, script: object, keys: object, args: Sequence[Any], then: Callable[[Any, Exception | None], None]) -> None:
        self.posted.append((args, then))


def delivery(number: int, lease: Lease) -> Any:
    name = b"%d-0" % number
    return SimpleNamespace(lease=lease, id=name, raw=True, admitted=False, key=(0, name), name=name)


@pytest.mark.parametrize(("answer_after", "second"), [(0.0, None), (2.9, None), (3.1, [1]), (3.1, LOST)])
def test_a_claim_that_is_answered_too_late_is_asked_again(
    answer_after: float, second: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease may have run out meanwhile, and others have what was granted; what was refused stays refused."""
    clock, line, lease = SimpleNamespace(now=100.0), Line(), Lease("me", "lease")
    monkeypatch.setattr(redis_claims, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def main() -> None:
        link: Any = line
        claims = Claims(link, QueueNames("q"), Settings(), 3000)
        granted, refused = delivery(1, lease), delivery(2, lease)
        answers = [claims.add(each, uuid.uuid4(), None) for each in (granted, refused)]
        await asyncio.sleep(0)
        clock.now += answer_after
        (args, then), *_ = line.posted
        assert granted.id in args
        assert refused.id in args
        then([1, 0], None)
        assert answers[1].done()
        assert answers[0].done() is (second is None)
        if second is not None:
            args, then = line.posted[1]
            assert granted.id in args
            assert refused.id not in args
            then(second, None)
        assert [answer.result() for answer in answers] == [second is None or second == [1], False]
        assert lease.lost is (second == LOST)

    asyncio.run(main())
