"""The client of the metrics example against servers that behave, and servers that do not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from metrics_kit import ROOT, FakeConnection, ScriptedPeer, says

from examples.metrics.client import Client, ClientError

Act = Callable[[socket.socket, bytes], object]


def client_of(peer: ScriptedPeer, timeout: float | None = 30) -> Client:
    return Client("127.0.0.1", peer.port, timeout)


def test_the_file_imports_alone() -> None:
    code = "import sys, client; client.Client('h', 1); print(client.ClientError.__module__, 'prpc' in sys.modules)"
    # Without site-packages and PYTHONPATH: no PRPC far and wide.
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], cwd=ROOT / "examples" / "metrics", capture_output=True, text=True
    )
    assert done.stdout == "client False\n", done.stderr


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[FakeConnection]]:
    """Gives the client fake connections, each with the pieces of one reply."""

    def give(*replies: list[bytes]) -> list[FakeConnection]:
        made = [FakeConnection(reply) for reply in replies]
        waiting = iter(made)

        def create_connection(address: tuple[str, int], timeout: float | None) -> FakeConnection:
            assert (address, timeout) == (("h", 1), 5)
            return next(waiting)

        monkeypatch.setattr(socket, "create_connection", create_connection)
        return made

    return give


def test_puts_are_sent_as_given_in_one_piece(
    connections: Callable[..., list[FakeConnection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connections(*[[b"ok\n\n"]] * 5)
    monkeypatch.setattr("time.time", lambda: 1700000000.9)
    client = Client("h", 1, timeout=5)
    client.put("test", 0.5, timestamp=1)
    client.put("test", 2.0, 0)
    client.put("load", 301, timestamp=-3)
    client.put("kö", 1e22)
    client.put("k", True, 2**70)
    sent = [b"".join(connection.sent) for connection in made]
    assert sent == [
        b"put test 0.5 1\n",
        b"put test 2.0 0\n",
        b"put load 301 -3\n",
        "put kö 1e+22 1700000000\n".encode(),
        f"put k True {2**70}\n".encode(),
    ]
    assert all(len(connection.sent) == 1 and connection.left == 1 for connection in made)


REPLY = "ok\npalm 10.5 1501864247\nохлаждение 15.3 1501864259\npalm 8.3 1501864240\npalm 2 1501864240\n\n".encode()
FOUND = {
    "palm": [(1501864240, 8.3), (1501864240, 2.0), (1501864247, 10.5)],
    "охлаждение": [(1501864259, 15.3)],
}


@pytest.mark.parametrize("size", [*range(1, 12), len(REPLY)])
def test_replies_in_segments_of_any_size(connections: Callable[..., list[FakeConnection]], size: int) -> None:
    pieces = [REPLY[start : start + size] for start in range(0, len(REPLY), size)]
    (connection,) = connections(pieces)
    got = Client("h", 1, timeout=5).get("*")
    assert got == FOUND and list(got) == list(FOUND)
    assert all(type(second) is int and type(value) is float for rows in got.values() for second, value in rows)
    assert connection.sent == [b"get *\n"]


def test_nothing_found_is_empty(connections: Callable[..., list[FakeConnection]]) -> None:
    connections([b"ok\n\n"], [b"ok\n", b"\n"])
    client = Client("h", 1, timeout=5)
    assert client.get("k") == client.get("*") == {}


def test_megabytes_in_small_segments_take_linear_time(connections: Callable[..., list[FakeConnection]]) -> None:
    line = b"a.metric.of.some.length 0.123456789 1501864247\n"
    pieces = [b"ok\n", *[line[:20], line[20:]] * 100_000, b"\n"]
    connections(pieces)
    assert len(Client("h", 1, timeout=5).get("*")["a.metric.of.some.length"]) == 100_000


def test_what_comes_after_the_end_belongs_to_nobody(connections: Callable[..., list[FakeConnection]]) -> None:
    connections([b"ok\nk 1 1\n\nok\nk 2 2\n\n"], [b"ok\n\nerror\n\n"], [b"ok\n\n\xff"])
    client = Client("h", 1, timeout=5)
    assert client.get("k") == {"k": [(1, 1.0)]}
    client.put("k", 1, 1)
    assert client.get("k") == {}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"error\nwrong command\n\n", "^wrong command$"),
        (b"error\nservice unavailable\n\n", "^service unavailable$"),
        (b"error\n\n", "answered with an error"),
        (b"fine\n\n", "unknown status 'fine'"),
        (b"OK\n\n", "unknown status"),
        (b"ok \n\n", "unknown status"),
        (b"ok\r\n\r\n\n\n", "unknown status"),
        (b"ok k 1 1\n\n", "unknown status"),
        (b"okay\nk 1 1\n\n", "unknown status"),
        (b"\n\n", "unknown status ''"),
        (b"HTTP/1.1 400 Bad Request\n\n", "unknown status"),
        (b"ok\nk 1\n\n", "malformed line 'k 1'"),
        (b"ok\nk\n\n", "malformed"),
        (b"ok\nk 1 1 1\n\n", "malformed"),
        (b"ok\nk 1 1\nk 1\n\n", "malformed line 'k 1'"),
        (b"ok\nk one 1\n\n", "malformed"),
        (b"ok\nk 1_0 1\n\n", "malformed"),
        (b"ok\nk 1 1.5\n\n", "malformed"),
        (b"ok\nk 1 now\n\n", "malformed"),
        (b"ok\nk  1 1\n\n", "malformed"),
        (b"ok\n 1 1\n\n", "malformed"),
        (b"ok\nk\t1\t1\n\n", "malformed"),
        (b"ok\nk 1 1\r\n\n", "malformed"),
        (b"ok\nk 1 " + b"1" * 5000 + b"\n\n", "malformed"),
        (b"\xff\xfe\x00\n\n", "UTF-8"),
        (b"ok\n\xc3 1 1\n\n", "UTF-8"),
        (b"", "closed the connection after 0 bytes"),
        (b"ok\n", "closed the connection after 3 bytes"),
        (b"ok\nk 1 1\n", "closed the connection"),
        (b"error\nwrong command\n", "closed the connection"),
        (b"\x00" * 100_000, "closed the connection after 100000 bytes"),
    ],
)
def test_bad_replies_are_client_errors(reply: bytes, text: str) -> None:
    with ScriptedPeer(says(reply)) as peer, pytest.raises(ClientError, match=text):
        client_of(peer).get("k")


@pytest.mark.parametrize("reply", [b"error\nwrong command\n\n", b"fine\n\n", b"ok\nk 1 1\n\n", b"ok\n", b""])
def test_bad_replies_to_a_put(reply: bytes) -> None:
    with ScriptedPeer(says(reply)) as peer, pytest.raises(ClientError):
        client_of(peer).put("k", 1, 1)


def test_a_client_goes_on_after_an_error() -> None:
    with ScriptedPeer(says(b"ok\n"), says(b"ok\n\n"), says(b"error\nno\n\n"), says(b"ok\nk 1 1\n\n")) as peer:
        client = client_of(peer)
        with pytest.raises(ClientError):
            client.put("k", 1, 1)
        client.put("k", 1, 1)
        with pytest.raises(ClientError, match="no"):
            client.get("k")
        assert client.get("k") == {"k": [(1, 1.0)]}


def test_a_silent_server_is_a_timeout() -> None:
    with ScriptedPeer(lambda connection, command: peer.over.wait()) as peer:
        with pytest.raises(ClientError, match="time"):
            client_of(peer, timeout=0.1).get("k")


def test_half_a_reply_and_silence_is_a_timeout() -> None:
    def half(connection: socket.socket, command: bytes) -> None:
        connection.sendall(b"ok\nk 1 1\n")
        peer.over.wait()

    with ScriptedPeer(half) as peer, pytest.raises(ClientError, match="time"):
        client_of(peer, timeout=0.1).get("k")


def drip(peer: Callable[[], ScriptedPeer], pause: float) -> Act:
    """An act: a reply without end, a line at a time."""

    def act(connection: socket.socket, command: bytes) -> None:
        connection.sendall(b"ok\n")
        while not peer().over.wait(pause):
            connection.sendall(b"k 1 1\n")

    return act


def test_a_reply_that_drips_for_ever_is_a_timeout() -> None:
    with ScriptedPeer(drip(lambda: peer, 0.02)) as peer, pytest.raises(ClientError, match="time"):
        client_of(peer, timeout=0.5).get("k")


@pytest.mark.parametrize("timeout", [30, None])
def test_a_reply_that_drips_within_the_timeout(timeout: float | None) -> None:
    text = b"ok\nk 1 1\nk 2 2\n\n"

    def act(connection: socket.socket, command: bytes) -> None:
        for index in range(len(text)):
            connection.sendall(text[index : index + 1])
            threading.Event().wait(0.01)

    with ScriptedPeer(act) as peer:
        assert client_of(peer, timeout).get("k") == {"k": [(1, 1.0), (2, 2.0)]}


def test_no_server_is_a_client_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ClientError, match=f"127.0.0.1:{port}"):
        Client("127.0.0.1", port, timeout=30).put("k", 1)
    with pytest.raises(ClientError):
        Client("no-such-host.invalid", port, timeout=30).get("k")


@pytest.mark.parametrize("key", ["", "a b", "a\nput b 1 1", "a\r", "\u2028", "a\tb", "\ud800"])
def test_what_is_not_one_word_is_not_sent(key: str, connections: Callable[..., list[FakeConnection]]) -> None:
    connections()  # none may be made
    client = Client("h", 1, timeout=5)
    with pytest.raises(ClientError, match="cannot be sent"):
        client.put(key, 1, 1)
    with pytest.raises(ClientError, match="cannot be sent"):
        client.get(key)


def test_a_reset_connection_is_a_client_error() -> None:
    def act(connection: socket.socket, command: bytes) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with ScriptedPeer(act) as peer, pytest.raises(ClientError):
        client_of(peer).get("k")
